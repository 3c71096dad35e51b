"""``textdifuse train``: pack images, train stages, join and average checkpoints, ablate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.cli import train_ablate, train_localizer
from textdifuse_ros.cli.outputs import INTERRUPTED, warn_if_swapped
from textdifuse_ros.config.base import add_arguments, parameters
from textdifuse_ros.errors import ConfigError

if TYPE_CHECKING:
    from textdifuse_ros.train.fusion_task import FusionTask
    from textdifuse_ros.train.run_file import RunFile
    from textdifuse_ros.train.trainer import Trainer

NAME = "train"
HELP = (
    "Train a stage of the networks, resumable (luma, chroma, control, joint, modulation); pack images; join, "
    "average, ablate."
)

_PAIRS = "Two folders of aligned images with equal names; repeatable."
_CONFIG = "Run file (YAML): images, networks, and parameters of all stages; flags override it."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from textdifuse_ros.config.training import TrainConfig

    what = parser.add_subparsers(metavar="WHAT", required=True)
    _configure_pack(what.add_parser("pack", help="Write all training images into one file.", allow_abbrev=False))
    for stage, text in (
        ("luma", "Restoration of luma, visible and infrared through one encoder."),
        ("chroma", "Restoration of chroma."),
        ("control", "The fusion control, everything else frozen."),
        ("joint", "Encoder, fusion control and decoder together."),
        ("modulation", "The text re-modulation, everything else frozen."),
    ):
        verb = what.add_parser(stage, help=text, description=text, allow_abbrev=False)
        add = verb.add_argument
        add("--config", type=Path, metavar="FILE", help=_CONFIG)
        add("--pack", type=Path, metavar="FILE", help="Image pack.")
        add("--run", type=Path, metavar="DIR", dest="folder", help="Folder of the run; a run in it is resumed.")
        add("--start", type=Path, metavar="CHECKPOINT", help="Weights of the previous stage.")
        add("--device", help="auto, cpu, cuda or cuda:N. Default: auto.")
        add("--dry-run", action="store_true", help="Print the plan, after a few trial steps that are discarded.")
        add_arguments(verb, TrainConfig, skip=("stage",))
        verb.set_defaults(train=_train, stage=stage)
    join = what.add_parser("join", help="Join the luma of a checkpoint and the chroma of another.", allow_abbrev=False)
    join.add_argument("luma", type=Path, metavar="LUMA", help="Checkpoint with luma and fusion control.")
    join.add_argument("chroma", type=Path, metavar="CHROMA", help="Checkpoint with chroma.")
    join.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="The joined checkpoint.")
    join.set_defaults(train=_join)
    text = "Average the weights of checkpoints of one run."
    average = what.add_parser("average", help=text, description=text, allow_abbrev=False)
    average.add_argument("weights", type=Path, nargs="+", metavar="CHECKPOINT", help="Two or more, of one run.")
    average.add_argument(
        "--shares", type=float, nargs="+", metavar="S", help="Share of each checkpoint. Default: equal shares."
    )
    average.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="The averaged checkpoint.")
    average.set_defaults(train=_average)
    ablate = what.add_parser("ablate", help=train_ablate.HELP, description=train_ablate.HELP, allow_abbrev=False)
    train_ablate.configure(ablate)
    ablate.set_defaults(train=train_ablate.run)
    train_localizer.add_verbs(what)


def run(arguments: argparse.Namespace) -> int:
    """Pack, train, join, average or ablate.

    :returns: 0; 130 if a run was interrupted, with its state saved
    """
    status: int = arguments.train(arguments)
    return status


def _configure_pack(parser: argparse.ArgumentParser) -> None:
    add, pair = parser.add_argument, ("VISIBLE", "INFRARED")
    add("data", type=Path, nargs="?", metavar="DATA", help="Folder with some of roadscene, camvid and bsds500.")
    add("--pairs", type=Path, nargs=2, action="append", default=[], metavar=pair, help=_PAIRS)
    add("--clean", type=Path, action="append", default=[], metavar="DIR", help="Clean visible images; repeatable.")
    add("--harvard", type=Path, metavar="DIR", help="Medical pairs: folder with some of ct-mri, pet-mri, spect-mri.")
    add("--config", type=Path, metavar="FILE", help="Run file (YAML) with data and pack; flags override it.")
    add("-o", "--output", type=Path, metavar="FILE", help="The pack.")
    parser.set_defaults(train=_pack)


def _run_file(arguments: argparse.Namespace) -> RunFile:
    from textdifuse_ros.train.run_file import RunFile, load_run_file

    return load_run_file(arguments.config) if arguments.config else RunFile()


def _pack(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from textdifuse_ros.data.pack import write_pack
    from textdifuse_ros.data.pairs import load_shuffled
    from textdifuse_ros.image.files import find_pairs
    from textdifuse_ros.train.run_file import Images

    file = _run_file(arguments)
    named = Images(tuple(map(tuple, arguments.pairs)), tuple(arguments.clean), arguments.data, arguments.harvard)
    images = file.images if named == Images() else named
    output = arguments.output or file.pack
    if output is None:
        raise ConfigError("the pack to write", "given by --output, or by pack in --config", "none")
    sources = images.sources()
    for visible, infrared in images.pairs:
        warn_if_swapped(visible, infrared, find_pairs(visible, infrared))
    count = write_pack(output, tqdm(load_shuffled(sources), total=len(sources), unit="image"))
    pairs = sum(source.infrared is not None for source in sources)
    print(f"packed {count} images, {pairs} of them pairs, into {output}")
    return 0


def _join(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.fusion.weights import join_networks

    join_networks(arguments.luma, arguments.chroma, arguments.output)
    print(f"joined into {arguments.output}")
    return 0


def _average(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.checkpoint import average_checkpoints

    shares = arguments.shares or [1.0] * len(arguments.weights)
    average_checkpoints(arguments.weights, shares, arguments.output)
    print(f"averaged into {arguments.output}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.config.training import TrainConfig
    from textdifuse_ros.fusion.device import keep_memory
    from textdifuse_ros.networks.device import resolve_device
    from textdifuse_ros.train.fusion_task import fusion_trainer
    from textdifuse_ros.train.ranks import exit_process, process_group
    from textdifuse_ros.train.stages import NEED_START
    from textdifuse_ros.train.state import STATE

    file, stage = _run_file(arguments), arguments.stage
    names = {item.name for item in parameters(TrainConfig)}
    config = file.config(stage, {name: value for name, value in vars(arguments).items() if name in names})
    pack: Path | None = arguments.pack or file.pack
    folder: Path | None = arguments.folder or (file.runs / stage if file.runs else None)
    if pack is None:
        raise ConfigError("--pack", "given, or pack in --config", "neither")
    if folder is None:
        raise ConfigError("--run", "given, or runs in --config", "neither")
    start = arguments.start or file.starts.get(stage)
    if start is None and stage in NEED_START and not (folder / STATE).is_file():
        due = "the weights of the previous stage, because most of the networks are kept from there"
        raise ConfigError(f"--start of {stage}", due, "none", "give it, or start under the stage in --config")
    device = resolve_device(arguments.device or file.device)
    if device.type == "cpu":
        keep_memory()
    with process_group(device) as (ranks, own):
        trainer = fusion_trainer(config, folder, pack, start, own, drive=file.networks, ranks=ranks)
        status = _plan(trainer) if arguments.dry_run else _run_stage(trainer)
    if ranks.size > 1:
        exit_process(status)
    return status


def _plan(trainer: Trainer[FusionTask]) -> int:
    from textdifuse_ros.train.plan import describe_trial, try_steps

    trial = try_steps(trainer)
    if trainer.ranks.first:
        print(describe_trial(trainer, trial))
    return 0


def _run_stage(trainer: Trainer[FusionTask]) -> int:
    from textdifuse_ros.train.state import WEIGHTS

    done = trainer.run()
    if trainer.ranks.first and done:
        print(f"{trainer.step} steps done; weights in {trainer.folder / WEIGHTS}")
    elif trainer.ranks.first:
        print(f"stopped after step {trainer.step} of {trainer.config.steps}; repeat the command to resume")
    return 0 if done else INTERRUPTED
