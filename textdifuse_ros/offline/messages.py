"""The output topics of ``fusion_node`` as serialized messages, without ROS, for recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

Header = Any
"""A ``std_msgs/Header`` of the type store."""

OUTPUTS = ("fused", "provenance", "mask", "confidence")
_OK = 0


def fused_messages(
    store: Typestore,
    header: Header,
    prefix: str,
    image: np.ndarray,
    labels: np.ndarray | None,
    provenance: Mapping[str, Any],
    confidence: np.ndarray | None = None,
) -> Iterator[tuple[str, str, bytes | memoryview]]:
    """Yield topic, type and CDR bytes of each message of one pair.

    :param store: serializes
    :param header: of the reference camera, unchanged in every message
    :param prefix: the node's name with a leading slash
    :param image: uint8 [H, W, 3] RGB
    :param labels: uint8 [H, W]: 0 = nothing, k = phrase k; None without a text
    :param provenance: plain values, for ``/NAME/provenance``
    :param confidence: float32 [H, W] [grey levels]; None to leave it out
    """
    types: Any = store.types
    values = [types["diagnostic_msgs/msg/KeyValue"](key=key, value=str(value)) for key, value in provenance.items()]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=_OK,
        name=f"{prefix.rpartition('/')[2]}: picture",  # published and recorded under this name since 0.1: it stays
        message="fused",
        hardware_id=str(provenance.get("device", "")),
        values=values,
    )
    kind = "diagnostic_msgs/msg/DiagnosticArray"
    yield f"{prefix}/provenance", kind, store.serialize_cdr(types[kind](header=header, status=[status]), kind)
    kind = "sensor_msgs/msg/Image"
    images = {"fused": (image, "rgb8")}
    if labels is not None:
        images["mask"] = labels, "mono8"
    if confidence is not None:
        images["confidence"] = confidence, "32FC1"
    for name, (pixels, encoding) in images.items():
        height, width = pixels.shape[:2]
        message = types[kind](
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels[0].nbytes,
            data=np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
        )
        yield f"{prefix}/{name}", kind, store.serialize_cdr(message, kind)
