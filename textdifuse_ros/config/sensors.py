"""Parameters of the two cameras: transport, thermal gain, rectification and registration."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter, parameters
from textdifuse_ros.errors import ConfigError

GAINS = ("percentiles", "plateau", "minmax", "fixed")
TRANSPORTS = ("raw", "compressed")
POLARITIES = ("white_hot", "black_hot")
REGISTRATIONS = ("none", "homography", "extrinsics")

MAX_MEGAPIXELS = 64.0


@dataclass(frozen=True)
class ImageConfig:
    """Limits of the images that are decoded."""

    max_megapixels: float = parameter(
        MAX_MEGAPIXELS,
        "Largest image that is decoded, from a file or a compressed message; larger ones are rejected by their header.",
        unit="megapixel",
        low=0.0001,
        high=1024.0,
    )

    @property
    def max_pixels(self) -> int:
        """``max_megapixels`` in pixels."""
        return round(self.max_megapixels * 1e6)


@dataclass(frozen=True)
class SensorConfig(ImageConfig):
    """Parameters of the conversion of two messages to an aligned pair of images; see docs/sensors.md."""

    visible_transport: str = parameter(
        "raw",
        "Transport of the visible images: raw, or compressed on visible/image/compressed.",
        choices=TRANSPORTS,
    )
    infrared_transport: str = parameter(
        "raw",
        "Transport of the infrared images: raw, or compressed on infrared/image/compressed.",
        choices=TRANSPORTS,
    )
    visible_bits: int = parameter(
        16,
        "Number of low-order bits used in 16-bit visible images: 12 if the values are 0 to 4095.",
        low=9,
        high=16,
    )
    infrared_polarity: str = parameter(
        "white_hot",
        "Polarity of the infrared images: warm objects bright (white_hot) or dark (black_hot).",
        choices=POLARITIES,
    )
    gain: str = parameter(
        "percentiles",
        "Conversion of thermal images (16 bits or float) to 8 bits: stretch between percentiles or minimum and "
        "maximum, plateau equalization, or a fixed temperature range; 8-bit images are used unchanged.",
        choices=GAINS,
        live=True,
    )
    gain_low_percentile: float = parameter(
        0.5, "Percentile of a thermal image that becomes black.", unit="%", low=0.0, high=49.0, live=True
    )
    gain_high_percentile: float = parameter(
        99.5, "Percentile of a thermal image that becomes white.", unit="%", low=51.0, high=100.0, live=True
    )
    gain_plateau: float = parameter(
        3.0,
        "Plateau equalization: clip limit of the histogram, as a multiple of a uniform histogram's bin height.",
        low=1.0,
        high=1000.0,
        live=True,
    )
    gain_least_span: float = parameter(
        16.0,
        "Minimum span of counts that is stretched to 8 bits, so that noise is not amplified in uniform scenes; at "
        "least 25 standard deviations of the noise.",
        unit="count",
        low=0.0,
        high=65535.0,
        live=True,
    )
    gain_time_constant: float = parameter(
        0.5,
        "Time constant of the gain's smoothing; 0 maps each image independently and flickers.",
        unit="s",
        low=0.0,
        high=60.0,
        live=True,
    )
    gain_cut: float = parameter(
        0.25,
        "Jump of the median and of one limit, as a share of the current span, above which the gain is reset.",
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
        0.01, "Temperature per count of a radiometric thermal camera.", unit="K", low=1e-6, high=1e3
    )
    kelvin_offset: float = parameter(0.0, "Temperature of count 0.", unit="K", low=-1e5, high=1e5)
    thermal_unit: str = parameter("kelvin", "Unit of float thermal images (32FC1).", choices=("kelvin", "celsius"))
    rectify: bool = parameter(
        False, "Rectify both images by their calibrations; a camera without distortion is left unchanged."
    )
    visible_calibration: str = parameter(
        "",
        "Calibration file of the visible camera: of camera_calibration, `ros2 topic echo` or OpenCV; empty uses its "
        "camera_info.",
    )
    infrared_calibration: str = parameter(
        "",
        "Calibration file of the infrared camera: of camera_calibration, `ros2 topic echo` or OpenCV; empty uses its "
        "camera_info.",
    )
    registration: str = parameter(
        "none",
        "Registration of the infrared image to the visible one: none, by infrared_homography, or by extrinsics "
        "(both calibrations, infrared_rotation, infrared_translation and registration_depth).",
        choices=REGISTRATIONS,
    )
    infrared_homography: tuple[float, ...] = parameter(
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "Homography from infrared pixel (x, y, 1) to visible pixel, row by row; estimated by textdifuse calibrate.",
    )
    homography_sizes: tuple[int, ...] = parameter(
        (0, 0, 0, 0),
        "Width and height of the visible and of the infrared images that infrared_homography applies to; other sizes "
        "are rejected. 0 accepts any.",
        unit="pixel",
        low=0,
        high=65535,
    )
    infrared_rotation: tuple[float, ...] = parameter(
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "Rotation matrix of the infrared camera in the visible camera's optical frame, row by row.",
    )
    infrared_translation: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0), "Position of the infrared camera in the visible camera's optical frame.", unit="m"
    )
    registration_depth: float = parameter(
        30.0, "Distance at which registration by extrinsics is exact.", unit="m", low=0.01, high=1e6
    )
    registration_feather: int = parameter(
        1000,
        "Pixels without infrared values show the visible image's luma, shifted to the infrared level at their border; "
        "distance over which the shift fades out, 0 for no shift.",
        unit="pixel",
        low=0,
        high=1000,
    )


NAMES = tuple(item.name for item in parameters(SensorConfig))


def check_sensors(config: SensorConfig) -> None:
    """Check the constraints of ``config`` beyond single ranges: lengths, matrices and ordered limits.

    :raises ConfigError: the first invalid parameter
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
        actual = len(getattr(config, name))
        if actual != length:
            raise ConfigError(name, f"{length} numbers", f"{actual}")
    homography = config.infrared_homography
    largest = max(map(abs, homography))  # the scale of a homography is arbitrary
    if config.registration == "homography" and abs(_determinant(homography)) <= 1e-12 * largest**3:
        raise ConfigError("infrared_homography", "invertible", list(homography))
    rotation = config.infrared_rotation
    rows = [rotation[0:3], rotation[3:6], rotation[6:9]]
    products = [sum(a * b for a, b in zip(one, other, strict=True)) for one in rows for other in rows]
    error = max(abs(p - e) for p, e in zip(products, (1, 0, 0, 0, 1, 0, 0, 0, 1), strict=True))
    if error > 1e-3 or _determinant(rotation) < 0:
        raise ConfigError("infrared_rotation", "a rotation matrix, row by row", list(rotation))


def _determinant(m: tuple[float, ...]) -> float:
    return m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6])
