"""``textdifuse info``: describe a model and its cost."""

from __future__ import annotations

import argparse
import json
import math
import re
from typing import Any

from textdifuse_ros.checkpoint import AVERAGE
from textdifuse_ros.errors import ConfigError

NAME = "info"
HELP = "Show size, cost by number of steps, configuration and provenance of a model."
STEPS = (1, 2, 4)
REFERENCE_STEPS = 25
"""The steps of the authors' program, for the family ``reference``."""
TEXT_SHARE = 0.1
"""Share of the image covered by the objects, for which the cost of a text is reported."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--model", default="drive", help="Name in the model folders, or a path. Default: drive.")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="Image size. Default: 640x480.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")


def run(arguments: argparse.Namespace) -> int:
    """Print the description.

    :returns: 0
    :raises TextDifuseError: the size is invalid, or the checkpoint is missing or damaged
    """
    width, height = parse_size(arguments.size)

    from textdifuse_ros.checkpoint import find_checkpoint
    from textdifuse_ros.fusion.cost import count_flops, count_parameters, image_gflops
    from textdifuse_ros.fusion.weights import REFERENCE, load_family

    path = find_checkpoint(arguments.model)
    networks, checkpoint = load_family(path)
    parameters = count_parameters(networks)
    counts = count_flops(networks, height, width)
    numbers = (*STEPS, REFERENCE_STEPS) if checkpoint.config["family"] == REFERENCE else STEPS
    steps = {str(n): {k: round(v, 2) for k, v in image_gflops(counts, n).items()} for n in numbers}
    description = {
        "model": arguments.model,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": checkpoint.sha256,
        "parameters": parameters,
        "size": [width, height],
        "gflops": steps,
        "text_gflops": _text_gflops(counts, height, width) if networks.modulation is not None else {},
        "config": checkpoint.config,
        "provenance": checkpoint.provenance,
    }
    print(json.dumps(description, indent=2) if arguments.json else _table(description))
    return 0


def _text_gflops(counts: dict[str, float], height: int, width: int) -> dict[str, float]:
    """Return the extra cost of a text by number of steps, for the object of :func:`example_strengths`."""
    from textdifuse_ros.fusion.cost import emphasis_gflops

    strengths = example_strengths(height, width)
    return {str(n): round(emphasis_gflops(counts, strengths, n), 2) for n in STEPS}


def example_strengths(height: int, width: int, objects: int = 1) -> Any:
    """Create strengths for objects that together cover ``TEXT_SHARE`` of the image and are spread over it.

    A single object has the aspect ratio of the image; several have different ones.

    :param height: height of the image [pixels]
    :param width: width of the image [pixels]
    :param objects: number of objects
    :returns: float32 [H, W], 1 inside the objects and 0 outside
    """
    import numpy as np

    strengths = np.zeros((height, width), np.float32)
    across = math.ceil(objects**0.5)
    share = (TEXT_SHARE / objects) ** 0.5
    for n in range(objects):
        shape = (1.0, 2.0, 0.5)[n % 3] ** 0.5
        rows, columns = max(1, round(height * share * shape)), max(1, round(width * share / shape))
        center = ((n // across + 0.5) * height / across, (n % across + 0.5) * width / across)
        top, left = int(center[0] - rows / 2), int(center[1] - columns / 2)
        strengths[top : top + rows, left : left + columns] = 1
    return strengths


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size to (width, height) [pixels].

    :param text: for example ``640x480``
    :raises ConfigError: another form, a side below 8 pixels, or a side of more than five digits
    """
    found = re.fullmatch("([0-9]{1,5})x([0-9]{1,5})", text)
    if found is None or min(map(int, found.groups())) < 8:
        raise ConfigError("size", "WIDTHxHEIGHT in pixels, each at least 8 and at most five digits", repr(text))
    return int(found[1]), int(found[2])


def _levels(config: dict) -> str:
    if "widths" in config:
        return str(config["widths"])
    return f"luma {config['luma_widths']}, chroma {config['chroma_widths']}"


def _table(description: dict) -> str:
    parameters, (width, height) = description["parameters"], description["size"]
    config = description["config"]
    text = f", text {parameters['modulation'] / 1e6:.2f} M" if parameters["modulation"] else ""
    lines = [
        f"model       {description['model']} ({description['config']['family']}), {description['file']}",
        f"sha256      {description['sha256']}",
        f"parameters  {parameters['total'] / 1e6:.2f} M: luma {parameters['luma'] / 1e6:.2f} M, "
        f"chroma {parameters['chroma'] / 1e6:.2f} M{text}",
        f"levels      {_levels(config)} channels",
        "",
        f"GFLOP for {width} x {height}",
        "steps    luma  chroma   total",
    ]
    for steps, cost in description["gflops"].items():
        lines.append(f"{steps:>5}  {cost['luma']:6.1f}  {cost['chroma']:6.1f}  {cost['total']:6.1f}")
    if description["text_gflops"]:
        added = ", ".join(f"{cost:.1f}" for cost in description["text_gflops"].values())
        lines.append(f"a text with one object covering {TEXT_SHARE:.0%} of the image adds {added}")
    provenance = description["provenance"]
    if "program" in provenance:
        files = ", ".join(f"{one['file']} ({one['sha256'][:12]})" for one in provenance["files"].values())
        return "\n".join([*lines, "", f"converted from {files} of {provenance['program']}"])
    lines += ["", "trained"]
    for stage in provenance.get("history", []):
        if stage["stage"] == AVERAGE:
            parts = (f"{share:g} of {digest[:12]}" for share, digest in zip(stage["shares"], stage["of"], strict=True))
            lines.append(f"  {AVERAGE}: {', '.join(parts)}")
        else:
            lines.append(f"  {stage['stage']}: {stage['done']} of {stage['steps']} steps, seed {stage['seed']}")
    return "\n".join(lines)
