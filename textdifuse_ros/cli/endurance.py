"""``textdifuse endurance``: run player and node for long; check that ages, memory and counters stay within limits.

Imports no ROS: :mod:`textdifuse_ros.nodes.endurance` runs the nodes in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from textdifuse_ros import __version__
from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.cli.info import parse_size
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, to_mapping
from textdifuse_ros.demo.checks import check_ros, check_text
from textdifuse_ros.demo.launch import launch, transport_profile
from textdifuse_ros.demo.output import claim_output
from textdifuse_ros.demo.plans import EndurancePlan
from textdifuse_ros.errors import ConfigError, FileError

NAME = "endurance"
HELP = "Run player and node over DDS for minutes or hours; check image ages, memory and counters."

PAIRS = 40  # of the synthetic drive, repeated
MAX_MINUTES = 7 * 24 * 60
RESULTS = ("endurance.json", "input_bag", "logs")
"""Names of all files and folders that the verb writes."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("build/endurance"), help="Output folder."
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        type=Path,
        help="Recording, or folder with vis/ and ir/. Default: the synthetic drive.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="How long to play [min]. Default: 10.")
    parser.add_argument("--rate", type=float, default=30.0, help="Rate of the pairs to play [Hz]. Default: 30.")
    parser.add_argument(
        "--size", metavar="WxH", default="640x480", help="Size of the synthetic images. Default: 640x480."
    )
    parser.add_argument("--text", metavar="T", default="", help="Objects to emphasize. Default: none.")
    add_arguments(parser, FuserConfig)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the input, run the nodes and evaluate the report.

    :returns: 0, or 1 if the counters are inconsistent, nothing was fused or the images are too old
    :raises TextDifuseError: something is missing or wrong
    """
    from textdifuse_ros.demo.endurance import evaluate, table
    from textdifuse_ros.demo.inputs import drive_scene, render_drive
    from textdifuse_ros.networks.device import resolve_device

    config = from_arguments(FuserConfig, arguments)
    output, source = arguments.output, arguments.source
    # All checks first: a run that is refused must not remove the results of an earlier one.
    _check(arguments)
    check_text("--text", arguments.text)
    find_checkpoint(config.model)
    resolve_device(config.device)
    scene = drive_scene(parse_size(arguments.size), PAIRS)
    player = {"loop": True, "live": True} | (_player_parameters(source, arguments.rate) if source else {})
    claim_output(output, RESULTS, (source, source / "vis", source / "ir") if source else ())
    if source is None:
        prepared = render_drive(scene, output / "input_bag")
        player.update(source=str(prepared.source.resolve()), rate=arguments.rate / prepared.recorded_hz)
    plan = EndurancePlan(
        output=str(output.resolve()),
        node={**to_mapping(config), "target_text": arguments.text},
        player=player,
        profile=transport_profile(),
        seconds=60 * arguments.minutes,
    )
    report = launch("endurance", plan)
    summary = {
        "source": str(arguments.source or "synthetic night drive"),
        "rate_hz": arguments.rate,
        **evaluate(report, arguments.rate),
        "version": __version__,
    }
    (output / "endurance.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary))
    for fault in summary["faults"]:
        print(f"textdifuse: {fault}", file=sys.stderr)
    return 1 if summary["faults"] else 0


def _check(arguments: argparse.Namespace) -> None:
    check_ros("the endurance run")
    if not 0 < arguments.minutes <= MAX_MINUTES:
        raise ConfigError("minutes", f"in (0, {MAX_MINUTES}] [min]", arguments.minutes)
    if not 0.1 <= arguments.rate <= 1000:
        raise ConfigError("rate", "in [0.1, 1000] [Hz]", arguments.rate)
    if arguments.source is not None and not arguments.source.exists():
        raise FileError(f"the source {arguments.source}", "a recording, or a folder with vis/ and ir/", "nothing there")


def _player_parameters(source: Path, rate: float) -> dict[str, Any]:
    """Return the player's parameters for a given source at ``rate`` [Hz].

    :raises TextDifuseError: the player cannot play it
    """
    from textdifuse_ros.demo.inputs import recorded_hz
    from textdifuse_ros.image.files import find_pairs

    parameters: dict[str, Any] = {"source": str(source.resolve())}
    if (source / "vis").is_dir():
        find_pairs(source / "vis", source / "ir")
        return {**parameters, "fps": rate}
    return {**parameters, "rate": rate / recorded_hz(source)}
