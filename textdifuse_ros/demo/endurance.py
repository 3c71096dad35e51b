"""Evaluates an endurance run: counters, image ages and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

WARM_UP = 60.0  # [s] at the start, in which caches fill
MIN_SAMPLES = 3


def evaluate(report: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """Summarize a run, and list under ``faults`` what is wrong, one line each.

    The age of an image is limited to one period plus one inference: a pair waits until the next one replaces it, and is
    then processed. The inference time is measured in the run itself, from taking a pair to publishing its image; the
    99th percentiles of both are compared.

    :param report: report of :func:`textdifuse_ros.nodes.endurance.run`
    :param rate: requested rate of the pairs [Hz]
    :returns: the content of ``endurance.json`` apart from ``source``, ``rate_hz`` and ``version``
    """
    node, player = report["node"], report["player"]
    ages, works = _percentiles(report["ages_ms"]), _percentiles(report["works_ms"])
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
        faults.append(f"each fused image ({node['fused']}) must be heard by the listener, got {report['heard']}")
    bound, within, within_own = None, None, None
    if ages["p99"] is None or works["p99"] is None:
        faults.append("at least one pair must be fused, got none; see the logs")
    else:
        bound = round(works["p99"] + period, 3)
        within = _fraction(age <= bound for age in report["ages_ms"])
        pairs = zip(report["ages_ms"], report["works_ms"], strict=True)
        within_own = _fraction(age <= work + period for age, work in pairs)
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
    """Return first, last and largest resident memory [MB], and its least-squares slope after the first minute [MB/h].

    :param samples: time since the start [s] and resident memory [MB] of each sample
    :returns: ``mb_per_hour`` is None if there are fewer than three samples after the first minute
    """
    late = np.array([sample for sample in samples if sample[0] >= WARM_UP], np.float64).reshape(-1, 2)
    slope = None
    if len(late) >= MIN_SAMPLES:
        slope = round(3600 * float(np.polyfit(late[:, 0] - late[0, 0], late[:, 1], 1)[0]), 2)
    values = [sample[1] for sample in samples]
    return {
        "samples": len(values),
        "first_mb": values[0] if values else None,
        "last_mb": values[-1] if values else None,
        "most_mb": max(values, default=None),
        "mb_per_hour": slope,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p99": None, "max": None}
    median, p99, most = np.percentile(values, (50, 99, 100))
    return {"median": round(float(median), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


def _fraction(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return round(sum(listed) / len(listed), 5)


def table(summary: Mapping[str, Any]) -> str:
    """Format ``summary`` (``endurance.json``) for the terminal."""
    lost = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items() if count)
    memory = summary["memory"]
    slope = "no slope in so short a run" if memory["mb_per_hour"] is None else f"{memory['mb_per_hour']:+.2f} MB/h"
    cut = ", interrupted" if summary["interrupted"] else ""
    lines = [
        ("ran", f"{summary['seconds']:.0f} s{cut}; {summary['source']} at {summary['played_hz']:.2f} Hz"),
        ("pairs in", f"{summary['pairs_in']}"),
        ("fused", f"{summary['fused']}, {summary['steps']} steps on {summary['device']}, model {summary['model']}"),
        ("dropped", f"{sum(summary['dropped'].values())}" + (f" ({lost})" if lost else "")),
        ("age", _format(summary["age_ms"])),
        ("inference", _format(summary["inference_ms"])),
        ("period", f"{summary['period_ms']:.1f} ms"),
    ]
    if summary["bound_ms"] is not None:
        within, own = summary["share_within_bound"], summary["share_within_own_inference_and_period"]
        lines += [
            ("limit", f"{summary['bound_ms']:.1f} ms, inference p99 + period; {within:.2%} are within"),
            ("", f"{own:.2%} are within their own inference + period, which leaves no time for delivery"),
        ]
    lines += [
        ("memory", f"{memory['first_mb']} to {memory['last_mb']} MB, at most {memory['most_mb']}; {slope}"),
        ("verdict", "; ".join(summary["faults"]) or "all frames accounted for, latency within the limit"),
    ]
    return "\n".join(f"{name:>9}  {text}" for name, text in lines)


def _format(percentiles: Mapping[str, float | None]) -> str:
    if percentiles["median"] is None:
        return "none"
    return f"{percentiles['median']:.1f} ms median, {percentiles['p99']:.1f} ms p99, {percentiles['max']:.1f} ms max"
