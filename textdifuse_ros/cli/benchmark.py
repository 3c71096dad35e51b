"""``textdifuse benchmark``: seconds per image, and the ratio to a yardstick timed in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.checks import check_number
from textdifuse_ros.cli.info import TEXT_SHARE, example_strengths, parse_size
from textdifuse_ros.cli.outputs import try_outputs
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments

if TYPE_CHECKING:
    import numpy as np

    from textdifuse_ros.fusion.fuser import Fuser

NAME = "benchmark"
HELP = "Time the fusion at 1, 2 and 4 steps and with a text, in seconds and relative to a convolution yardstick."
YARDSTICK_GFLOP = 80.0
MAX_OBJECTS = 100
TEXT_STEPS = (1, 4)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_arguments(parser, FuserConfig, skip=("steps",))
    parser.add_argument("--size", default="640x480", metavar="WxH", help="Image size. Default: 640x480.")
    parser.add_argument("--rounds", type=int, default=9, help="Timed rounds; the median is reported. Default: 9.")
    parser.add_argument("--objects", type=int, default=1, help="Objects named by the text, 1 to 100. Default: 1.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Also write the figures to FILE.")


def run(arguments: argparse.Namespace) -> int:
    """Time and print a table.

    :returns: 0
    :raises ConfigError: the size, the number of rounds or of objects is invalid
    :raises FileError: the figures cannot be written
    """
    import torch

    from textdifuse_ros.evaluate.tables import write_text
    from textdifuse_ros.fusion.fuser import Fuser

    width, height = parse_size(arguments.size)
    objects: int = arguments.objects
    check_number("--objects", objects, 1, MAX_OBJECTS, integer=True)
    check_number("--rounds", arguments.rounds, 1, None, integer=True)
    try_outputs((arguments.json,))
    fuser = Fuser.from_config(from_arguments(FuserConfig, arguments))
    strengths = example_strengths(height, width, objects)
    visible, infrared = _example_pair(strengths)
    times = _time_in_turn(_work(fuser, visible, infrared, strengths), arguments.rounds)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    shares = {
        steps: _extra_share(times[_name(steps)], times[f"{steps} with text"])
        for steps in TEXT_STEPS
        if fuser.has_modulation
    }
    parts = fuser.fuse(visible, infrared, steps=1).timings
    table = {
        "device": fuser.device,
        "precision": str(fuser.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "allocator": fuser.allocator or "as it is",
        "size": [width, height],
        "objects": objects,
        "yardstick": f"3x3 convolutions of {YARDSTICK_GFLOP:g} GFLOP in float32",
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "text": {f"{steps} steps": round(share, 3) for steps, share in shares.items()},
        "parts of one step": {name: round(value, 4) for name, value in parts.items()},
        "ratio": {name: round(value / seconds["yardstick"], 3) for name, value in seconds.items()},
    }
    for name in ("device", "precision", "threads", "allocator", "yardstick"):
        print(f"{name:10} {table[name]}")
    print(f"\n{width} x {height}      seconds  ratio to the yardstick")
    for name, value in seconds.items():
        print(f"{name:12} {value:9.4f}  {value / seconds['yardstick']:6.3f}")
    if shares:
        extra = " and ".join(f"{share:+.0%} at {_name(steps)}" for steps, share in shares.items())
        print(f"\ntext: {objects} object(s) covering {TEXT_SHARE:.0%} of the image, without localization: {extra}")
    print("\none step [ms]: " + ", ".join(f"{name} {1e3 * value:.1f}" for name, value in parts.items()))
    if arguments.json:
        write_text(arguments.json, json.dumps(table, indent=2) + "\n")
    return 0


def _example_pair(strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Create a pair of noise, with objects that are warmer than their surroundings.

    For an object without contrast the direction of the emphasis is undecided and both are computed, which is rare in
    real images.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (*strengths.shape, 3), dtype=np.uint8)
    infrared = rng.integers(0, 128, strengths.shape, dtype=np.uint8) + 127 * (strengths > 0).astype(np.uint8)
    return visible, infrared


def _work(
    fuser: Fuser, visible: np.ndarray, infrared: np.ndarray, strengths: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, by name."""
    from textdifuse_ros.fusion.emphasis import Emphasis
    from textdifuse_ros.runtime.video_state import LEAST_SIDE, VideoState

    emphasis = Emphasis(strengths)
    work: dict[str, Callable[[], Any]] = {}
    for steps in (1, 2, 4):
        work[_name(steps)] = partial(fuser.fuse, visible, infrared, steps=steps)
        if fuser.has_modulation and steps in TEXT_STEPS:  # next to the plain fusion, for their ratio
            work[f"{steps} with text"] = partial(fuser.fuse, visible, infrared, steps=steps, emphasis=emphasis)
    if min(infrared.shape) >= LEAST_SIDE:  # smaller images are not stabilized
        work["video state"] = partial(VideoState().steady, visible, infrared, fuser.fuse(visible, infrared, steps=1))
    work["yardstick"] = yardstick(fuser.device)
    return work


def yardstick(device: str) -> Callable[[], Any]:
    """Create the yardstick: 3x3 convolutions, 64 channels, channels last, float32, 80 GFLOP (a multiply-add is 2).

    :param device: PyTorch device that it runs on
    :returns: a function that runs it once
    """
    import torch

    from textdifuse_ros.networks.blocks import channels_last

    layer = channels_last(torch.nn.Conv2d(64, 64, 3, padding=1).to(device))
    image = torch.randn(1, 64, 480, 640, device=device).contiguous(memory_format=torch.channels_last)
    # 3.53 convolutions of the whole image: three whole ones, and one on a part of the rows.
    each = 2 * 9 * 64 * 64 * 480 * 640 / 1e9
    whole = int(YARDSTICK_GFLOP / each)
    rest = image[:, :, : round(480 * (YARDSTICK_GFLOP / each - whole))]

    def convolve() -> None:
        with torch.inference_mode():
            for _ in range(whole):
                layer(image)
            layer(rest)
        if image.is_cuda:
            torch.cuda.synchronize()

    return convolve


def _name(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def _extra_share(plain: list[float], other: list[float]) -> float:
    """Return the median extra time per round, as a share of the plain median."""
    extra = [after - before for before, after in zip(plain, other, strict=True)]
    return statistics.median(extra) / statistics.median(plain)


def _time_in_turn(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time each function in each round [s]; they alternate, so that a slow phase of the machine affects all of them."""
    for function in work.values():
        function()
        function()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            began = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - began)
    return times
