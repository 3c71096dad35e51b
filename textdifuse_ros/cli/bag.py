"""``textdifuse bag IN OUT``: fuse whole recordings without ROS and without dropping pairs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.checks import check_number
from textdifuse_ros.cli.outputs import warn
from textdifuse_ros.config.base import FuserConfig, VideoConfig, add_arguments, from_arguments, parameters, to_mapping
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.config.sensors import NAMES
from textdifuse_ros.errors import ConfigError, TextDifuseError

if TYPE_CHECKING:
    from textdifuse_ros.offline.plan import RecordingJob
    from textdifuse_ros.offline.recording import RecordingProgress

NAME = "bag"
HELP = "Fuse whole recordings (rosbag2: mcap, sqlite3) without ROS: every pair, resumable, several at once."

_TRANSPORTS = ("visible_transport", "infrared_transport")  # derived from the type of the topic
_PAIRING = ("tolerance", "infrared_offset", "visible_offset")
_FUSION = (item.name for kind in (FuserConfig, VideoConfig) for item in parameters(kind))
_TAKEN = {*_FUSION, *NAMES, *_PAIRING} - set(_TRANSPORTS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("inputs", metavar="IN", type=Path, nargs="+", help="A rosbag2 folder, or an .mcap or .db3 file.")
    add(
        "output",
        metavar="OUT",
        type=Path,
        help="Output recording; with several inputs, the folder for OUT/NAME of each. An interrupted run leaves "
        "OUT.partial, from which the same command resumes.",
    )
    add("--visible", default="", metavar="TOPIC", help="Topic of the visible images; detected by default.")
    add("--infrared", default="", metavar="TOPIC", help="Topic of the infrared images; detected by default.")
    add("--copy-topics", action="store_true", help="Also copy all topics of the input.")
    add("--confidence", action="store_true", help="Also write /NAME/confidence: expected error of each pixel (32FC1).")
    add("--storage", choices=("mcap", "sqlite3"), default="mcap", help="Storage format. Default: mcap.")
    add("--name", default="fusion_node", help="The topics are /NAME/fused and so on. Default: fusion_node.")
    add("--restart", action="store_true", help="Discard the unfinished work of a different command.")
    add(
        "--params-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="Parameters of the node --name, as ROS reads them; flags override them. Repeatable: later files override "
        "earlier ones.",
    )
    add("--text", default="", metavar="T", help="Objects to emphasize, as in 'person, car:0.5'. Default: none.")
    add("--strength", type=float, default=1.0, metavar="S", help="Strength of the emphasis, in [-1, 2]. Default: 1.")
    add("--workers", type=int, default=1, metavar="N", help="Recordings fused at the same time, with Ray. Default: 1.")
    add("--ray-address", default="", metavar="ADDRESS", help="Ray cluster. Default: this machine alone.")
    skipped = tuple(item.name for item in parameters(FusionNodeConfig) if item.name not in _TAKEN)
    add_arguments(parser, FusionNodeConfig, skip=skipped)
    add_arguments(parser, LocalizerConfig)


def run(arguments: argparse.Namespace) -> int:
    """Fuse all recordings.

    :returns: 0, or 1 where a pair or one of several recordings failed
    :raises TextDifuseError: the only recording, or all of them, could not be fused
    """
    check_number("--workers", arguments.workers, 1, 1024, integer=True)
    jobs = _jobs(arguments)

    from tqdm import tqdm

    from textdifuse_ros.bags.cameras import topics_line
    from textdifuse_ros.offline.cluster import fuse_recordings
    from textdifuse_ros.offline.interrupts import termination_as_exit
    from textdifuse_ros.offline.recording import RecordingProgress

    summaries: dict[int, dict[str, Any]] = {}
    errors: dict[int, TextDifuseError] = {}
    done, totals = [0] * len(jobs), [0] * len(jobs)
    with (
        termination_as_exit(),
        closing(fuse_recordings(jobs, arguments.workers, arguments.ray_address)) as work,
        tqdm(total=0, desc="fusing", unit="pair", file=sys.stderr, delay=1e-3) as bar,  # nothing for a refusal
    ):
        for number, news in work:
            if not isinstance(news, RecordingProgress):
                errors[number] = news
                continue
            if not totals[number]:
                tqdm.write(f"{jobs[number].source.name}: {topics_line(news.topics)}")
                if news.seconds_per_pair is not None:
                    tqdm.write(f"{jobs[number].source.name}: {_cost(jobs[number], news)}", file=sys.stderr)
            if not done[number] and not totals[number]:
                bar.initial += news.done  # from an earlier run
            done[number], totals[number] = news.done, news.total
            bar.total = sum(totals)
            bar.update(sum(done) - bar.n)
            if news.summary is not None:
                summaries[number] = news.summary
    if len(errors) == len(jobs):
        raise errors[0]
    for number, job in enumerate(jobs):
        if number in errors:
            print(f"textdifuse: {job.source}: {errors[number]}", file=sys.stderr)
        else:
            _tell(job, summaries[number])
    return 1 if errors or any(summary["failed"] for summary in summaries.values()) else 0


def _jobs(arguments: argparse.Namespace) -> list[RecordingJob]:
    """Create one job per input.

    :raises ConfigError: invalid parameter, or two inputs of the same name
    """
    from textdifuse_ros.checkpoint import SUFFIX
    from textdifuse_ros.offline.plan import RecordingJob

    given = {name: value for name, value in vars(arguments).items() if name in _TAKEN}
    if arguments.params_file:
        node = f"/{arguments.name.strip('/')}"
        before = to_mapping(load_config(FusionNodeConfig, *arguments.params_file, node=node, warn=warn))
        given = {**{name: value for name, value in before.items() if name in _TAKEN}, **given}
    config = from_arguments(FusionNodeConfig, argparse.Namespace(**given))
    if config.model.endswith(SUFFIX):  # workers may have another working directory
        config = dataclasses.replace(config, model=str(Path(config.model).resolve()))
    sources = [source.resolve() for source in arguments.inputs]
    output = arguments.output.resolve()
    outputs = [output]
    if len(sources) > 1:
        names = [source.stem if source.is_file() else source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError("the inputs", "of different names", ", ".join(twice), "rename one, or fuse each alone")
        outputs = [output / name for name in names]
    fixed = {
        "config": config,
        "visible": arguments.visible,
        "infrared": arguments.infrared,
        "name": arguments.name,
        "storage": arguments.storage,
        "copy_topics": arguments.copy_topics,
        "confidence": arguments.confidence,
        "text": arguments.text,
        "strength": arguments.strength,
        "localizer": from_arguments(LocalizerConfig, arguments),
        "restart": arguments.restart,
    }
    return [RecordingJob(source, target, **fixed) for source, target in zip(sources, outputs, strict=True)]


def _cost(job: RecordingJob, news: RecordingProgress) -> str:
    """What a pair costs on this machine, and all that are left."""
    assert news.seconds_per_pair is not None
    left = news.total - news.done
    total = timedelta(seconds=max(1, round(left * news.seconds_per_pair)))
    apart = "; finding the objects of the text comes on top" if job.text else ""
    return f"one pair takes {1e3 * news.seconds_per_pair:.0f} ms here: about {total} for {left} pairs{apart}"


def _tell(job: RecordingJob, summary: dict[str, Any]) -> None:
    """Print one line about the fused pairs, and one for each reason of the others."""
    from textdifuse_ros.image.intake import no_value_text

    print(f"fused {summary['fused']} of {summary['pairs']} pairs of {job.source.name} into {job.output}")
    for remark in summary.get("remarks", ()):
        print(f"textdifuse: {job.source.name}: {remark}", file=sys.stderr)
    if found := summary["infrared"].get("no_value"):
        images = f"{found['images']} of {summary['fused']} infrared images"
        text = f"{images}: up to {no_value_text(found['percent'] / 100)}"
        print(f"textdifuse: {job.source.name}: warning: {text}", file=sys.stderr)
    for reason, what in summary["failed"].items():
        print(f"textdifuse: {job.source.name}: {what['count']} {reason}: {what['first']}", file=sys.stderr)
    for stream in ("visible", "infrared"):
        for reason, count in summary[stream]["dropped"].items():
            print(f"  {count} of {summary[stream]['received']} {stream} images without a counterpart: {reason}")
