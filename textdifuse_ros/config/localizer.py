"""Parameters of the localizers and of tracking between key frames; does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter

LOCALIZERS = ("builtin", "detect_segment", "sam3", "fixed")


@dataclass(frozen=True)
class LocalizerConfig:
    """Parameters of a localizer."""

    localizer: str = parameter(
        "builtin",
        "Localizer of the objects that the text names: builtin (weights included), detect_segment (a detector such as "
        "OWL-ViT and a segmenter such as SAM, from local folders), sam3 (from a local folder), fixed (given regions).",
        choices=LOCALIZERS,
        live=True,
    )
    localizer_model: str = parameter(
        "locate",
        "Checkpoint of the builtin localizer: a name in the model folders, or the path of a file.",
        live=True,
    )
    localizer_threshold: float = parameter(
        0.4, "Minimum score of the objects of the builtin localizer.", low=0.0, high=1.0, live=True
    )
    detector: str = parameter(
        "",
        "Folder of a text-conditioned detector in transformers format: OWL-ViT, OWLv2 or Grounding DINO.",
        live=True,
    )
    segmenter: str = parameter(
        "",
        "Folder of SAM, SAM 2 or SAM 3 in transformers format, or a segment-anything checkpoint "
        "(sam_vit_b, _l or _h, .pth); empty uses the detector's boxes as masks.",
        live=True,
    )
    box_threshold: float = parameter(0.15, "Minimum score of the detector's boxes.", low=0.0, high=1.0, live=True)
    nms_iou: float = parameter(
        0.5,
        "Intersection over union above which the lower-scored of two boxes of the same phrase is suppressed.",
        low=0.0,
        high=1.0,
        live=True,
    )
    regions: str = parameter(
        "",
        "Regions of the fixed localizer: boxes 'left top right bottom' [pixels] separated by semicolons, each "
        "optionally preceded by its phrase; or a file: .txt with one box per line, or an image with level k for "
        "phrase k.",
        live=True,
    )
    localizer_device: str = parameter(
        "auto",
        "Compute device of the localizer: auto (CUDA if available, else CPU), cpu, cuda or cuda:N.",
        live=True,
    )


@dataclass(frozen=True)
class TrackingConfig:
    """Parameters of tracking between key frames."""

    localize_rate: float = parameter(
        2.0,
        "Maximum rate of key frames, the images that the localizer processes.",
        unit="Hz",
        low=0.01,
        high=100.0,
        live=True,
    )
    mask_lifetime: float = parameter(
        1.0,
        "Time after which a mask is dropped unless a key frame confirms it; must exceed the frame period plus the "
        "localizer's processing time.",
        unit="s",
        low=0.05,
        high=60.0,
        live=True,
    )
