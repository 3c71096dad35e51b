"""Tiny transformers models with random weights, saved in the format of the published ones."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
import transformers

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = [".", "person", "car", "a", "red", "bus"]


def clip_tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    """Create a tokenizer with one token per letter; the start token is not 0, which is OWL-ViT's padding."""
    vocabulary = ["!", *string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


def save_owl(folder: Path, version: int = 1) -> Path:
    """Save OWL-ViT, or OWLv2 for version 2."""
    torch.manual_seed(1)
    text = {
        **VISION,
        "vocab_size": 55,
        "max_position_embeddings": 32,
        "eos_token_id": 54,
        "bos_token_id": 53,
        "pad_token_id": 54,
    }
    vision = {**VISION, "image_size": 64, "patch_size": 16}
    name = {1: "OwlViT", 2: "Owlv2"}[version]
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, projection_dim=16)
    getattr(transformers, f"{name}ForObjectDetection")(config).save_pretrained(folder)
    images = getattr(transformers, f"{name}ImageProcessorPil")(size={"height": 64, "width": 64})
    getattr(transformers, f"{name}Processor")(images, clip_tokenizer(folder / "words")).save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    """Save Grounding DINO."""
    torch.manual_seed(2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *WORDS]))
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    backbone = transformers.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1],
        num_heads=[1, 1, 1],
        window_size=2,
        out_indices=[2, 3],
    )
    text = transformers.BertConfig(vocab_size=32, **{k: v for k, v in VISION.items()}, max_position_embeddings=64)
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        num_queries=7,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_text_len=32,
        num_feature_levels=3,
        encoder_n_points=2,
        decoder_n_points=2,
        disable_custom_kernels=True,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 64})
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def save_sam(folder: Path) -> Path:
    """Save SAM."""
    torch.manual_seed(3)
    config = transformers.SamConfig(
        vision_config={
            **VISION,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 16,
            "mlp_dim": 16,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "attention_downsample_rate": 2,
        },
    )
    transformers.SamModel(config).save_pretrained(folder)
    images = transformers.SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16}
    )
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    """Save SAM 2; the settings of its processor are written as JSON, since its class requires torchvision."""
    torch.manual_seed(4)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 2, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    config = transformers.Sam2Config(
        vision_config=transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            fpn_hidden_size=16,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "attention_downsample_rate": 2,
        },
    )
    transformers.Sam2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Sam2ImageProcessorFast",
                "size": {"height": 64, "width": 64},
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            }
        )
    )
    return folder


def save_sam3(folder: Path) -> Path:
    """Save SAM 3."""
    torch.manual_seed(5)
    layer = {"hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 4}
    config = transformers.Sam3Config(
        vision_config=transformers.Sam3VisionConfig(
            backbone_config=transformers.Sam3ViTConfig(
                **VISION, image_size=56, patch_size=14, pretrain_image_size=28, window_size=2, global_attn_indexes=[0]
            ),
            fpn_hidden_size=32,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        text_config=transformers.CLIPTextConfig(
            **VISION, vocab_size=55, max_position_embeddings=32, projection_dim=16, eos_token_id=54, bos_token_id=53
        ),
        geometry_encoder_config={**layer, "num_layers": 1},
        detr_encoder_config={**layer, "num_layers": 1},
        detr_decoder_config={**layer, "num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )
    transformers.Sam3Model(config).save_pretrained(folder)
    clip_tokenizer(folder / "words").save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Sam3ImageProcessorFast",
                "size": {"height": 56, "width": 56},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        )
    )
    return folder
