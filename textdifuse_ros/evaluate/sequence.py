"""The panel "video": flicker and sharpness along a sequence of frames."""

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
from textdifuse_ros.evaluate.results import Evaluation, Record, summarize
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
"""Assumed frame period [ns], that of ``textdifuse drive``: a folder has no stamps."""

EACH = "_each"
"""Suffix of the model's row in which every frame is fused independently."""

NOTES = (
    "The frames are sorted by name. The motion between two frames is estimated from the source, visible or infrared, "
    "with more matched pixels; it is the same for all rows.",
    "A blurred or dull sequence flickers less: a lower flicker counts only if AG is not lower. "
    "Neighboring frames are similar, so the intervals are narrower than those over independent images.",
    "Infrared of more than 8 bits is mapped by one gain that follows the scene, as in the node, at 0.1 s per frame.",
    f"{MODEL} is stabilized as in the node and textdifuse bag; in {MODEL + EACH} every frame is fused independently.",
)


@dataclass(frozen=True)
class Transition:
    """The unit of parallel work: two consecutive frames with all rows."""

    before: Pair
    now: Pair
    rows: tuple[Row, ...]


def apply_gain(frames: PairSet, folder: Path) -> PairSet:
    """Map the infrared frames to 8 bits by one gain that follows the scene, as in the node.

    Stretching every frame independently would make the sources and every method flicker.

    :param frames: the sequence
    :param folder: receives the mapped images under their names; must exist while they are read
    :returns: the sequence with 8-bit infrared
    :raises FileError: an image is not readable
    :raises ImageError: a temperature is NaN or infinite
    """
    gain = ThermalGain(SensorConfig())
    pairs = []
    for number, pair in enumerate(frames.pairs):
        stored = read_image(pair.infrared)
        if stored.ndim == 2 and stored.dtype != np.uint8:
            mapped = folder / pair.infrared.name  # always a PNG: readers detect the format by content
            write_png(mapped, gain.apply(stored, number * FRAME_NS, str(pair.infrared)))
            pair = replace(pair, infrared=mapped)
        pairs.append(pair)
    return replace(frames, pairs=tuple(pairs))


def run_video(
    plan: PanelPlan, fuser: Fuser | None, workers: int, progress: Callable[[], object] = lambda: None
) -> Evaluation:
    """Measure the sequence of every row.

    :param plan: pairs with 8-bit infrared, see :func:`apply_gain`
    :param fuser: the model, for ``plan.model_rows``, in the order of the frames; in the row ending in ``_each`` every
        frame is fused independently, in the other one as a stream
    :param workers: number of processes for the metrics
    :param progress: called once per frame after the first
    :raises FileError: there are fewer than two frames, or a result is missing
    :raises ImageError: a frame has another size than its pair or than the previous frame
    """
    frames = plan.pairs.pairs
    if len(frames) < 2:
        raise FileError(f"the sequence {plan.pairs.name}", "of at least two frames", len(frames))
    for row in plan.rows:
        if row.folder is not None and row not in plan.model_rows:
            check_results(row, frames, plan.layout)
    records = gather(measure_transition, _transitions(plan, fuser), workers, progress)
    return Evaluation(
        "video", plan.pairs.name, len(frames), plan.rows, records, summarize(records, plan.rows), notes=NOTES
    )


def measure_transition(job: Transition) -> tuple[str, list[Record]]:
    """Measure the flicker between two frames, and the average gradient of the second.

    :param job: frames whose fused images exist
    :returns: the stem of the second frame, and one record per row
    :raises ImageError: the frames differ in size
    """
    images = [read_pair(pair) for pair in (job.before, job.now)]
    check_size(job.now.visible, images[1][0], images[0][0])
    motion = _motion(*images)
    inputs = [InputPair(pair.stem, "", *sources) for pair, sources in zip((job.before, job.now), images, strict=True)]
    records = []
    for row in job.rows:
        before, now = (to_grey(frame.fused_image(row)) for frame in inputs)
        values = {"AG": average_gradient(now), "flicker": flicker(before, now, motion)}
        records.append(Record("", row.name, job.now.stem, values))
    return job.now.stem, records


def _motion(before: tuple, now: tuple) -> Motion:
    """Return the motion estimated from the source with more matched pixels."""
    motions = [find_motion(to_grey(a), to_grey(b)) for a, b in zip(before, now, strict=True)]
    return max(motions, key=lambda motion: int(motion.known.sum()))


def _transitions(plan: PanelPlan, fuser: Fuser | None) -> Iterator[Transition]:
    """Fuse each frame by the model, then yield the transition to it."""
    before: Pair | None = None
    video = VideoState()
    for pair in plan.pairs.pairs:
        if plan.model_rows:
            assert fuser is not None
            sources = read_pair(pair)
            independent = fuser.fuse(*sources)
            stabilized = video.steady(*sources, independent)
            for row in plan.model_rows:
                save_fused(row, pair, independent if row.name.endswith(EACH) else stabilized)
        if before is not None:
            yield Transition(before, pair, plan.rows)
        before = pair
