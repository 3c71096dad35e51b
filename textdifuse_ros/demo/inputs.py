"""The input of a run: the synthetic drive or a folder of pairs, and the rate to play it at."""

from __future__ import annotations

import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from textdifuse_ros.bags.cameras import COMPRESSED_TYPE, find_cameras, topics_line
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.config.base import from_mapping
from textdifuse_ros.errors import BagError, FileError, ImageError, InputError
from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import Frame, NightDrive

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

VISIBLE_TOPIC, INFRARED_TOPIC = "/visible/image", "/infrared/image"
_OFFSET_NS, _JITTER_NS = 4_000_000, 1_000_000
_LATENCY_NS = 2_000_000

SAMPLES = 3  # pairs to measure with
MAX_RATE = 10.0  # [Hz]
MAX_LOAD = 0.7  # fraction of a period that fusing one pair may take, measured while nothing else runs
MAX_MEASUREMENTS, MAX_MEASURING = 7, 4.0  # pairs and seconds


@dataclass(frozen=True)
class Prepared:
    """The input of a run.

    :ivar source: what the player plays
    :ivar pairs: number of pairs that it publishes
    :ivar samples: up to three pairs to measure with: uint8 or uint16 [H, W, 3] RGB and [H, W]
    :ivar recorded_hz: recorded rate [Hz]; 0 for a folder of images
    """

    source: Path
    pairs: int
    samples: list[tuple[np.ndarray, np.ndarray]]
    recorded_hz: float


def drive_scene(size: tuple[int, int], pairs: int) -> DriveSceneConfig:
    """Return the configuration of the synthetic drive.

    :param size: width and height [pixels]
    :param pairs: number of pairs
    :raises ConfigError: the size or the number of pairs is out of range
    """
    width, height = size
    return from_mapping(DriveSceneConfig, {"frames": pairs, "width": width, "height": height})


def record_frame(bag: BagWriter, frame: Frame, random: np.random.Generator) -> tuple[int, int]:
    """Write both images of ``frame`` to ``bag`` with the stamps of two free-running cameras.

    The infrared camera fires 4 ms after the visible one; both have a jitter of about 1 ms, drawn from ``random``.
    Messages are recorded 2 ms after their stamps.

    :returns: the header stamps of the visible and of the infrared image [ns]
    """
    jitter = [round(float(value)) for value in random.normal(0.0, _JITTER_NS, 2).clip(-1.9e6, 1.9e6)]
    visible, infrared = frame.stamp_ns + jitter[0], frame.stamp_ns + _OFFSET_NS + jitter[1]
    bag.write_image(VISIBLE_TOPIC, visible + _LATENCY_NS, "visible_camera", frame.visible, visible)
    bag.write_image(INFRARED_TOPIC, infrared + _LATENCY_NS, "infrared_camera", frame.infrared, infrared)
    return visible, infrared


def render_drive(config: DriveSceneConfig, bag: Path) -> Prepared:
    """Render the drive described by ``config`` into the new recording ``bag``."""
    samples: list[tuple[np.ndarray, np.ndarray]] = []
    random = np.random.default_rng(config.seed)
    with BagWriter(bag) as writer:
        for frame in tqdm(NightDrive(config), total=config.frames, desc="rendering", unit="frame", disable=None):
            record_frame(writer, frame, random)
            if len(samples) < SAMPLES:
                samples.append((frame.visible, frame.infrared))
    return Prepared(bag, config.frames, samples, config.rate_hz)


def prepare_folder(folder: Path, least: int, most: int) -> Prepared:
    """Use the pairs of a folder, repeated in laps if there are too few.

    :param folder: folder with ``vis/`` and ``ir/``
    :param least: minimum number of pairs to play
    :param most: maximum number of pairs of the folder to play
    :raises FileError: the folders are missing or have no pair
    :raises InputError: no pair can be read
    """
    listing = find_pairs(folder / "vis", folder / "ir").pairs
    if len(listing) > most:
        print(f"playing the first {most} of {len(listing)} pairs")
    samples = []
    for pair in listing:
        with contextlib.suppress(FileError):  # the player reports it
            samples.append((read_visible(pair.visible), read_infrared(pair.infrared)))
        if len(samples) == SAMPLES:
            break
    if not samples:
        raise InputError("the pairs", "readable", "no readable pair")
    return Prepared(folder, max(least, min(len(listing), most)), samples, 0.0)


def recorded_hz(source: Path) -> float:
    """Return the frame rate of the faster camera of the recording ``source`` [Hz].

    :raises BagError: no recording, no two cameras with raw images in it, or fewer than two images
    """
    with BagReader(source) as bag:
        cameras = find_cameras(bag, remedy="leave one {camera} camera in it")  # as the player does
        print(f"playing {topics_line(cameras)}")
        kinds, counts = bag.topics(), bag.counts()
        images = max(counts[topic] for topic in cameras)
        if images < 2 or bag.duration_ns <= 0:
            raise BagError(str(source), "a recording with at least two images of a camera", f"{images}")
        if compressed := [topic for topic in cameras if kinds[topic] == COMPRESSED_TYPE]:
            raise BagError(str(source), "a recording of raw images", f"compressed ones on {compressed[0]}")
        return (images - 1) / (bag.duration_ns / 1e9)


def choose_rate(fuser: Fuser, rate: float, samples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Measure the fusion, and choose the rate to play at unless it is given. Closes the fuser.

    :param fuser: fuser with the weights of the run
    :param rate: given rate [Hz], or 0
    :param samples: pairs to measure with, uint8 or uint16 [H, W, 3] RGB and [H, W]
    :returns: the rate [Hz], and the median time to fuse one pair [s]
    :raises InputError: no pair can be fused
    """
    try:
        fuser.warm_up(*samples[0][1].shape)
        # Fuse in another thread than the one that warmed up, as the node does. On a busy machine the first thread would
        # be several times slower, because OpenMP spins in it.
        with ThreadPoolExecutor(max_workers=1) as pool:
            seconds = pool.submit(_measure, fuser, samples).result()
    finally:
        fuser.close()
    if not seconds:
        raise InputError("the first pairs", "possible to fuse", "no pair that can be fused", "check their sizes")
    typical = statistics.median(seconds)
    return rate or min(MAX_RATE, MAX_LOAD / typical), typical


def _measure(fuser: Fuser, samples: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the times of a few fusions [s]."""
    seconds: list[float] = []
    begin = time.perf_counter()
    for number in range(MAX_MEASUREMENTS):
        started = time.perf_counter()
        with contextlib.suppress(ImageError):  # the node counts it as dropped
            fuser.fuse(*samples[number % len(samples)])
            seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and time.perf_counter() - begin > MAX_MEASURING:
            break
    return seconds
