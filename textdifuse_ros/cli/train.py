"""``textdifuse train``: pack pictures, then train the stages one after the other."""

from __future__ import annotations

import argparse
from pathlib import Path

from textdifuse_ros.config import add_arguments, from_arguments

NAME = "train"
HELP = "Train a stage of the networks (luma, chroma, control, joint), resumable; pack pictures; join checkpoints."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from textdifuse_ros.config_train import TrainConfig

    what = parser.add_subparsers(metavar="WHAT", required=True)
    pack = what.add_parser("pack", help="Write all training pictures of a data folder into one file.")
    pack.add_argument("data", type=Path, metavar="DATA", help="Folder with roadscene, camvid and bsds500.")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="The pack.")
    pack.set_defaults(train=_pack)
    join = what.add_parser("join", help="Join the luma of one checkpoint and the chroma of another.")
    join.add_argument("luma", type=Path, metavar="LUMA", help="Checkpoint that gives luma and fusion control.")
    join.add_argument("chroma", type=Path, metavar="CHROMA", help="Checkpoint that gives chroma.")
    join.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="The joined checkpoint.")
    join.set_defaults(train=_join)
    for stage, text in (
        ("luma", "Restoration of luma, visible and infrared through one encoder."),
        ("chroma", "Restoration of chroma."),
        ("control", "The fusion control, everything else frozen."),
        ("joint", "Fusion control and decoder together, the encoder frozen."),
    ):
        verb = what.add_parser(stage, help=text, description=text)
        verb.add_argument("--pack", type=Path, required=True, metavar="FILE", help="Picture pack.")
        verb.add_argument(
            "--run",
            type=Path,
            required=True,
            metavar="DIR",
            dest="folder",
            help="Folder of the run; an unfinished run in it is taken up.",
        )
        verb.add_argument("--start", type=Path, metavar="CHECKPOINT", help="Weights of the stage before.")
        verb.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto.")
        add_arguments(verb, TrainConfig, skip=("stage",))
        verb.set_defaults(train=_train, stage=stage)


def run(arguments: argparse.Namespace) -> int:
    """Pack, or train to the end."""
    status: int = arguments.train(arguments)
    return status


def _pack(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from textdifuse_ros.data.pack import write_pack
    from textdifuse_ros.data.pairs import training_items

    count = write_pack(arguments.output, tqdm(training_items(arguments.data), unit="picture"))
    print(f"packed {count} pictures into {arguments.output}")
    return 0


def _join(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.fusion.weights import join_networks

    join_networks(arguments.luma, arguments.chroma, arguments.output)
    print(f"joined into {arguments.output}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.config_train import TrainConfig
    from textdifuse_ros.fusion.device import keep_memory, resolve_device
    from textdifuse_ros.train.loop import WEIGHTS, Training

    config = from_arguments(TrainConfig, arguments)
    device = resolve_device(arguments.device)
    if device.type == "cpu":
        keep_memory()
    training = Training(config, arguments.folder, arguments.pack, arguments.start, str(device))
    training.run()
    print(f"{training.step} steps done; weights in {arguments.folder / WEIGHTS}")
    return 0
