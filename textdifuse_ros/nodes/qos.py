"""Quality-of-service profiles of the nodes, and warnings about transport."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
"""Environment variable that names the profile file of Fast DDS 2 (up to ROS 2 Jazzy)."""
PROFILE_VARIABLE_3 = "FASTDDS_DEFAULT_PROFILES_FILE"
"""Its name in Fast DDS 3."""
FAST_DDS_2 = ("", "humble", "iron", "jazzy")
"""Values of ``ROS_DISTRO`` with Fast DDS 2; empty with the wheels of Jazzy."""


def input_profile(depth: int, reliability: str) -> QoSProfile:
    """A volatile profile that keeps the last messages.

    :param depth: messages kept
    :param reliability: ``best_effort`` (compatible with every publisher) or ``reliable`` (lost messages are sent again,
        but nothing is received from best-effort publishers)
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def output_profile(depth: int, reliability: str = "reliable") -> QoSProfile:
    """A volatile profile that keeps the last messages.

    :param depth: messages kept
    :param reliability: ``reliable``, compatible with every subscriber, or ``best_effort``
    """
    return input_profile(depth, reliability)


def latched_profile(depth: int = 1) -> QoSProfile:
    """Reliable and transient local: late subscribers receive the last ``depth`` messages."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def subscription_events(
    topic: str, warn: Callable[[str], Any], count: Callable[[int], Any]
) -> SubscriptionEventCallbacks:
    """Callbacks that report incompatible publishers and messages lost by the middleware.

    :param topic: for the log line
    :param warn: takes a line for the log
    :param count: takes the number of newly lost messages
    """
    return SubscriptionEventCallbacks(
        incompatible_qos=lambda event: warn(
            f"a publisher on {topic} offers another {qos_policy_name_from_kind(event.last_policy_kind)} than "
            "requested; nothing is received from it; set input_reliability to best_effort or make the driver reliable"
        ),
        message_lost=lambda event: count(event.total_count_change),
    )


def publisher_events(topic: str, warn: Callable[[str], Any]) -> PublisherEventCallbacks:
    """Callbacks that report incompatible subscribers.

    :param topic: for the log line
    :param warn: takes a line for the log
    """
    return PublisherEventCallbacks(
        incompatible_qos=lambda event: warn(
            f"a subscriber of {topic} requests another {qos_policy_name_from_kind(event.last_policy_kind)} than "
            "offered (output_reliability, volatile, keep last); it receives nothing"
        )
    )


def loss_remedy(environment: Mapping[str, str] = os.environ) -> str:
    """The remedy for images lost in transport.

    :param environment: environment variables
    """
    variable = _profile_variable(environment)
    if variable and not environment.get(variable):
        return f"set {variable} to the package's config/fastdds_shm.xml here and in the camera drivers"
    profile = f"set {variable} in the camera drivers as here" if variable else "give the middleware larger buffers"
    return f"{profile}, or check the network; or make the drivers reliable and set input_reliability to reliable"


def _profile_variable(environment: Mapping[str, str]) -> str:
    """The variable that names Fast DDS's profile file; empty with another middleware."""
    if "fastrtps" not in (environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"):
        return ""
    return PROFILE_VARIABLE if environment.get("ROS_DISTRO", "") in FAST_DDS_2 else PROFILE_VARIABLE_3


def transport_warning(environment: Mapping[str, str] = os.environ) -> str:
    """A warning about Fast DDS's small shared-memory segment, or an empty string.

    The default segment holds 512 kB, less than one VGA color image: sensor-data streams then lose most images.
    ``config/fastdds_shm.xml`` enlarges it.

    :param environment: environment variables
    """
    variable = _profile_variable(environment)
    if not variable or environment.get(variable):
        return ""
    return (
        "Fast DDS runs with its default shared-memory segment of 512 kB and loses images of 640 x 480 and larger; "
        f"set {variable} to the package's config/fastdds_shm.xml here and in the camera drivers"
    )
