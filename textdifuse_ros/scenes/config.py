"""Parameters of the synthetic drive, and the classes of its labels."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter

LABELS: dict[int, str] = {
    0: "sky",
    1: "building",
    2: "road",
    3: "pavement",
    4: "tree",
    5: "pole",
    6: "car",
    7: "person",
    8: "bicycle",
}
"""Class of each value of a label image. Persons, cars and bicycles also have instances and boxes."""

SKY, BUILDING, ROAD, PAVEMENT, TREE, POLE, CAR, PERSON, BICYCLE = LABELS


@dataclass(frozen=True)
class DriveSceneConfig:
    """Parameters of :class:`textdifuse_ros.scenes.drive.NightDrive`."""

    frames: int = parameter(80, "Number of frames.", low=1, high=100_000)
    rate_hz: float = parameter(10.0, "Frame rate.", unit="Hz", low=0.1, high=200.0)
    width: int = parameter(640, "Width of both images.", unit="px", low=16, high=4096)
    height: int = parameter(480, "Height of both images.", unit="px", low=16, high=4096)
    seed: int = parameter(
        7, "Seed of the town and of the noise; the same seed gives the same bytes.", low=0, high=2**31 - 1
    )
    speed: float = parameter(8.0, "Speed of the vehicle.", unit="m/s", low=0.0, high=40.0)
    shake: float = parameter(1.0, "Strength of the vehicle's pitch, yaw and roll; 0 for none.", low=0.0, high=10.0)
    field_of_view: float = parameter(
        58.0, "Horizontal field of view of both cameras.", unit="deg", low=10.0, high=120.0
    )
    darkness: float = parameter(
        0.8, "Darkness of the night sky; at 1 lamps and headlights are the only light.", low=0.0, high=1.0
    )
    noise: float = parameter(1.0, "Noise of the visible sensor; 0 for none.", low=0.0, high=10.0)
    cast: float = parameter(
        0.5, "Strength of the sodium lamps' orange cast; 0 for a balanced image.", low=0.0, high=1.0
    )
    air_temperature: float = parameter(281.0, "Temperature of the air.", unit="K", low=250.0, high=300.0)
    netd: float = parameter(0.10, "Noise of the thermal sensor (NETD); 0 for none.", unit="K", low=0.0, high=5.0)
    stripes: float = parameter(
        0.08, "Fixed-pattern column noise of the thermal sensor; 0 for none.", unit="K", low=0.0, high=5.0
    )
