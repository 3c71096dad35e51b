"""Camera calibrations that several tests share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

K = (130.0, 0.0, 78.0, 0.0, 132.0, 61.0, 0.0, 0.0, 1.0)
EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
DISTORTIONS = {
    "plumb_bob": (-0.28, 0.09, 0.001, -0.0007, -0.01),
    "rational_polynomial": (0.5, -0.1, 0.0005, 0.0003, 0.01, 0.8, -0.05, 0.002),
    "equidistant": (-0.03, 0.01, -0.004, 0.001),
}


def camera_info(model="plumb_bob", d=(), k=K, p=None, r=EYE, size=(160, 120), binning=(0, 0), roi=(0, 0, 0, 0)) -> Any:
    """The fields of a ``sensor_msgs/CameraInfo``; P has no stereo offset."""
    p = k if p is None else p
    return SimpleNamespace(
        width=size[0], height=size[1], distortion_model=model, d=list(d), k=list(k), r=list(r),
        p=[*p[0:3], 0.0, *p[3:6], 0.0, *p[6:9], 0.0], binning_x=binning[0], binning_y=binning[1],
        roi=SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3], do_rectify=False),
    )  # fmt: skip
