"""``textdifuse sync-doctor``: diagnose the stamps of the two cameras of a recording."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE

if TYPE_CHECKING:
    from textdifuse_ros.bags.reader import BagReader
    from textdifuse_ros.sync.doctor import Diagnosis, StreamReport
    from textdifuse_ros.sync.stamps import StampSeries

NAME = "sync-doctor"
HELP = "Diagnose the stamps of a recording: rates, gaps, jitter, and the offset and tolerance to pair with."
WIDTH = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="A rosbag2 folder, or an .mcap or .db3 file.")
    parser.add_argument("--visible", default="", metavar="TOPIC", help="Topic of the visible images; found by default.")
    parser.add_argument(
        "--infrared", default="", metavar="TOPIC", help="Topic of the infrared images; found by default."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON instead of text.")


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis; returns 1 if the cameras cannot be compared."""
    from textdifuse_ros.bags.cameras import find_cameras
    from textdifuse_ros.bags.reader import BagReader
    from textdifuse_ros.sync.doctor import diagnose

    with BagReader(arguments.bag) as bag:
        topics = find_cameras(bag, arguments.visible, arguments.infrared)
        series, short = read_stamps(bag, topics)
        remarks = bag.remarks()
    found = diagnose(*series)
    found.remarks.extend(remarks)
    found.remarks.extend(
        f"{count} messages of {topic} are cut short, and count as without stamp" for topic, count in short.items()
    )
    named = dict(zip(SENSORS, topics, strict=True))
    print(json.dumps({"topics": named, **found.to_mapping()}, indent=2) if arguments.json else as_text(found, named))
    return 0 if found.suggestion is not None else 1


def read_stamps(bag: BagReader, topics: tuple[str, str]) -> tuple[list[StampSeries], dict[str, int]]:
    """Read the header stamps and the log times of two topics, in the order of the recording.

    :param bag: the recording
    :param topics: the visible and the infrared topic
    :returns: the series of both, and the number of messages too short for a stamp by topic; their stamp is 0
    """
    import numpy as np

    from textdifuse_ros.bags.cameras import header_stamp
    from textdifuse_ros.errors import BagError
    from textdifuse_ros.sync.stamps import StampSeries

    found: dict[str, list[tuple[int, int]]] = {topic: [] for topic in topics}
    short: dict[str, int] = {}
    for message in bag.messages(topics):
        try:
            stamp = header_stamp(message)
        except BagError:
            stamp = 0
            short[message.topic] = short.get(message.topic, 0) + 1
        found[message.topic].append((stamp, message.stamp_ns))
    tables = [np.array(found[topic], np.int64).reshape(-1, 2) for topic in topics]
    return [StampSeries(table[:, 0], table[:, 1]) for table in tables], short


def as_text(found: Diagnosis, topics: dict[str, str]) -> str:
    """Format a diagnosis for the terminal.

    :param found: the diagnosis
    :param topics: topics by ``visible`` and ``infrared``
    """
    lines = []
    for name, report in ((VISIBLE, found.visible), (INFRARED, found.infrared)):
        lines += [f"{name:<9} {topics[name]}", *(f"          {line}" for line in _stream(report)), ""]
    if found.histogram is not None and found.difference_ms is not None:
        lines.append("infrared minus visible, nearest images")
        most = max(found.histogram.counts)
        for low, count in zip(found.histogram.edges_ms, found.histogram.counts, strict=False):
            lines.append(f"{low:10.2f} ms {count:7d} {'#' * round(WIDTH * count / most)}".rstrip())
        quantiles = found.difference_ms
        lines += [f"median {quantiles['p50']} ms, 1 % below {quantiles['p1']} ms, 1 % above {quantiles['p99']} ms", ""]
    if found.suggestion is not None:
        lines += [
            "suggested",
            f"  infrared_offset: {found.suggestion.infrared_offset:.4f}  # s",
            f"  tolerance: {found.suggestion.tolerance:.4f}  # s; {100 * found.suggestion.paired:.1f} % paired",
            "",
        ]
    return "\n".join([*lines, *(f"- {remark}" for remark in found.remarks)]).rstrip()


def _stream(report: StreamReport) -> list[str]:
    if report.rate_hz is None:
        return [f"{report.count} images, too few to estimate a rate; {report.zero} without stamp"]
    return [
        f"{report.count} images at {report.rate_hz:g} Hz: {report.period_ms:g} ms, jitter {report.jitter_ms:g} ms",
        f"gaps {report.gaps} (longest {report.longest_gap_ms:g} ms, about {report.missing} images missing)",
        f"stamps: {report.zero} zero, {report.duplicate} duplicate, {report.backward} backward",
    ]
