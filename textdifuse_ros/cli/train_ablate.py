"""``textdifuse train ablate``: train and evaluate variants of the method that each lack one part."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.cli.evaluate import DATA
from textdifuse_ros.cli.outputs import INTERRUPTED
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments
from textdifuse_ros.errors import ConfigError

if TYPE_CHECKING:
    from textdifuse_ros.config.training import TrainConfig
    from textdifuse_ros.evaluate.methods import Row
    from textdifuse_ros.evaluate.results import Evaluation
    from textdifuse_ros.evaluate.sets import PairSet

HELP = "Train variants that each lack one part of the method for a few steps, and evaluate them."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    from textdifuse_ros.config.training import AblationConfig

    add = parser.add_argument
    add("--pack", type=Path, required=True, metavar="FILE", help="Image pack with pairs.")
    add("--start", type=Path, required=True, metavar="CHECKPOINT", help="Weights that every variant starts from.")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="Folder of the runs, the images and the "
        "tables; runs in it are resumed.")  # fmt: skip
    add("--variant", action="append", default=[], metavar="NAME", help="Only this variant; repeatable. Default: all.")
    add("--set", action="append", default=[], metavar="NAME", help="A named set to evaluate on; repeatable.")
    add("--data", type=Path, metavar="DIR", help=f"Data folder of --set. Default: ${DATA}.")
    add("--visible", type=Path, metavar="DIR", help="Alternatively, folder of clean visible images to evaluate on.")
    add("--infrared", type=Path, metavar="DIR", help="Folder of infrared images with equal names.")
    add("--limit", type=int, default=0, metavar="N", help="Evaluate on N evenly spaced pairs. Default: all.")
    add("--jobs", type=int, default=0, metavar="N", help="Processes for the metrics. Default: one per core.")
    add("--fuse-steps", type=int, default=4, metavar="N", help="Reverse steps to fuse with (without diffusion "
        "always one). Default: 4.")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N. Default: auto.")
    add_arguments(parser, AblationConfig, skip=("stage", "look"))


def run(arguments: argparse.Namespace) -> int:
    """Train, fuse and evaluate; write ``ablation.md`` and ``ablation.json``.

    :returns: 0; 130 if the training was interrupted
    """
    from textdifuse_ros.config.training import AblationConfig
    from textdifuse_ros.evaluate.tables import write_text
    from textdifuse_ros.train.ablation import VARIANTS

    names = tuple(dict.fromkeys(arguments.variant)) or tuple(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise ConfigError("--variant", f"one of {', '.join(VARIANTS)}", repr(name))
    for flag in ("limit", "jobs"):
        if getattr(arguments, flag) < 0:
            raise ConfigError(f"--{flag}", "0 or more", getattr(arguments, flag))
    fuse = FuserConfig(device=arguments.device, steps=arguments.fuse_steps)
    config, sets = from_arguments(AblationConfig, arguments), _sets(arguments)
    for number, name in enumerate(names, 1):
        print(f"{name} ({number} of {len(names)}): {VARIANTS[name].meaning}", file=sys.stderr)
        if not _train(arguments, config, name):
            return INTERRUPTED
    evaluations = [_measure(arguments, fuse, pairs, names) for pairs in sets]
    markdown = _markdown(names, config, evaluations)
    write_text(arguments.output / "ablation.md", markdown)
    write_text(arguments.output / "ablation.json", _json(names, config, evaluations))
    print(markdown, end="")
    return 0


def _sets(arguments: argparse.Namespace) -> list[PairSet]:
    """Read the sets to evaluate on; called before training, so that mistakes are reported at once."""
    from textdifuse_ros.evaluate.sets import folder_set, named_set

    data = arguments.data or (Path(os.environ[DATA]) if os.environ.get(DATA) else None)
    if arguments.set and data is None:
        raise ConfigError("--set", "given with a data folder", "none", f"set --data or {DATA}")
    sets = [named_set(name, data, arguments.limit) for name in arguments.set if data is not None]
    if arguments.visible and arguments.infrared:
        sets.append(folder_set(arguments.visible, arguments.infrared, arguments.limit))
    elif arguments.visible or arguments.infrared:
        raise ConfigError("--visible and --infrared", "given together", "one of them")
    if not sets:
        raise ConfigError("the pairs to evaluate on", "given by --set, or by --visible and --infrared", "none")
    return sets


def _train(arguments: argparse.Namespace, config: TrainConfig, name: str) -> bool:
    from textdifuse_ros.fusion.device import keep_memory
    from textdifuse_ros.networks.device import resolve_device
    from textdifuse_ros.train.ablation import VARIANTS, AblationStage
    from textdifuse_ros.train.fusion_task import fusion_trainer

    device = resolve_device(arguments.device)
    if device.type == "cpu":
        keep_memory()
    trainer = fusion_trainer(
        config,
        arguments.output / name,
        arguments.pack,
        arguments.start,
        device,
        make=lambda config, networks: AblationStage(VARIANTS[name], config, networks),
        variant=name,
    )
    return trainer.run()


def _measure(arguments: argparse.Namespace, fuse: FuserConfig, pairs: PairSet, names: tuple[str, ...]) -> Evaluation:
    from textdifuse_ros.evaluate.methods import Row
    from textdifuse_ros.evaluate.pool import available_cores
    from textdifuse_ros.evaluate.run import Request
    from textdifuse_ros.evaluate.run import run as evaluate

    rows = tuple(Row(name, arguments.output / name / "fused" / pairs.name) for name in names)
    for row in rows:
        _fuse(arguments.output / row.name, fuse, pairs, row)
    return evaluate(Request(pairs, methods=rows, workers=arguments.jobs or available_cores()))


def _fuse(folder: Path, fuse: FuserConfig, pairs: PairSet, row: Row) -> None:
    from textdifuse_ros.evaluate.methods import InputPair, fuse_into
    from textdifuse_ros.evaluate.sets import read_pair
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.fusion.weights import load_networks
    from textdifuse_ros.train.ablation import VARIANTS
    from textdifuse_ros.train.state import WEIGHTS

    variant = VARIANTS[row.name]
    networks, checkpoint = load_networks(folder / WEIGHTS)
    variant.apply(networks)
    config = replace(fuse, model=row.name, steps=fuse.steps if variant.diffusion else 1)
    fuser = Fuser(networks, config, checkpoint.sha256)
    for pair in pairs.pairs:
        fuse_into(row, fuser, InputPair(pair.stem, "", *read_pair(pair)), pair)
    fuser.close()


def _markdown(names: tuple[str, ...], config: TrainConfig, evaluations: list[Evaluation]) -> str:
    from textdifuse_ros.evaluate.tables import markdown_table
    from textdifuse_ros.train.ablation import VARIANTS

    lines = [
        "# Ablation",
        "",
        f"Each variant: {config.steps} steps from the same weights, on the same crops; the decoder and a new fusion "
        f"control are trained (seed {config.seed}).",
        "",
        *(f"- `{name}`: {VARIANTS[name].meaning}" for name in names),
    ]
    for evaluation in evaluations:
        title = f"## {evaluation.set_name}, {evaluation.pairs} pairs"
        lines += ["", title, "", markdown_table(evaluation.table, intervals=False)]
    return "\n".join(lines) + "\n"


def _json(names: tuple[str, ...], config: TrainConfig, evaluations: list[Evaluation]) -> str:
    from textdifuse_ros.config.base import to_mapping
    from textdifuse_ros.evaluate.tables import to_json
    from textdifuse_ros.train.ablation import VARIANTS

    content: dict[str, Any] = {
        "config": to_mapping(config),
        "variants": {name: vars(VARIANTS[name]) for name in names},
        "sets": {evaluation.set_name: json.loads(to_json(evaluation)) for evaluation in evaluations},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
