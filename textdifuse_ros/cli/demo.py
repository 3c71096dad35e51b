"""``textdifuse demo``: the whole job once, on a synthetic night drive or on pairs of one's own.

Prepares the input, has :mod:`textdifuse_ros.nodes.demo` run player, node and recorder, and shows the result. It imports
no ROS itself: the nodes are processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros import __version__
from textdifuse_ros.cli.drive import INFRARED_TOPIC, VISIBLE_TOPIC
from textdifuse_ros.cli.live_run import (
    Prepared,
    check_ros,
    check_text,
    claim_output,
    drive_scene,
    render_drive,
    supervise,
    transport_profile,
)
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, to_mapping
from textdifuse_ros.errors import ConfigError, FileError, ImageError, InputError

if TYPE_CHECKING:
    import numpy as np

    from textdifuse_ros.cli.demo_report import Input
    from textdifuse_ros.fusion.fuser import Fuser

NAME = "demo"
HELP = "Run player, node and recorder over DDS on a synthetic night drive, or on pairs of your own."

LEAST_PAIRS = 50
MOST_FOLDER_PAIRS = 200
MOST_RATE = 10.0  # [Hz]
SHARE_OF_TIME = 0.7  # of a period that fusing one pair may take, measured while nothing else runs
MOST_MEASURED, MOST_MEASURING = 7, 4.0  # pairs and seconds
TEXT, TEXT_LATER = "person", "car"
PAIRS_PER_LOOK = 3  # of the localizer, at least: it shares the processor with the fusion
MADE = ("contact_sheet.png", "drive.mp4", "fused_bag", "input_bag", "logs", "summary.json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("build/demo"), help="Folder for what it leaves."
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="Folder with vis/ and ir/, to use in place of the synthetic drive."
    )
    parser.add_argument("--pairs", type=int, default=56, help=f"Pairs to play, at least {LEAST_PAIRS}. Default: 56.")
    parser.add_argument(
        "--size", metavar="WxH", default="640x480", help="Size of the synthetic images. Default: 640x480."
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help=f"Pairs a second [Hz]; by default at most {MOST_RATE:g}, and as many as this machine can fuse.",
    )
    parser.add_argument(
        "--text",
        metavar="T",
        help=f"What stands out at first. Default: '{TEXT}' in the synthetic drive, nothing in a folder, where each "
        "pair may be of another scene.",
    )
    parser.add_argument(
        "--text-later",
        metavar="T",
        help=f"What stands out from half of the pairs on. Default: '{TEXT_LATER}' after '{TEXT}', else no change.",
    )
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Prepare, run, show.

    :returns: 0, or 1 where the counters do not balance or nothing was fused
    :raises TextDifuseError: something is missing or wrong
    """
    from textdifuse_ros.cli.demo_report import RunCounters, make_images, read_texts, table
    from textdifuse_ros.fusion.fuser import Fuser

    config = from_arguments(FuserConfig, arguments)
    output, data = arguments.output, arguments.data
    begun = time.monotonic()
    # Everything that can be wrong first: a run that is refused must not have removed the results of the one before.
    _check(arguments)
    texts = _texts(arguments)
    scene = drive_scene(arguments.size, arguments.pairs)
    prepared = _from_folder(arguments) if data else None
    fuser = Fuser.from_config(config)
    if prepared is None:
        claim_output(output, MADE)
        prepared = render_drive(scene, output / "input_bag")
    rendered = time.monotonic()
    rate, fuse_seconds = _choose_rate(fuser, arguments.rate, prepared)
    if data:
        claim_output(output, MADE, (data, data / "vis", data / "ir"))
    print(f"one pair takes {1e3 * fuse_seconds:.0f} ms; playing {prepared.pairs} pairs at {rate:.2f} Hz", flush=True)
    played = time.monotonic()
    report = supervise("demo", _plan(config, output, prepared, rate, texts))
    ended = time.monotonic()

    recorded = 0
    if sum(report["recorder"]["recorded"].values()):
        recorded = make_images(_input(prepared, rate, report["player"]["start_ns"]), output)
    counters = RunCounters.of(report, recorded, read_texts(output) if recorded else [], texts)
    summary = {
        **counters.summary(),
        "rate_hz": round(rate, 3),
        "fuse_ms": round(1e3 * fuse_seconds, 3),
        "source": str(arguments.data or "synthetic night drive"),
        "version": __version__,
        "seconds": {
            "prepare": round(rendered - begun, 2),
            "measure": round(played - rendered, 2),
            "run": round(ended - played, 2),
            "total": round(time.monotonic() - begun, 2),
        },
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary, output))
    for fault in counters.faults():
        print(f"textdifuse: {fault}", file=sys.stderr)
    return 1 if counters.faults() else 0


def _input(prepared: Prepared, rate: float, start_ns: int) -> Input:
    from textdifuse_ros.cli.demo_report import FolderInput, RecordedInput

    if prepared.recorded_hz:
        return RecordedInput(prepared.source, VISIBLE_TOPIC, INFRARED_TOPIC)
    return FolderInput(prepared.source, start_ns, rate)


def _check(arguments: argparse.Namespace) -> None:
    check_ros("the demo")
    if arguments.pairs < LEAST_PAIRS:
        raise ConfigError("pairs", f"at least {LEAST_PAIRS}", arguments.pairs)
    if arguments.rate and not 0.01 <= arguments.rate <= 100:
        raise ConfigError("rate", "in [0.01, 100] [Hz], or 0 to choose", arguments.rate)


def _texts(arguments: argparse.Namespace) -> list[str]:
    """The texts of the run in their order: none, one or two.

    :raises ConfigError: a text is none, or has a word that is not known
    :raises CheckpointError: the localizer's weights are not there
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


def _from_folder(arguments: argparse.Namespace) -> Prepared:
    """Each pair of the folder once, in laps until there are enough.

    :raises FileError: no such folders, or no pair in them
    :raises InputError: no pair can be read
    """
    from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible

    listing = find_pairs(arguments.data / "vis", arguments.data / "ir").pairs
    if len(listing) > MOST_FOLDER_PAIRS:
        print(f"playing the first {MOST_FOLDER_PAIRS} of {len(listing)} pairs")
    samples = []
    for pair in listing:
        with contextlib.suppress(FileError):  # the player reports it
            samples.append((read_visible(pair.visible), read_infrared(pair.infrared)))
        if len(samples) == 3:
            break
    if not samples:
        raise InputError("the pairs", "readable", "none that is")
    pairs = max(arguments.pairs, min(len(listing), MOST_FOLDER_PAIRS))
    return Prepared(arguments.data, pairs, samples, 0.0)


def _choose_rate(fuser: Fuser, wanted: float, prepared: Prepared) -> tuple[float, float]:
    """The rate to play at [Hz], and the time that one pair takes [s]; the fuser is of no use afterwards."""
    try:
        fuser.warm_up(*prepared.samples[0][1].shape)
        # As the node does it: in another thread than the one that warmed up. That one would be several times slower on
        # a busy machine, because OpenMP waits by spinning in it.
        with ThreadPoolExecutor(max_workers=1) as pool:
            seconds = pool.submit(_time, fuser, prepared.samples).result()
    finally:
        fuser.close()
    if not seconds:
        raise InputError("the first pairs", "such that one of them can be fused", "none", "see what is wrong with them")
    typical = statistics.median(seconds)
    return wanted or min(MOST_RATE, SHARE_OF_TIME / typical), typical


def _time(fuser: Fuser, samples: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Seconds that each of a few fusions takes."""
    seconds: list[float] = []
    begun = time.perf_counter()
    for number in range(MOST_MEASURED):
        started = time.perf_counter()
        with contextlib.suppress(ImageError):  # the node counts it as dropped
            fuser.fuse(*samples[number % len(samples)])
            seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and time.perf_counter() - begun > MOST_MEASURING:
            break
    return seconds


def _plan(config: FuserConfig, output: Path, prepared: Prepared, rate: float, texts: list[str]) -> dict[str, Any]:
    """The argument of :mod:`textdifuse_ros.nodes.demo`."""
    from textdifuse_ros.cli.demo_report import FUSED_TOPIC, OBJECTS_TOPIC, OVERLAY_TOPIC

    height, width = prepared.samples[0][0].shape[:2]
    player: dict[str, Any] = {"source": str(prepared.source.resolve()), "pairs": prepared.pairs}
    if prepared.recorded_hz:
        player["rate"] = rate / prepared.recorded_hz
    else:
        player.update(fps=rate, loop=True)
    # Reliable: where the machine's shared memory is small, images go by way of the network stack, and losses with it.
    node = {**to_mapping(config), "input_reliability": "reliable", "warm_up_size": [height, width]}
    if texts:
        node.update(target_text=texts[0], localize_rate=min(2.0, max(0.01, rate / PAIRS_PER_LOOK)))
    return {
        "output": str(output.resolve()),
        "node": node,
        "player": player,
        "pairs": prepared.pairs,
        "record": [FUSED_TOPIC, *((OVERLAY_TOPIC, OBJECTS_TOPIC) if texts else ())],
        "text_later": texts[1] if len(texts) > 1 else "",
        "profile": transport_profile(),
    }
