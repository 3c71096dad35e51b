"""The panel "steps": what more reverse steps and other samplers give when one source is restored.

The source that a condition degrades is restored alone (equation 1), several times with different seeds, and compared
with the clean image. A draw from a posterior has twice the squared error of the posterior's mean, 3 dB, so draws and
their mean are measured apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textdifuse_ros.checks import check_number
from textdifuse_ros.config.base import FuserConfig, parameters
from textdifuse_ros.data.conditions import CONDITIONS
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.evaluate.images import Cell, Example, zoom_window
from textdifuse_ros.evaluate.methods import CLEAN, InputPair, Row
from textdifuse_ros.evaluate.results import EQUAL_PSNR, Differences, Evaluation, Record, differences, summarize
from textdifuse_ros.evaluate.sets import PairSet, read_pair
from textdifuse_ros.image.files import Pair
from textdifuse_ros.metrics.draws import gradient_energy, rank_correlation
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.similarity import psnr, ssim_from_moments, ssim_moments, well_exposed

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

CONDITIONS_MEASURED = ("gaussian_noise", "low_light_noise", "low_light_strong", "blur", "haze")
"""The default conditions."""
UNTOUCHED = "untouched"
"""The row of the degraded image itself."""
FEWEST = "fewest_steps"
"""Name of the row of the same sampler with the fewest steps, in the differences."""
LEAST_CROP = 32


@dataclass(frozen=True)
class Sampling:
    """How often and how an image is restored.

    :ivar counts: numbers of reverse steps
    :ivar samplers: names of the samplers
    :ivar seeds: number of draws of each; their seeds are consecutive, from the fuser's on
    :ivar crop: side of the square in the middle of the image that is restored [pixels]; 0 for the whole image
    """

    counts: tuple[int, ...] = (1, 2, 4, 8, 25, 50)
    samplers: tuple[str, ...] = ("ddim", "dpm_solver", "ancestral")
    seeds: int = 16
    crop: int = 256

    def check(self) -> None:
        """Check all values.

        :raises ConfigError: names the option
        """
        known = {item.name: item for item in parameters(FuserConfig)}
        for option, values in (("--step-counts", self.counts), ("--samplers", self.samplers)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(option, "different values, at least one", ",".join(map(str, values)) or "none")
        for count in self.counts:
            check_number("--step-counts", count, known["steps"].low, known["steps"].high, "steps", integer=True)
        for sampler in self.samplers:
            if sampler not in known["sampler"].choices:
                raise ConfigError("--samplers", f"of {', '.join(known['sampler'].choices)}", repr(sampler))
        check_number("--seeds", self.seeds, 2, 1024, integer=True)
        if self.crop:
            check_number("--crop", self.crop, LEAST_CROP, None, "pixels", integer=True)

    @property
    def rows(self) -> dict[Row, tuple[str, int]]:
        """Sampler and number of steps by row."""
        return {Row(f"{sampler} {count}"): (sampler, count) for sampler in self.samplers for count in self.counts}


def run_steps(
    pairs: PairSet,
    conditions: Sequence[str],
    sampling: Sampling,
    fuser: Fuser,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Restore every pair under every condition by every sampler and number of steps.

    :param pairs: clean pairs
    :param conditions: names of degradations, or ``clean``; () for :data:`CONDITIONS_MEASURED`
    :param sampling: how to restore
    :param fuser: the model
    :param progress: called once per pair and condition
    :raises FileError: an image is not readable
    """
    conditions = tuple(conditions) or CONDITIONS_MEASURED
    rows = (Row(UNTOUCHED, baseline=True), *sampling.rows)
    records = []
    for pair in pairs.pairs:
        for condition in conditions:
            records += measure_condition(pair, condition, sampling, fuser)
            progress()
    by_condition = {
        name: summarize([record for record in records if record.condition == name], rows) for name in conditions
    }
    averaged = tuple(name for name in conditions if name != CLEAN) or conditions
    in_mean = [record for record in records if record.condition in averaged]
    return Evaluation(
        "steps",
        pairs.name,
        len(pairs.pairs),
        rows,
        tuple(records),
        summarize(in_mean, rows),
        by_condition,
        about={"seeds": f"{sampling.seeds}", "crop": f"{sampling.crop} pixels" if sampling.crop else "none"},
        notes=(
            "Each condition's own source is restored alone and compared with the clean one, in grey. PSNR_draw, "
            "SSIM_draw, gradient_energy and brightness are means over the seeds.",
        ),
        paired=_differences(in_mean, sampling),
        averaged=averaged,
    )


def measure_condition(pair: Pair, condition: str, sampling: Sampling, fuser: Fuser) -> list[Record]:
    """Restore one image under one condition and compare it with the clean one.

    :param pair: the files
    :param condition: name of the degradation
    :param sampling: how to restore
    :param fuser: the model
    :returns: one record per row
    """
    clean, degraded = degraded_source(pair, condition, sampling.crop)
    true = to_grey(clean)
    untouched = draw_metrics(to_grey(degraded)[None], true)
    records = [Record(condition, UNTOUCHED, pair.stem, untouched)]
    fewest: dict[str, np.ndarray] = {}
    for row, (sampler, count) in sorted(sampling.rows.items(), key=lambda item: item[1][1]):
        draws = np.stack([to_grey(image) for image in restored(fuser, degraded, sampler, count, sampling.seeds)])
        values = draw_metrics(draws, true)
        mean = fewest.setdefault(sampler, draws.mean(0))
        if count > min(sampling.counts):
            values["change_lit"] = _mean_where(np.abs(draws.mean(0) - mean), well_exposed(true))
        records.append(Record(condition, row.name, pair.stem, values))
    return records


def degraded_source(pair: Pair, condition: str, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the clean and the degraded image of the source that a condition degrades (the visible one if both).

    :param pair: the files
    :param condition: name of the degradation, applied to the whole image; ``clean`` for none
    :param crop: side of the square in the middle [pixels]; 0 for the whole image
    :returns: uint8 [H, W, 3] RGB twice, or [H, W] twice for the infrared image
    """
    clean = read_pair(pair)
    degraded = InputPair(pair.stem, condition, *clean).pair
    thermal = condition != CLEAN and not CONDITIONS[condition].degrades_visible
    return _middle(clean[thermal], crop), _middle(degraded[thermal], crop)


def restored(fuser: Fuser, degraded: np.ndarray, sampler: str, count: int, seeds: int) -> Iterator[np.ndarray]:
    """Restore an image once per seed.

    :param fuser: the model; its seed is the first one
    :param degraded: uint8 [H, W, 3] RGB, or [H, W] for an infrared image
    :param sampler: name of the sampler
    :param count: number of reverse steps
    :param seeds: number of seeds
    :returns: uint8 [H, W, 3] RGB each
    """
    visible, infrared = (degraded, None) if degraded.ndim == 3 else (None, degraded)
    for seed in range(fuser.config.seed, fuser.config.seed + seeds):
        yield fuser.restore(visible=visible, infrared=infrared, steps=count, sampler=sampler, seed=seed).image


def draw_metrics(draws: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Compare draws of an image with the clean one.

    :param draws: uint8 [S, H, W]; with S = 1 there is no spread
    :param clean: uint8 [H, W]
    """
    mean = draws.mean(0, dtype=np.float64)
    moments = ssim_moments(clean)
    energy = gradient_energy(clean)
    values = {
        "PSNR_draw": float(np.mean([min(psnr(draw, clean), EQUAL_PSNR) for draw in draws])),
        "PSNR_mean": min(psnr(mean, clean), EQUAL_PSNR),
        "SSIM_draw": float(np.mean([ssim_from_moments(ssim_moments(draw), moments) for draw in draws])),
        "gradient_energy": np.mean([gradient_energy(draw) for draw in draws]) / energy if energy else float("nan"),
        "brightness": float(mean.mean() - clean.mean()),
    }
    if len(draws) > 1:
        spread = draws.std(0, ddof=1, dtype=np.float64)
        values["spread"] = float(spread.mean())
        values["spread_lit"] = _mean_where(spread, well_exposed(clean))
        values["spread_error_corr"] = rank_correlation(spread, np.abs(mean - clean))
    return {name: float(value) for name, value in values.items()}


def make_steps_example(pair: Pair, condition: str, sampling: Sampling, fuser: Fuser) -> Example:
    """Show the clean image, the degraded one, and one draw per number of steps of the first sampler.

    :param pair: the files
    :param condition: name of the degradation
    :param sampling: how to restore
    :param fuser: the model
    """
    clean, degraded = degraded_source(pair, condition, sampling.crop)
    cells = [Cell("clean", _color(clean), "source"), Cell(UNTOUCHED, _color(degraded), "control", UNTOUCHED)]
    for row, (sampler, count) in sampling.rows.items():
        if sampler == sampling.samplers[0]:
            (image,) = restored(fuser, degraded, sampler, count, 1)
            cells.append(Cell(row.name, image, "method", row.name))
    return Example(pair.stem, condition, zoom_window(_color(degraded), to_grey(clean)), tuple(cells))


def _differences(records: Sequence[Record], sampling: Sampling) -> Differences:
    """Compute the differences of every row to the untouched image, and to the fewest steps of its sampler."""
    fewest = min(sampling.counts)
    rows = {row.name: f"{sampler} {fewest}" for row, (sampler, _) in sampling.rows.items()}
    return {
        UNTOUCHED: {row: differences(records, row, UNTOUCHED) for row in rows},
        FEWEST: {row: differences(records, row, other) for row, other in rows.items() if row != other},
    }


def _middle(image: np.ndarray, crop: int) -> np.ndarray:
    """Cut the square in the middle of an image, or as much of it as there is."""
    if not crop:
        return image
    height, width = (min(crop, side) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _mean_where(values: np.ndarray, mask: np.ndarray) -> float:
    return float(values[mask].mean()) if mask.any() else float("nan")


def _color(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, 2)
