"""The panel "video": flicker beside sharpness along a sequence of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.methods import MODEL, InputPair, Row, check_results, save_fused
from textdifuse_ros.evaluate.panels import PanelPlan, gather
from textdifuse_ros.evaluate.results import Evaluation, Record, summarise
from textdifuse_ros.evaluate.sets import PairSet, check_size, read_pair
from textdifuse_ros.image.files import Pair, read_image, write_png
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.metrics.detail import average_gradient
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.regions import Motion, find_motion, flicker
from textdifuse_ros.runtime.video_state import VideoState

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

FRAME_NS = 100_000_000
"""From one frame to the next [ns], for a folder does not tell: that of ``textdifuse drive``."""

EACH = "_each"
"""Ends the name of the model's row in which each frame is fused for itself."""

NOTES = (
    "The frames are taken in the order of their names. The motion between two frames is that of the source, visible or "
    "infrared, in which more of it can be told; it is the same for all rows.",
    "A blurred or dull sequence flickers less: a lower flicker counts only beside an AG that is not lower. "
    "Neighboring frames are alike, so the intervals are narrower than those over independent images.",
    "Infrared of more than 8 bits is mapped by one gain that follows the scene, as the node does it, the frames "
    "being 0.1 s apart.",
    f"{MODEL} is steadied as the node and textdifuse bag do it; in {MODEL + EACH} each frame is fused for itself.",
)


@dataclass(frozen=True)
class Transition:
    """Two frames that follow one another, and all rows."""

    before: Pair
    now: Pair
    rows: tuple[Row, ...]


def with_gain(frames: PairSet, folder: Path) -> PairSet:
    """The sequence with its infrared in 8 bits, mapped frame after frame by one gain as the node's.

    Each frame stretched for itself would flicker by that alone, the sources as well as every method.

    :param folder: gets the images that had to be mapped, under their names; it must be there as long as they are read
    :raises FileError: an image is not readable
    :raises ImageError: temperatures that are NaN or infinite
    """
    gain = ThermalGain(SensorConfig())
    pairs = []
    for number, pair in enumerate(frames.pairs):
        stored = read_image(pair.infrared)
        if stored.ndim == 2 and stored.dtype != np.uint8:
            mapped = folder / pair.infrared.name  # a PNG whatever the suffix: readers go by the content
            write_png(mapped, gain.apply(stored, number * FRAME_NS, str(pair.infrared)))
            pair = replace(pair, infrared=mapped)
        pairs.append(pair)
    return replace(frames, pairs=tuple(pairs))


def run_video(
    plan: PanelPlan, fuser: Fuser | None, workers: int, progress: Callable[[], object] = lambda: None
) -> Evaluation:
    """Measure every row's sequence.

    :param plan: with infrared of 8 bits, see :func:`with_gain`
    :param fuser: fuses the rows that the plan gives to the model, in the order of the frames: that ending in ``_each``
        gets each frame as it is fused for itself, the other one as a stream gives it
    :param workers: processes for the metrics
    :param progress: called once for each frame after the first
    :raises FileError: fewer than two frames, or a result is missing
    :raises ImageError: a frame of another size than its pair or than the frame before
    """
    frames = plan.pairs.pairs
    if len(frames) < 2:
        raise FileError(f"the sequence {plan.pairs.name}", "of at least two frames", len(frames))
    for row in plan.rows:
        if row.folder is not None and row not in plan.modeled:
            check_results(row, frames, plan.layout)
    records = gather(measure_transition, _transitions(plan, fuser), workers, progress)
    return Evaluation(
        "video", plan.pairs.name, len(frames), plan.rows, records, summarise(records, plan.rows), notes=NOTES
    )


def measure_transition(job: Transition) -> tuple[str, list[Record]]:
    """Flicker between two frames, and the gradient of the second.

    :returns: the second frame's stem, and a record for each row
    """
    images = [read_pair(pair) for pair in (job.before, job.now)]
    check_size(job.now.visible, images[1][0], images[0][0])
    motion = _motion(*images)
    inputs = [InputPair(pair.stem, "", *sources) for pair, sources in zip((job.before, job.now), images, strict=True)]
    records = []
    for row in job.rows:
        before, now = (to_grey(frame.fused(row)) for frame in inputs)
        values = {"AG": average_gradient(now), "flicker": flicker(before, now, motion)}
        records.append(Record("", row.name, job.now.stem, values))
    return job.now.stem, records


def _motion(before: tuple, now: tuple) -> Motion:
    """The motion of the source in which more pixels are found again."""
    motions = [find_motion(to_grey(a), to_grey(b)) for a, b in zip(before, now, strict=True)]
    return max(motions, key=lambda motion: int(motion.known.sum()))


def _transitions(plan: PanelPlan, fuser: Fuser | None) -> Iterator[Transition]:
    before: Pair | None = None
    video = VideoState()
    for pair in plan.pairs.pairs:
        if plan.modeled:
            assert fuser is not None
            sources = read_pair(pair)
            alone = fuser.fuse(*sources)
            steady = video.steady(*sources, alone)
            for row in plan.modeled:
                save_fused(row, pair, alone if row.name.endswith(EACH) else steady)
        if before is not None:
            yield Transition(before, pair, plan.rows)
        before = pair
