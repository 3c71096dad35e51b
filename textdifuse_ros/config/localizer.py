"""The parameters of the localizers and of tracking between key frames; free of PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter

LOCALIZERS = ("builtin", "detect_segment", "sam3", "fixed")


@dataclass(frozen=True)
class LocalizerConfig:
    """What :func:`textdifuse_ros.localize.registry.make_localizer` makes a localizer from."""

    localizer: str = parameter(
        "builtin",
        "What finds the objects named by the text: builtin (its weights ship), detect_segment (OWL-ViT and SAM, or "
        "their like, from local folders), sam3 (from a local folder), fixed (regions given by hand).",
        choices=LOCALIZERS,
        live=True,
    )
    localizer_model: str = parameter(
        "locate",
        "Checkpoint of the builtin localizer: a name looked up in the model folders, or a path to a file.",
        live=True,
    )
    localizer_threshold: float = parameter(
        0.4, "Least score of an object that the builtin localizer reports.", low=0.0, high=1.0, live=True
    )
    detector: str = parameter(
        "",
        "Folder with a text-conditioned detector in transformers' format: OWL-ViT, OWLv2 or Grounding DINO.",
        live=True,
    )
    segmenter: str = parameter(
        "",
        "Folder with SAM, SAM 2 or SAM 3 in transformers' format, or a segment-anything checkpoint "
        "(sam_vit_b, _l or _h, .pth); empty fills the detector's boxes.",
        live=True,
    )
    box_threshold: float = parameter(
        0.15, "Least score of a box that the detector reports.", low=0.0, high=1.0, live=True
    )
    nms_iou: float = parameter(
        0.5,
        "Of two boxes of one phrase that overlap by more than this (intersection over union) the better is kept.",
        low=0.0,
        high=1.0,
        live=True,
    )
    regions: str = parameter(
        "",
        "What the fixed localizer finds: boxes 'left top right bottom' [pixels], each with a phrase before it if need "
        "be, separated by semicolons; or a file: .txt with a box a line, or an image whose level k is phrase k.",
        live=True,
    )
    localizer_device: str = parameter(
        "auto",
        "Compute device of the localizer: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N.",
        live=True,
    )


@dataclass(frozen=True)
class TrackingConfig:
    """How masks are kept between key frames."""

    localize_rate: float = parameter(
        2.0,
        "Most key frames a second: images in which the localizer looks.",
        unit="Hz",
        low=0.01,
        high=100.0,
        live=True,
    )
    mask_lifetime: float = parameter(
        1.0,
        "A mask is dropped so long after the key frame that last found it; must exceed the time between "
        "two images and that which the localizer takes.",
        unit="s",
        low=0.05,
        high=60.0,
        live=True,
    )
