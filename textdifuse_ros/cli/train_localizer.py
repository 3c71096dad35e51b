"""``textdifuse train labels`` and ``textdifuse train localizer``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from textdifuse_ros.cli.outputs import INTERRUPTED
from textdifuse_ros.config.base import add_arguments, from_arguments
from textdifuse_ros.errors import ConfigError


def add_verbs(what: Any) -> None:
    """Add ``train labels`` and ``train localizer``.

    :param what: sub-parsers of ``textdifuse train``
    """
    from textdifuse_ros.config.training import LocalizerTrainConfig

    pack = what.add_parser("labels", help="Write the localizer's labeled images into one file.")
    pack.add_argument("data", type=Path, metavar="DATA", help="Folder with camvid and roadscene.")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="The label pack.")
    pack.add_argument("--drives", type=int, default=24, metavar="N", help="Rendered drives of 16 frames. Default: 24.")
    text = "Localizer that labels the real pairs without boxes; by default they are left out."
    pack.add_argument("--teacher", metavar="CHECKPOINT", help=text)
    pack.set_defaults(train=_pack)
    text = "Train the built-in localizer on a label pack."
    verb = what.add_parser("localizer", help=text, description=text)
    verb.add_argument("--pack", type=Path, required=True, metavar="FILE", help="Label pack.")
    verb.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="Folder of the run.")
    verb.add_argument("--start", type=Path, metavar="CHECKPOINT", help="Weights to start from.")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto.")
    add_arguments(verb, LocalizerTrainConfig)
    verb.set_defaults(train=_train)


def _pack(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from textdifuse_ros.data.label_pack import write_label_pack
    from textdifuse_ros.localize.builtin import BuiltinLocalizer
    from textdifuse_ros.train.localizer_items import training_labels

    if arguments.drives < 0:
        raise ConfigError("--drives", "0 or more", arguments.drives)
    teacher = BuiltinLocalizer(arguments.teacher) if arguments.teacher else None
    items = tqdm(training_labels(arguments.data, arguments.drives, teacher), unit="image")
    count = write_label_pack(arguments.output, items)
    print(f"packed {count} labeled images into {arguments.output}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.config.training import LocalizerTrainConfig
    from textdifuse_ros.fusion.device import keep_memory
    from textdifuse_ros.networks.device import resolve_device
    from textdifuse_ros.train.localizer_task import localizer_trainer
    from textdifuse_ros.train.state import WEIGHTS

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("the number of training processes", "1 for the localizer", os.environ["WORLD_SIZE"])
    config = from_arguments(LocalizerTrainConfig, arguments)
    device = resolve_device(arguments.device)
    if device.type == "cpu":
        keep_memory()
    trainer = localizer_trainer(config, arguments.folder, arguments.pack, arguments.start, device)
    if trainer.run():
        print(f"{trainer.step} steps done; weights in {arguments.folder / WEIGHTS}")
        return 0
    print(f"stopped after step {trainer.step} of {config.steps}; repeat the command to resume")
    return INTERRUPTED
