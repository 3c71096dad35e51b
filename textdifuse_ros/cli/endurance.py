"""``textdifuse endurance``: run player and node for long; check that ages, memory and counters stay in limits.

Has :mod:`textdifuse_ros.nodes.endurance` run the processes, and judges what it measured. Like the demo it imports no
ROS.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textdifuse_ros import __version__
from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.cli.live_run import (
    check_ros,
    check_text,
    claim_output,
    drive_scene,
    render_drive,
    supervise,
    transport_profile,
)
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, to_mapping
from textdifuse_ros.errors import ConfigError, FileError

NAME = "endurance"
HELP = "Run player and node over DDS for minutes or hours; watch ages, memory and counters."

PAIRS = 40  # of the synthetic drive, in laps
MOST_MINUTES = 7 * 24 * 60
LEFT_OUT = 60.0  # [s] at the start, in which caches fill
LEAST_SAMPLES = 3
MADE = ("endurance.json", "input_bag", "logs")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("build/endurance"), help="Folder for what it leaves."
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        type=Path,
        help="Recording, or folder with vis/ and ir/. Default: the synthetic drive.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="How long to play [min]. Default: 10.")
    parser.add_argument("--rate", type=float, default=30.0, help="Pairs a second to play [Hz]. Default: 30.")
    parser.add_argument(
        "--size", metavar="WxH", default="640x480", help="Size of the synthetic images. Default: 640x480."
    )
    parser.add_argument("--text", metavar="T", default="", help="What stands out. Default: nothing.")
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Prepare, run, judge.

    :returns: 0, or 1 where the counters do not balance, nothing was fused or the images are too old
    :raises TextDifuseError: something is missing or wrong
    """
    from textdifuse_ros.networks.device import resolve_device

    config = from_arguments(FuserConfig, arguments)
    output, source = arguments.output, arguments.source
    # Everything that can be wrong first: a run that is refused must not have removed the results of the one before.
    _check(arguments)
    check_text("--text", arguments.text)
    find_checkpoint(config.model)
    resolve_device(config.device)
    scene = drive_scene(arguments.size, PAIRS)
    player = {"loop": True, "live": True} | (_played(source, arguments.rate) if source else {})
    claim_output(output, MADE, (source, source / "vis", source / "ir") if source else ())
    if source is None:
        prepared = render_drive(scene, output / "input_bag")
        player.update(source=str(prepared.source.resolve()), rate=arguments.rate / prepared.recorded_hz)
    plan = {
        "output": str(output.resolve()),
        "node": {**to_mapping(config), "target_text": arguments.text},
        "player": player,
        "seconds": 60 * arguments.minutes,
        "profile": transport_profile(),
    }
    report = supervise("endurance", plan)
    summary = {
        "source": str(arguments.source or "synthetic night drive"),
        "rate_hz": arguments.rate,
        **judged(report, arguments.rate),
        "version": __version__,
    }
    (output / "endurance.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary))
    for fault in summary["faults"]:
        print(f"textdifuse: {fault}", file=sys.stderr)
    return 1 if summary["faults"] else 0


def _check(arguments: argparse.Namespace) -> None:
    check_ros("the endurance run")
    if not 0 < arguments.minutes <= MOST_MINUTES:
        raise ConfigError("minutes", f"in (0, {MOST_MINUTES}] [min]", arguments.minutes)
    if not 0.1 <= arguments.rate <= 1000:
        raise ConfigError("rate", "in [0.1, 1000] [Hz]", arguments.rate)
    if arguments.source is not None and not arguments.source.exists():
        raise FileError(f"the source {arguments.source}", "a recording, or a folder with vis/ and ir/", "nothing there")


def _played(source: Path, rate: float) -> dict[str, Any]:
    """Parameters of the player for a source of one's own.

    :param rate: pairs a second [Hz]
    :raises TextDifuseError: the player could not play it
    """
    from textdifuse_ros.image.files import find_pairs

    found = {"source": str(source.resolve())}
    if (source / "vis").is_dir():
        find_pairs(source / "vis", source / "ir")
        return {**found, "fps": rate}
    return {**found, "rate": rate / recorded_hz(source)}


def recorded_hz(source: Path) -> float:
    """Images a second of the camera of a recording that sends most [Hz].

    :raises BagError: no recording, no two cameras with raw images in it, or fewer than two images
    """
    from textdifuse_ros.bags.cameras import COMPRESSED_TYPE, find_cameras
    from textdifuse_ros.bags.reader import BagReader
    from textdifuse_ros.errors import BagError

    with BagReader(source) as bag:
        cameras = find_cameras(bag, remedy="leave one {camera} camera in it")  # as the player will choose them
        kinds, counts = bag.topics(), bag.counts()
        images = max(counts[topic] for topic in cameras)
        if images < 2 or bag.duration_ns <= 0:
            raise BagError(str(source), "a recording of at least two images of a camera", f"{images}")
        if coded := [topic for topic in cameras if kinds[topic] == COMPRESSED_TYPE]:
            raise BagError(str(source), "a recording of raw images", f"compressed ones on {coded[0]}")
        return (images - 1) / (bag.duration_ns / 1e9)


def judged(report: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """What was measured, in a few numbers, and under ``faults`` what is not as it must be, a line each.

    An image may be as old as one period and one inference: it waits at most until the next pair takes its place, and
    is then worked on. An inference is what the node needs for one pair under this very load, from taking it up to
    publishing it; that of the slowest hundredth is what the slowest hundredth of the ages is held against.

    :param report: as :func:`textdifuse_ros.nodes.endurance.run` returns it
    :param rate: pairs a second that were asked for [Hz]
    """
    node, player = report["node"], report["player"]
    ages, works = _spread(report["ages_ms"]), _spread(report["works_ms"])
    period = 1e3 / rate
    pairs_in = player["published"]["/visible/image"]
    dropped = {"transport": pairs_in - node["received"], **node["dropped"]}
    faults = []
    out = node["fused"] + node["restored"] + sum(dropped.values())
    if pairs_in != out or node["waiting"] or dropped["transport"] < 0:
        faults.append(
            f"the pairs must add up: {pairs_in} in, {node['fused']} fused, {node['waiting']} waiting, dropped {dropped}"
        )
    if report["heard"] != node["fused"]:
        faults.append(f"each fused image ({node['fused']}) must be heard of, got {report['heard']}")
    bound, within, within_own = None, None, None
    if ages["p99"] is None or works["p99"] is None:
        faults.append("at least one pair must be fused, got none; the logs tell why")
    else:
        bound = round(works["p99"] + period, 3)
        within = _share(age <= bound for age in report["ages_ms"])
        pairs = zip(report["ages_ms"], report["works_ms"], strict=True)
        within_own = _share(age <= work + period for age, work in pairs)
        if ages["p99"] > bound:
            faults.append(
                f"the age must be at most one inference and one period ({bound:.1f} ms) for 99 % of the images, got "
                f"{ages['p99']:.1f} ms"
            )
    return {
        "seconds": report["seconds"],
        "interrupted": report["interrupted"],
        "played_hz": round(pairs_in / player["seconds"], 3),
        "pairs_in": pairs_in,
        "fused": node["fused"],
        "dropped": dropped,
        "age_ms": ages,
        "inference_ms": works,
        "period_ms": round(period, 3),
        "bound_ms": bound,
        "share_within_bound": within,
        "share_within_own_inference_and_period": within_own,
        "delivered": report["images"],
        "memory": memory_slope(report["memory"]),
        **{name: node[name] for name in ("device", "steps", "sampler", "seed", "model", "weights")},
        "faults": faults,
    }


def memory_slope(samples: Sequence[Sequence[float]]) -> dict[str, float | int | None]:
    """First and last resident memory [MB], and its slope by least squares [MB/h] without the first minute.

    :param samples: seconds since the start, and MB
    :returns: ``mb_per_hour`` is None where less than three samples are later than that
    """
    import numpy as np

    late = np.array([sample for sample in samples if sample[0] >= LEFT_OUT], np.float64).reshape(-1, 2)
    slope = None
    if len(late) >= LEAST_SAMPLES:
        slope = round(3600 * float(np.polyfit(late[:, 0] - late[0, 0], late[:, 1], 1)[0]), 2)
    values = [sample[1] for sample in samples]
    return {
        "samples": len(values),
        "first_mb": values[0] if values else None,
        "last_mb": values[-1] if values else None,
        "most_mb": max(values, default=None),
        "mb_per_hour": slope,
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    import numpy as np

    if not values:
        return {"median": None, "p99": None, "max": None}
    median, p99, most = np.percentile(values, (50, 99, 100))
    return {"median": round(float(median), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


def _share(each: Any) -> float:
    found = list(each)
    return round(sum(found) / len(found), 5)


def table(summary: Mapping[str, Any]) -> str:
    """The result for people."""
    lost = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items() if count)
    memory = summary["memory"]
    slope = "no slope in so short a run" if memory["mb_per_hour"] is None else f"{memory['mb_per_hour']:+.2f} MB/h"
    cut = ", interrupted" if summary["interrupted"] else ""
    lines = [
        ("ran", f"{summary['seconds']:.0f} s{cut}; {summary['source']} at {summary['played_hz']:.2f} Hz"),
        ("pairs in", f"{summary['pairs_in']}"),
        ("fused", f"{summary['fused']}, {summary['steps']} steps on {summary['device']}, model {summary['model']}"),
        ("dropped", f"{sum(summary['dropped'].values())}" + (f" ({lost})" if lost else "")),
        ("age", _three(summary["age_ms"])),
        ("inference", _three(summary["inference_ms"])),
        ("period", f"{summary['period_ms']:.1f} ms"),
    ]
    if summary["bound_ms"] is not None:
        within, own = summary["share_within_bound"], summary["share_within_own_inference_and_period"]
        lines += [
            ("bound", f"{summary['bound_ms']:.1f} ms, inference p99 + period; {within:.2%} are within"),
            ("", f"{own:.2%} are within their own inference + period, which leaves no time for delivery"),
        ]
    lines += [
        ("memory", f"{memory['first_mb']} to {memory['last_mb']} MB, at most {memory['most_mb']}; {slope}"),
        ("verdict", "; ".join(summary["faults"]) or "counters are consistent, ages within the bound"),
    ]
    return "\n".join(f"{name:>9}  {text}" for name, text in lines)


def _three(spread: Mapping[str, float | None]) -> str:
    if spread["median"] is None:
        return "none"
    return f"{spread['median']:.1f} ms median, {spread['p99']:.1f} ms p99, {spread['max']:.1f} ms max"
