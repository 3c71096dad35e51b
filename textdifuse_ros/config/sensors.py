"""Parameters of the two cameras: the gain of raw thermal counts, rectification, registration."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter, parameters
from textdifuse_ros.errors import ConfigError

GAINS = ("percentiles", "plateau", "minmax", "fixed")
TRANSPORTS = ("raw", "compressed")
POLARITIES = ("white_hot", "black_hot")
REGISTRATIONS = ("none", "homography", "extrinsics")


@dataclass(frozen=True)
class SensorConfig:
    """How a pair of messages becomes an aligned pair of images; see docs/sensors.md."""

    visible_transport: str = parameter(
        "raw",
        "What the visible camera sends: raw images, or compressed ones on visible/image/compressed.",
        choices=TRANSPORTS,
    )
    infrared_transport: str = parameter(
        "raw",
        "What the infrared camera sends: raw images, or compressed ones on infrared/image/compressed.",
        choices=TRANSPORTS,
    )
    visible_bits: int = parameter(
        16,
        "Bits that the visible camera uses of its images of 16, counted from the lowest: 12 for one that sends 0 to "
        "4095.",
        low=9,
        high=16,
    )
    infrared_polarity: str = parameter(
        "white_hot",
        "Whether what is warm is bright in the infrared camera's images, or dark.",
        choices=POLARITIES,
    )
    gain: str = parameter(
        "percentiles",
        "How thermal counts (16 bits, floats) become 8 bits: stretched between percentiles or minmax, by plateau "
        "equalization, or by a fixed range of temperatures; images of 8 bits are taken as they are.",
        choices=GAINS,
        live=True,
    )
    gain_low_percentile: float = parameter(
        0.5, "Share of a thermal image that may become black.", unit="%", low=0.0, high=49.0, live=True
    )
    gain_high_percentile: float = parameter(
        99.5, "Share of a thermal image that stays below white.", unit="%", low=51.0, high=100.0, live=True
    )
    gain_plateau: float = parameter(
        3.0,
        "Plateau equalization: where the histogram is cut, as a multiple of an even spread's bins.",
        low=1.0,
        high=1000.0,
        live=True,
    )
    gain_least_span: float = parameter(
        16.0,
        "Counts that fill the 8 bits at least, so that an even scene does not become an image of its noise; where the "
        "noise is larger, 25 of its standard deviations do.",
        unit="count",
        low=0.0,
        high=65535.0,
        live=True,
    )
    gain_time_constant: float = parameter(
        0.5,
        "Time constant by which the gain follows the scene; 0 takes each image for itself, and flickers.",
        unit="s",
        low=0.0,
        high=60.0,
        live=True,
    )
    gain_cut: float = parameter(
        0.25,
        "Jump of the median and of a limit, as a share of the present span, from which on the gain begins anew at "
        "once.",
        low=0.01,
        high=100.0,
        live=True,
    )
    gain_fixed_low: float = parameter(
        263.15, "Gain fixed: temperature that becomes black.", unit="K", low=-1e4, high=1e5
    )
    gain_fixed_high: float = parameter(
        313.15, "Gain fixed: temperature that becomes white.", unit="K", low=-1e4, high=1e5
    )
    kelvin_per_count: float = parameter(
        0.01, "Temperature of one count of a radiometric thermal camera.", unit="K", low=1e-6, high=1e3
    )
    kelvin_offset: float = parameter(0.0, "Temperature of count 0.", unit="K", low=-1e5, high=1e5)
    thermal_unit: str = parameter("kelvin", "Unit of thermal images of floats (32FC1).", choices=("kelvin", "celsius"))
    rectify: bool = parameter(
        False, "Undistort both images by their calibration; a camera without distortion is left as it is."
    )
    visible_calibration: str = parameter(
        "", "Calibration file of the visible camera, as camera_calibration writes it; empty takes its camera_info."
    )
    infrared_calibration: str = parameter(
        "", "Calibration file of the infrared camera, as camera_calibration writes it; empty takes its camera_info."
    )
    registration: str = parameter(
        "none",
        "How the infrared image comes onto the visible one: not at all, by infrared_homography, or by extrinsics "
        "(both calibrations, infrared_rotation, infrared_translation and registration_depth).",
        choices=REGISTRATIONS,
    )
    infrared_homography: tuple[float, ...] = parameter(
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "Infrared pixel (x, y, 1) to visible pixel, row by row; textdifuse calibrate finds it.",
    )
    homography_sizes: tuple[int, ...] = parameter(
        (0, 0, 0, 0),
        "Width and height of the visible and of the infrared images that infrared_homography is for; others are "
        "refused, but for what is 0 here.",
        unit="pixel",
        low=0,
        high=65535,
    )
    infrared_rotation: tuple[float, ...] = parameter(
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "Rotation matrix of the infrared camera in the visible camera's optical frame, row by row.",
    )
    infrared_translation: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0), "Place of the infrared camera in the visible camera's optical frame.", unit="m"
    )
    registration_depth: float = parameter(
        30.0, "Distance at which extrinsics bring the two images together.", unit="m", low=0.01, high=1e6
    )
    registration_feather: int = parameter(
        24,
        "Width over which the border of the infrared image, carried on outwards, fades into the visible's luma.",
        unit="pixel",
        low=0,
        high=1000,
    )


NAMES = tuple(item.name for item in parameters(SensorConfig))


def check_sensors(config: SensorConfig) -> None:
    """Refuse values that are right each for itself and wrong together.

    :raises ConfigError: names the parameter
    """
    if config.gain_fixed_low >= config.gain_fixed_high:
        expected = f"below gain_fixed_high ({config.gain_fixed_high:g}) [K]"
        raise ConfigError("gain_fixed_low", expected, config.gain_fixed_low)
    for name, length in (
        ("infrared_homography", 9),
        ("homography_sizes", 4),
        ("infrared_rotation", 9),
        ("infrared_translation", 3),
    ):
        found = getattr(config, name)
        if len(found) != length:
            raise ConfigError(name, f"{length} numbers", f"{len(found)}")
    homography = config.infrared_homography
    largest = max(map(abs, homography))  # its scale is free
    if config.registration == "homography" and abs(_determinant(homography)) <= 1e-12 * largest**3:
        raise ConfigError("infrared_homography", "invertible", list(homography))
    rotation = config.infrared_rotation
    rows = [rotation[0:3], rotation[3:6], rotation[6:9]]
    products = [sum(a * b for a, b in zip(one, other, strict=True)) for one in rows for other in rows]
    off = max(abs(p - e) for p, e in zip(products, (1, 0, 0, 0, 1, 0, 0, 0, 1), strict=True))
    if off > 1e-3 or _determinant(rotation) < 0:
        raise ConfigError("infrared_rotation", "a rotation matrix, row by row", list(rotation))


def _determinant(m: tuple[float, ...]) -> float:
    return m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6])
