"""``textdifuse demo``: play, fuse and record a synthetic night drive, or pairs of your own.

Imports no ROS: :mod:`textdifuse_ros.nodes.demo` runs player, node and recorder in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros import __version__
from textdifuse_ros.cli.info import parse_size
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, to_mapping
from textdifuse_ros.demo.checks import check_ros, check_text
from textdifuse_ros.demo.launch import launch, transport_profile
from textdifuse_ros.demo.output import claim_output
from textdifuse_ros.demo.plans import DemoPlan
from textdifuse_ros.errors import ConfigError

if TYPE_CHECKING:
    from textdifuse_ros.demo.inputs import Prepared
    from textdifuse_ros.demo.report import Input

NAME = "demo"
HELP = "Run player, node and recorder over DDS on a synthetic night drive, or on pairs of your own."

MIN_PAIRS = 50
MAX_FOLDER_PAIRS = 200
TEXT, TEXT_LATER = "person", "car"
PAIRS_PER_LOCALIZATION = 3  # at least: the localizer shares the processor with the fusion
RESULTS = ("contact_sheet.png", "drive.mp4", "fused_bag", "input_bag", "logs", "summary.json")
"""Names of all files and folders that the verb writes."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, default=Path("build/demo"), help="Output folder.")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="Folder with vis/ and ir/, to use instead of the synthetic drive."
    )
    parser.add_argument("--pairs", type=int, default=56, help=f"Pairs to play, at least {MIN_PAIRS}. Default: 56.")
    parser.add_argument(
        "--size", metavar="WxH", default="640x480", help="Size of the synthetic images. Default: 640x480."
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="Rate of the pairs to play [Hz]. Default: as fast as this machine can fuse, at most 10.",
    )
    parser.add_argument(
        "--text",
        metavar="T",
        help=f"Objects to emphasize at first. Default: '{TEXT}' in the synthetic drive, none in a folder, whose pairs "
        "may show different scenes.",
    )
    parser.add_argument(
        "--text-later",
        metavar="T",
        help=f"Objects to emphasize after half of the pairs. Default: '{TEXT_LATER}' after '{TEXT}', else no change.",
    )
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the input, run the nodes and report the results.

    :returns: 0, or 1 if the counters are inconsistent or nothing was fused
    :raises TextDifuseError: something is missing or wrong
    """
    from textdifuse_ros.demo.inputs import choose_rate, drive_scene, prepare_folder, render_drive
    from textdifuse_ros.demo.report import RunCounters, make_images, read_texts, table
    from textdifuse_ros.fusion.fuser import Fuser

    config = from_arguments(FuserConfig, arguments)
    output, data = arguments.output, arguments.data
    begin = time.monotonic()
    # All checks first: a run that is refused must not remove the results of an earlier one.
    _check(arguments)
    texts = _texts(arguments)
    scene = drive_scene(parse_size(arguments.size), arguments.pairs)
    prepared = prepare_folder(data, arguments.pairs, MAX_FOLDER_PAIRS) if data else None
    fuser = Fuser.from_config(config)
    if prepared is None:
        claim_output(output, RESULTS)
        prepared = render_drive(scene, output / "input_bag")
    rendered = time.monotonic()
    rate, fuse_seconds = choose_rate(fuser, arguments.rate, prepared.samples)
    if data:
        claim_output(output, RESULTS, (data, data / "vis", data / "ir"))
    print(f"one pair takes {1e3 * fuse_seconds:.0f} ms; playing {prepared.pairs} pairs at {rate:.2f} Hz", flush=True)
    started = time.monotonic()
    report = launch("demo", _plan(config, output, prepared, rate, texts))
    ended = time.monotonic()

    recorded = 0
    if sum(report["recorder"]["recorded"].values()):
        recorded = make_images(_input(prepared, rate, report["player"]["start_ns"]), output)
    counters = RunCounters.from_report(report, recorded, read_texts(output) if recorded else [], texts)
    summary = {
        **counters.summary(),
        "rate_hz": round(rate, 3),
        "fuse_ms": round(1e3 * fuse_seconds, 3),
        "source": str(arguments.data or "synthetic night drive"),
        "version": __version__,
        "seconds": {
            "prepare": round(rendered - begin, 2),
            "measure": round(started - rendered, 2),
            "run": round(ended - started, 2),
            "total": round(time.monotonic() - begin, 2),
        },
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary, output))
    for fault in counters.faults():
        print(f"textdifuse: {fault}", file=sys.stderr)
    return 1 if counters.faults() else 0


def _check(arguments: argparse.Namespace) -> None:
    check_ros("the demo")
    if arguments.pairs < MIN_PAIRS:
        raise ConfigError("pairs", f"at least {MIN_PAIRS}", arguments.pairs)
    if arguments.rate and not 0.01 <= arguments.rate <= 100:
        raise ConfigError("rate", "in [0.01, 100] [Hz], or 0 to choose", arguments.rate)


def _texts(arguments: argparse.Namespace) -> list[str]:
    """Return the texts of the run in order: none, one or two.

    :raises ConfigError: a text cannot be parsed, or has an unknown word
    :raises CheckpointError: the weights of the localizer are missing
    """
    first = arguments.text if arguments.text is not None else ("" if arguments.data else TEXT)
    later = arguments.text_later if arguments.text_later is not None else (TEXT_LATER if first == TEXT else "")
    texts = []
    for name, text in (("--text", first), ("--text-later", later)):
        if check_text(name, text):
            texts.append(text)
        elif name == "--text" and later:
            raise ConfigError(name, "given where --text-later is", repr(text))
    return texts


def _plan(config: FuserConfig, output: Path, prepared: Prepared, rate: float, texts: list[str]) -> DemoPlan:
    from textdifuse_ros.demo.report import FUSED_TOPIC, OBJECTS_TOPIC, OVERLAY_TOPIC

    height, width = prepared.samples[0][0].shape[:2]
    player: dict[str, Any] = {"source": str(prepared.source.resolve()), "pairs": prepared.pairs}
    if prepared.recorded_hz:
        player["rate"] = rate / prepared.recorded_hz
    else:
        player.update(fps=rate, loop=True)
    # Reliable: if the machine has little shared memory, images go through the network stack, which may lose some.
    node = {**to_mapping(config), "input_reliability": "reliable", "warm_up_size": [height, width]}
    if texts:
        node.update(target_text=texts[0], localize_rate=min(2.0, max(0.01, rate / PAIRS_PER_LOCALIZATION)))
    return DemoPlan(
        output=str(output.resolve()),
        node=node,
        player=player,
        profile=transport_profile(),
        pairs=prepared.pairs,
        record=[FUSED_TOPIC, *((OVERLAY_TOPIC, OBJECTS_TOPIC) if texts else ())],
        text_later=texts[1] if len(texts) > 1 else "",
    )


def _input(prepared: Prepared, rate: float, start_ns: int) -> Input:
    from textdifuse_ros.demo.inputs import INFRARED_TOPIC, VISIBLE_TOPIC
    from textdifuse_ros.demo.report import FolderInput, RecordedInput

    if prepared.recorded_hz:
        return RecordedInput(prepared.source, VISIBLE_TOPIC, INFRARED_TOPIC)
    return FolderInput(prepared.source, start_ns, rate)
