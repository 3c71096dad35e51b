"""Pretrained localizers: loading, preprocessing and post-processing, on tiny random models saved by the tests.

The results must equal those of transformers' own code for the same weights and images.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError
from textdifuse_ros.localize.base import Localization
from textdifuse_ros.localize.prompt import Prompt, parse_prompt

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", minversion="5.0", reason="transformers 5 or later is not installed")

import tiny_models  # noqa: E402

from textdifuse_ros.localize.detector import (  # noqa: E402
    TEXT_ENCODERS,
    DetectedBoxes,
    Detector,
    box_iou,
    suppress,
)
from textdifuse_ros.localize.registry import make_localizer  # noqa: E402
from textdifuse_ros.localize.sam3 import Sam3Localizer  # noqa: E402
from textdifuse_ros.localize.segmenter import BoxFiller, Sam2, make_segmenter, read_normalization  # noqa: E402

PROMPT = parse_prompt("person, red car")
BOXES = np.array([[5.0, 4.0, 30.0, 28.0], [20.0, 10.0, 55.0, 36.0]])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of tiny models by kind, saved on first use."""
    root = tmp_path_factory.mktemp("pretrained")
    savers = {
        "owlvit": tiny_models.save_owl,
        "owlv2": lambda folder: tiny_models.save_owl(folder, 2),
        "dino": tiny_models.save_dino,
        "sam": tiny_models.save_sam,
        "sam2": tiny_models.save_sam2,
        "sam3": tiny_models.save_sam3,
    }

    def get(kind: str) -> Path:
        folder = root / kind
        return folder if folder.exists() else savers[kind](folder)

    return get


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(0, 256, (40, 60), dtype=np.uint8)


def same(found: DetectedBoxes, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> bool:
    close = np.allclose(found.boxes, boxes, atol=1e-3) and np.allclose(found.scores, scores, atol=1e-5)
    return len(found.scores) > 0 and close and np.array_equal(found.labels, labels)


def within(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to an image; also returns which of them are at least one pixel wide and high."""
    clipped = np.clip(boxes, 0, (size[1], size[0], size[1], size[0]))
    return clipped, (clipped[:, 2] - clipped[:, 0] >= 1) & (clipped[:, 3] - clipped[:, 1] >= 1)


@pytest.mark.parametrize(("kind", "name"), [("owlvit", "OwlViT"), ("owlv2", "Owlv2")])
def test_owl_finds_what_transformers_finds(kind: str, name: str, models, images) -> None:
    model = getattr(transformers, f"{name}ForObjectDetection").from_pretrained(models(kind)).eval()
    processor = getattr(transformers, f"{name}Processor").from_pretrained(models(kind))
    texts = ["a photo of a person", "a photo of a red car"]
    inputs = processor(text=[texts], images=images[0], return_tensors="pt", padding="max_length", max_length=32)
    with torch.no_grad():
        outputs = model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(outputs, threshold=0.3, target_sizes=[(40, 60)])
    boxes, kept = within(expected["boxes"].numpy(), (40, 60))
    found = Detector.from_folder(str(models(kind)), "cpu").detect(images[0], PROMPT.names, 0.3)
    assert same(found, boxes[kept], expected["scores"].numpy()[kept], expected["labels"].numpy()[kept])


def test_grounding_dino_scores_a_phrase_by_its_own_tokens(models, images) -> None:
    folder = models("dino")
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = transformers.GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=images[0], text="person. red car.", return_tensors="pt")
    # [CLS] person . red car . [SEP]
    assert inputs["input_ids"].shape[1] == 7
    with torch.no_grad():
        outputs = model(**inputs)
    scores = outputs.logits[0].sigmoid().numpy()
    by_phrase = np.stack((scores[:, 1], scores[:, 3:5].max(1)), 1)
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=[(40, 60)]
    )
    found = Detector.from_folder(str(folder), "cpu").detect(images[0], PROMPT.names, 0.0)
    boxes, kept = within(expected["boxes"].numpy(), (40, 60))
    assert same(found, boxes[kept], by_phrase.max(1)[kept], by_phrase.argmax(1)[kept])


def test_a_sentence_too_long_for_the_detector_is_refused(models, images) -> None:
    detector = Detector.from_folder(str(models("dino")), "cpu")
    with pytest.raises(ConfigError, match="at most 32 tokens for this detector"):
        detector.detect(images[0], tuple(f"red bus a{'.' * n} car" for n in range(9)), 0.0)


@pytest.mark.parametrize("kind", ["owlvit", "dino"])
def test_a_repeated_prompt_is_encoded_once(kind: str, models, images) -> None:
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(models(kind)).eval()
    processor = transformers.AutoProcessor.from_pretrained(models(kind))
    calls: list[int] = []
    text_encoder = model.get_submodule(TEXT_ENCODERS[model.config.model_type])
    text_encoder.register_forward_hook(lambda *_: calls.append(1))
    detector = Detector(model, processor, torch.device("cpu"))
    first = detector.detect(images[0], PROMPT.names, 0.0)
    again = detector.detect(images[0], PROMPT.names, 0.0)
    detector.detect(255 - images[0], PROMPT.names, 0.0)
    assert len(calls) == 1
    assert np.array_equal(first.scores, again.scores)
    other = detector.detect(images[0], ("bus", "red car"), 0.0)
    assert len(calls) == 2
    assert not np.array_equal(first.scores, other.scores)
    detector.detect(images[0], PROMPT.names, 0.0)
    assert len(calls) == 2


def test_suppression_keeps_the_best_of_each_phrase() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [20, 0, 30, 10.0]])
    found = DetectedBoxes(boxes, np.array([0.5, 0.9, 0.4, 0.3]), np.array([0, 0, 1, 0]))
    assert box_iou(boxes[0], boxes[1:2]) == pytest.approx(9 / 11)
    assert suppress(found, 0.5).tolist() == [1, 2, 3]
    assert suppress(found, 0.9).tolist() == [1, 0, 2, 3]
    assert suppress(found.take(np.zeros(0, int)), 0.5).tolist() == []


def test_sam_gives_the_masks_of_transformers(models, images) -> None:
    model = transformers.SamModel.from_pretrained(models("sam")).eval()
    processor = transformers.SamProcessor.from_pretrained(models("sam"))
    inputs = processor(images=images[0], input_boxes=[BOXES.tolist()], return_tensors="pt")
    with torch.no_grad():
        outputs = model(
            pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False
        )
    (expected,) = processor.post_process_masks(
        outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=True
    )
    masks = make_segmenter(str(models("sam")), "cpu").segment(images[0], BOXES)
    assert (masks.dtype, masks.shape) == (bool, (2, 40, 60))
    assert np.array_equal(masks, expected[:, 0].numpy())
    assert 0 < masks.mean() < 1
    assert not np.array_equal(masks[0], masks[1])


def test_sam2_receives_normalized_images_and_scaled_boxes(models, images) -> None:
    model = transformers.Sam2Model.from_pretrained(models("sam2")).eval()
    inputs: dict = {}
    model.register_forward_pre_hook(lambda _, args, kwargs: inputs.update(kwargs), with_kwargs=True)
    segmenter = Sam2(model, read_normalization(models("sam2"), "segmenter"), torch.device("cpu"), "sam2")
    masks = segmenter.segment(images[0], BOXES)
    assert np.array_equal(masks, make_segmenter(str(models("sam2")), "cpu").segment(images[0], BOXES))
    assert (masks.dtype, masks.shape) == (bool, (2, 40, 60))
    assert 0 < masks.mean() < 1
    assert not np.array_equal(masks[0], masks[1])
    assert inputs["input_boxes"].shape == (1, 2, 4)
    assert np.allclose(inputs["input_boxes"][0], BOXES * (64 / 60, 64 / 40, 64 / 60, 64 / 40))
    flat = np.full((40, 60, 3), (255, 0, 128), np.uint8)
    segmenter.segment(flat, BOXES)
    expected = (np.array((1, 0, 128 / 255)) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert np.allclose(inputs["pixel_values"][0].mean((1, 2)), expected, atol=1e-4)


def config(models, segmenter: str = "", **options) -> LocalizerConfig:
    folder = str(models(segmenter)) if segmenter else ""
    options = {"box_threshold": 0.0, **options}
    return LocalizerConfig(localizer="detect_segment", detector=str(models("owlvit")), segmenter=folder, **options)


@pytest.mark.parametrize("segmenter", ["", "sam", "sam2"])
def test_detector_and_segmenter_locate_a_prompt(segmenter: str, models, images) -> None:
    localizer = make_localizer(config(models, segmenter))
    assert localizer.vocabulary is None
    assert localizer.name == f"detect_segment owlvit {segmenter or 'boxes'}"
    found = localizer.locate(*images, PROMPT)
    assert isinstance(found, Localization)
    assert found.size == (40, 60)
    assert {item.phrase for item in found.instances} <= {1, 2}
    assert found.label_map().any()
    assert not localizer.locate(*images, Prompt())
    localizer.close()


def test_both_images_are_searched_and_each_box_is_segmented_in_its_own_image(models, images, monkeypatch) -> None:
    localizer = make_localizer(config(models))
    views = {"visible": images[0], "infrared": np.repeat(images[1][:, :, None], 3, 2)}
    boxes = {"visible": [[0, 0, 20, 20]], "infrared": [[0, 0, 20, 19.0], [30, 10, 50, 30]]}
    scores = {"visible": [0.5], "infrared": [0.4, 0.8]}

    def name_of(image):
        return next(name for name, view in views.items() if np.array_equal(view, image))

    def detect(self, image, phrases, threshold):
        name = name_of(image)
        return DetectedBoxes(np.array(boxes[name], float), np.array(scores[name]), np.zeros(len(scores[name]), int))

    segmented = []

    def segment(self, image, given):
        segmented.append((name_of(image), given.tolist()))
        return np.ones((len(given), 40, 60), bool)

    monkeypatch.setattr(Detector, "detect", detect)
    monkeypatch.setattr(BoxFiller, "segment", segment)
    found = localizer.locate(*images, PROMPT)
    assert sorted(segmented) == [("infrared", [[30, 10, 50, 30]]), ("visible", [[0, 0, 20, 20]])]
    assert sorted(item.score for item in found.instances) == [0.5, 0.8]


def test_objects_below_the_threshold_are_dropped(models, images) -> None:
    every = make_localizer(config(models, nms_iou=1.0)).locate(*images, PROMPT).instances
    scores = sorted(item.score for item in every)
    middle = (scores[0] + scores[-1]) / 2
    some = make_localizer(config(models, nms_iou=1.0, box_threshold=middle)).locate(*images, PROMPT).instances
    assert 0 < len(some) < len(every)
    assert all(item.score >= middle for item in some)


def test_sam3_locates_objects_by_text_and_encodes_each_phrase_once(models, images) -> None:
    settings = LocalizerConfig(localizer="sam3", segmenter=str(models("sam3")), box_threshold=0.0, nms_iou=1.0)
    model = transformers.Sam3Model.from_pretrained(models("sam3")).eval()
    calls: list[int] = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    tokenizer = transformers.AutoTokenizer.from_pretrained(models("sam3"))
    localizer = Sam3Localizer(model, tokenizer, read_normalization(models("sam3"), "segmenter"), settings)
    first = localizer.locate(*images, PROMPT)
    assert {item.phrase for item in first.instances} == {1, 2}
    assert all(item.mask.shape == (40, 60) and 0 <= item.score <= 1 for item in first.instances)
    again = localizer.locate(*images, PROMPT)
    assert len(calls) == 2  # one per phrase
    assert [item.score for item in first.instances] == [item.score for item in again.instances]
    assert not localizer.locate(*images, Prompt())
    localizer.close()
    loaded = make_localizer(settings)
    assert loaded.name == "sam3 sam3"
    assert np.array_equal(loaded.locate(*images, PROMPT).label_map(), first.label_map())


def copy_without(folder: Path, target: Path, *names: str) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in names:
            (target / path.name).write_bytes(path.read_bytes())
    return target


def test_an_incomplete_folder_or_another_model_is_refused(models, tmp_path: Path) -> None:
    cases = {
        "config": (("config.json",), "without config.json"),
        "weights": (("model.safetensors",), "model.safetensors"),
        "processor": (("processor_config.json", "tokenizer.json", "tokenizer_config.json"), "must be loadable"),
    }
    for name, (files, message) in cases.items():
        folder = copy_without(models("owlvit"), tmp_path / name, *files)
        with pytest.raises(CheckpointError, match=message) as caught:
            Detector.from_folder(str(folder), "cpu")
        assert "docs/text.md" in caught.value.remedy
    with pytest.raises(CheckpointError, match="one of owlvit, owlv2, grounding-dino, mm-grounding-dino, got sam"):
        Detector.from_folder(str(models("sam")), "cpu")
    with pytest.raises(CheckpointError, match="one of sam, sam2, sam2_video, got owlvit"):
        make_segmenter(str(models("owlvit")), "cpu")
    folder = copy_without(models("sam2"), tmp_path / "sam2", "preprocessor_config.json")
    with pytest.raises(CheckpointError, match=r"one with preprocessor_config\.json, got none"):
        make_segmenter(str(folder), "cpu")


def test_incomplete_weights_are_refused_not_initialized_randomly(models, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_without(models("sam"), tmp_path / "part")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.startswith("mask_decoder.iou"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"must be complete, got 1 tensors missing \({name}\)"):
        make_segmenter(str(folder), "cpu")


def test_a_model_is_found_by_name_in_the_model_folders(models, monkeypatch) -> None:
    monkeypatch.setenv("TEXTDIFUSE_MODELS", str(models("owlvit").parent))
    assert Detector.from_folder("owlvit", "cpu").name == "owlvit"


def test_an_absent_device_is_refused(models) -> None:
    if not torch.cuda.is_available():
        found = "the localizer_device must be present, got cuda:0, and PyTorch sees no CUDA device"
        with pytest.raises(DeviceError, match=found):
            Detector.from_folder(str(models("owlvit")), "cuda:0")
    with pytest.raises(ConfigError, match="localizer_device"):
        Detector.from_folder(str(models("owlvit")), "tpu")


def test_a_missing_package_is_refused_with_the_command_to_install_it(models, monkeypatch, tmp_path: Path) -> None:
    folder = models("owlvit")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install 'transformers>=5'"):
        Detector.from_folder(str(folder), "cpu")
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    checkpoint = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save({}, checkpoint)
    with pytest.raises(ConfigError, match="segment-anything installed"):
        make_segmenter(str(checkpoint), "cpu")


class Original(torch.nn.Module):
    """Replaces a model of segment-anything, which requires torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))


def test_a_checkpoint_of_segment_anything_is_loaded_strictly_and_prompted_by_boxes(
    monkeypatch, tmp_path, images
) -> None:
    calls = []

    class Predictor:
        def __init__(self, model) -> None:
            assert model.bias.item() == 3.0
            assert not model.training

        def set_image(self, image) -> None:
            calls.append(image.shape)

        def predict(self, box, multimask_output):
            assert not multimask_output
            calls.append(box.tolist())
            mask = np.zeros((1, 40, 60), bool)
            mask[0, int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
            return mask, np.ones(1), None

    module = types.SimpleNamespace(SamPredictor=Predictor, sam_model_registry={"vit_b": Original})
    monkeypatch.setitem(sys.modules, "segment_anything", module)
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save({"bias": torch.full((1,), 3.0)}, path)
    segmenter = make_segmenter(str(path), "cpu")
    masks = segmenter.segment(images[0], BOXES)
    assert calls == [(40, 60, 3), *BOXES.tolist()]
    assert masks.sum((1, 2)).tolist() == [25 * 24, 35 * 26]
    assert segmenter.name == "sam_vit_b_01ec64"
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="must be a readable checkpoint"):
        make_segmenter(str(path), "cpu")
    odd = tmp_path / "sam.pth"
    odd.write_bytes(b"")
    with pytest.raises(CheckpointError, match="named with vit_b, vit_l or vit_h"):
        make_segmenter(str(odd), "cpu")


def test_the_normalization_is_read_from_either_file_of_a_processor(models, tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": json.loads((models("sam2") / "preprocessor_config.json").read_text())})
    )
    assert read_normalization(tmp_path, "segmenter").size == (64, 64)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="size, image_mean and image_std"):
        read_normalization(tmp_path, "segmenter")
