"""The diagnosis of stamps: synthetic cameras with known offsets, and the verb on a recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.bags.cameras import find_cameras, header_stamp
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import BagError
from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.sync.doctor import Diagnosis, diagnose
from textdifuse_ros.sync.pairing import NearestPairing
from textdifuse_ros.sync.stamps import StampSeries, StampWindow

S = 1_000_000_000
START = 1_700_000_000 * S


def camera(rate: float, count: int, *, shift: float = 0.0, jitter: float = 0.0, lost: float = 0.0, seed: int = 0,
           clock: float = 0.0) -> StampSeries:  # fmt: skip
    """Times in seconds; images arrive 5 ms after exposure, on a clock that is ``clock`` behind the stamps.

    ``jitter`` is the standard deviation of a stamp, ``lost`` the share of images that are missing.
    """
    rng = np.random.default_rng(seed)
    times = np.arange(count) / rate + shift + jitter * rng.standard_normal(count)
    kept = np.sort(times[rng.random(count) >= lost])
    stamps = START + np.round(kept * S).astype(np.int64)
    return StampSeries(stamps + round(clock * S), stamps + 5_000_000)


def paired(visible: StampSeries, infrared: StampSeries, found: Diagnosis) -> int:
    """Return the number of pairs that the node's pairing gives with the suggested values."""
    assert found.suggestion is not None
    offset = {INFRARED: round(found.suggestion.infrared_offset * S)}
    pairing: NearestPairing[int] = NearestPairing(round(found.suggestion.tolerance * S), offset, 50, S)
    arrivals = sorted(
        (at, stream, stamp)
        for stream, series in ((VISIBLE, visible), (INFRARED, infrared))
        for at, stamp in zip(series.arrived_ns, series.stamps_ns, strict=True)
    )
    count = 0
    for at, stream, stamp in arrivals:
        count += len(pairing.add(stream, int(stamp), 0, int(at)).pairs)
    return count + len(pairing.poll(arrivals[-1][0] + 2 * S).pairs)


@pytest.mark.parametrize("shift", [0.0, 0.0131, -0.0072, 0.048, -0.04])
def test_the_offset_of_triggered_cameras_is_robust_to_jitter_losses_and_outliers(shift):
    """A common trigger with jitter: the stamps match only at the true difference."""
    rng = np.random.default_rng(1)
    trigger = np.cumsum(0.1 + 0.012 * rng.standard_normal(400))
    stamps = []
    for delay, noise in ((0.0, 0.0002), (shift, 0.0004)):
        times = trigger + delay + noise * rng.standard_normal(400)
        times[rng.integers(0, 400, 12)] += rng.uniform(0.02, 0.05, 12)  # late stamps
        times = np.sort(times[rng.random(400) > 0.1])
        at = START + np.round(times * S).astype(np.int64)
        stamps.append(StampSeries(at, at))
    found = diagnose(*stamps)
    assert found.suggestion is not None and found.suggestion.clear and not found.suggestion.as_good
    assert found.suggestion.infrared_offset == pytest.approx(-shift, abs=0.0008)
    assert paired(*stamps, found) >= 0.93 * min(len(series.stamps_ns) for series in stamps) * 0.9


def test_the_equal_peak_nearest_to_zero_is_chosen():
    found = diagnose(camera(30.0, 300), camera(30.0, 300, shift=0.012))
    assert found.suggestion is not None
    assert found.suggestion.infrared_offset == pytest.approx(-0.012, abs=1e-4)
    assert found.suggestion.tolerance <= 0.5 / 30 + 1e-4 and found.suggestion.paired > 0.99
    assert found.difference_ms is not None and found.difference_ms["p50"] == pytest.approx(12.0, abs=0.1)
    assert found.suggestion.as_good == pytest.approx([0.0213, -0.0453], abs=0.002), "a period away on either side"
    assert any("fits as well, a period away" in remark for remark in found.remarks)


def test_the_paired_fraction_counts_each_counterpart_once():
    """Three visible images compete for one infrared image."""
    base = START + np.arange(60, dtype=np.int64) * 100_000_000
    visible = np.sort(np.concatenate((base, base + 2_000_000, base + 4_000_000)))
    infrared = np.sort(np.concatenate((base + 1_000_000, base[:30] + 50_000_000, base + 60_000_000, base + 80_000_000)))
    found = diagnose(StampSeries(visible, visible), StampSeries(infrared, infrared))
    assert found.suggestion is not None
    pairs = paired(StampSeries(visible, visible), StampSeries(infrared, infrared), found)
    assert found.suggestion.paired == pytest.approx(pairs / 180, abs=0.02) and found.suggestion.paired < 0.5


def test_clocks_that_differ_by_hours_are_aligned_by_the_arrivals():
    visible, infrared = camera(20.0, 200, jitter=0.0005), camera(20.0, 200, shift=0.007, jitter=0.0005, clock=7200.0)
    found = diagnose(visible, infrared)
    assert found.suggestion is not None
    # To the nearest image: the stamps cannot tell which images belong together.
    assert found.suggestion.infrared_offset == pytest.approx(-7200.007, abs=0.001)
    assert any("set them to the same time" in remark for remark in found.remarks)
    assert diagnose(visible, camera(20.0, 200, clock=3.0)).suggestion.infrared_offset == pytest.approx(-3.0, abs=0.001)


def test_the_tolerance_for_a_slower_free_running_camera_is_half_a_period_of_the_faster_one():
    visible, infrared = camera(30.0, 600, jitter=0.001), camera(8.7, 170, shift=0.004, jitter=0.001, seed=1)
    found = diagnose(visible, infrared)
    assert found.suggestion is not None
    assert not found.suggestion.clear and any("free-running" in remark for remark in found.remarks)
    assert 0.012 < found.suggestion.tolerance <= 0.0171
    assert found.suggestion.paired > 0.95 and paired(visible, infrared, found) > 0.95 * 170
    assert any("rates differ" in remark for remark in found.remarks)


def test_faults_of_a_stream_are_reported():
    stamps = START + np.arange(100, dtype=np.int64) * 50_000_000
    stamps = np.delete(stamps, [20, 21, 22, 60])
    stamps = np.concatenate((stamps[:40], [0, stamps[39]], stamps[40:70], stamps[60:]))
    found = diagnose(StampSeries(stamps, START + np.arange(len(stamps)) * 50_000_000), camera(20.0, 100))
    report = found.visible
    assert (report.count, report.zero, report.duplicate, report.backward) == (len(stamps), 1, 1, 1)
    assert report.rate_hz == 20.0 and report.jitter_ms == 0.0
    assert (report.gaps, report.missing, report.longest_gap_ms) == (2, 4, 200.0)
    for words in ("no stamp", "repeat", "go back", "about 4 visible images are missing in 2 gaps"):
        assert any(words in remark for remark in found.remarks), found.remarks


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_stamps_are_reported(count):
    found = diagnose(camera(10.0, count), camera(10.0, 50))
    assert found.suggestion is None and found.histogram is None
    assert "too few" in found.remarks[-1]
    json.dumps(found.to_mapping())


def test_the_histogram_holds_every_image_of_the_slower_stream():
    found = diagnose(camera(30.0, 300, jitter=0.002), camera(10.0, 100, shift=0.003, jitter=0.002, seed=3))
    assert found.histogram is not None
    assert sum(found.histogram.counts) == 100
    assert len(found.histogram.edges_ms) == len(found.histogram.counts) + 1
    middle = found.histogram.edges_ms[np.argmax(found.histogram.counts)]
    assert -2 < middle < 8


def test_a_window_forgets_old_stamps():
    window = StampWindow(2.0)
    for n in range(50):
        window.add(VISIBLE, START + n, n * S // 10)
    assert list(window.series(VISIBLE, 49 * S // 10).stamps_ns - START) == list(range(29, 50))
    assert len(window.series(VISIBLE, 20 * S).stamps_ns) == 0
    assert len(window.series(INFRARED, 0).stamps_ns) == 0


# ---- the verb


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    image = np.zeros((4, 6), np.uint8)
    with BagWriter(path) as writer:
        for n in range(60):
            at = START + n * 50_000_000
            color = np.repeat(image[..., None], 3, 2)
            writer.write_image("/camera/rgb/image_raw", at + 1_000_000, "color", color, at)
            writer.write_image("/thermal/image_raw", at + 12_000_000, "thermal", image, at + 9_000_000)
    return path


def test_the_verb_prints_histogram_rates_and_the_suggestion(bag, capsys):
    assert main(["sync-doctor", str(bag)]) == 0
    page = capsys.readouterr().out
    assert "visible   /camera/rgb/image_raw" in page and "60 images at 20 Hz" in page
    assert "infrared_offset: -0.0090" in page and "tolerance: 0.0" in page
    assert "median 9.0 ms" in page and "60 ###" in page
    assert max(map(len, page.splitlines())) <= 120


def test_the_verb_prints_json(bag, capsys):
    assert main(["sync-doctor", str(bag), "--json", "--visible", "/camera/rgb/image_raw"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["topics"] == {"visible": "/camera/rgb/image_raw", "infrared": "/thermal/image_raw"}
    assert report["suggestion"]["infrared_offset"] == pytest.approx(-0.009) and report["visible"]["count"] == 60


def test_messages_that_are_cut_short_are_counted_and_the_others_diagnosed(bag, tmp_path, capsys):
    with BagReader(bag) as source, BagWriter(tmp_path / "short") as writer:
        for index, message in enumerate(source.messages()):
            writer.add_topic(message.topic, message.type)
            writer.write_raw(message.topic, message.stamp_ns, message.data[: 7 if index in (3, 5, 8) else None])
    assert main(["sync-doctor", str(tmp_path / "short")]) == 0
    page = capsys.readouterr().out
    assert "2 messages of /thermal/image_raw are cut short" in page and "infrared_offset: -0.0090" in page
    assert "1 messages of /camera/rgb/image_raw are cut short" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["/nowhere"], "nothing there"), (["BAG", "--infrared", "/x"], "one of /camera/rgb/image_raw, /thermal/image")],
)
def test_the_verb_reports_wrong_input_in_one_line(bag, capsys, arguments, message):
    assert main(["sync-doctor", *(str(bag) if item == "BAG" else item for item in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_header_stamps_are_read_in_either_byte_order_and_short_messages_refused():
    def message(data: bytes) -> BagMessage:
        return BagMessage("/a", "sensor_msgs/msg/CompressedImage", 0, data)

    for order, flag in (("little", 1), ("big", 0)):
        data = bytes([0, flag, 0, 0]) + (7).to_bytes(4, order) + (9).to_bytes(4, order)
        assert header_stamp(message(data)) == 7 * S + 9
    with pytest.raises(BagError, match="at least 12 bytes"):
        header_stamp(message(b"\x00\x01\x00\x00"))


def test_cameras_are_found_in_the_recording(bag):
    with BagReader(bag) as reader:
        assert find_cameras(reader) == ("/camera/rgb/image_raw", "/thermal/image_raw")
        with pytest.raises(BagError, match="an image topic of"):
            find_cameras(reader, infrared="/camera/rgb/image_raw", visible="/nothing")
