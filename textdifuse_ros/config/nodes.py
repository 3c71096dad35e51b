"""The parameters of the ROS nodes; free of ROS, so that documentation and checks need none.

The nodes declare them through :mod:`textdifuse_ros.nodes.parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import FuserConfig, VideoConfig, parameter
from textdifuse_ros.config.localizer import LocalizerConfig, TrackingConfig
from textdifuse_ros.config.sensors import SensorConfig

RELIABILITIES = ("best_effort", "reliable")
SYNCHRONIZERS = ("nearest", "exact", "approximate")
ON_MISSING = ("stop", "restore", "hold")
ON_DEVICE_ERROR = ("retry", "cpu")


@dataclass(frozen=True)
class FusionNodeConfig(SensorConfig, TrackingConfig, LocalizerConfig, VideoConfig, FuserConfig):
    """What the ``fusion_node`` runs by: the fuser's and the localizer's own parameters, the text, pairing and so on."""

    target_text: str = parameter(
        "",
        "What is to stand out, as in 'person, car:0.5'; empty is the plain fusion, without a localizer.",
        live=True,
        words=True,
    )
    target_strength: float = parameter(
        1.0,
        "How much it stands out, on top of each phrase's own strength; 0 leaves it alone, negative plays it down.",
        low=-1.0,
        high=2.0,
        live=True,
    )
    autostart: bool = parameter(True, "Configure and activate at start, without a lifecycle manager.")
    synchronizer: str = parameter(
        "nearest",
        "Pairing policy: nearest stamp; or exact or approximate, the stock ones of message_filters, if installed.",
        choices=SYNCHRONIZERS,
    )
    tolerance: float = parameter(
        0.02,
        "Largest difference of the two stamps of a pair; below half a frame period no pair can be a wrong one.",
        unit="s",
        low=0.0,
        high=1.0,
        live=True,
    )
    infrared_offset: float = parameter(
        0.0,
        "Added to the infrared stamps before pairing; negative where the infrared camera stamps late.",
        unit="s",
        low=-10.0,
        high=10.0,
        live=True,
    )
    visible_offset: float = parameter(
        0.0,
        "Added to the visible stamps before pairing; the header of what comes out keeps the visible stamp.",
        unit="s",
        low=-10.0,
        high=10.0,
        live=True,
    )
    pairing_queue: int = parameter(
        30,
        "Images of each camera that may wait for a partner; more, and the oldest is dropped. Below pairing_wait "
        "times the frame rate it ends the waiting before pairing_wait does.",
        low=1,
        high=100,
    )
    pairing_wait: float = parameter(
        0.5, "Longest time an image waits for a partner, or for a better one.", unit="s", low=0.01, high=60.0
    )
    on_missing: str = parameter(
        "stop",
        "While one camera is missing: stop publishes nothing, restore the restored other image alone, hold the "
        "last fused image again.",
        choices=ON_MISSING,
        live=True,
    )
    missing_after: float = parameter(
        0.5,
        "A camera is missing when there was no pair for this long; the first pair ends it.",
        unit="s",
        low=0.05,
        high=3600.0,
        live=True,
    )
    latency_budget: float = parameter(
        0.0,
        "Time from the later message of a pair to its fused image that is kept by taking fewer steps, then smaller "
        "images; 0 never changes either.",
        unit="s",
        low=0.0,
        high=60.0,
        live=True,
    )
    on_device_error: str = parameter(
        "retry",
        "Where the device fails (out of memory, vanished): retry loses the pair and takes the device again at growing "
        "intervals, cpu goes on on the processor.",
        choices=ON_DEVICE_ERROR,
        live=True,
    )
    input_depth: int = parameter(5, "Depth of the input queues of the middleware (QoS keep last).", low=1, high=100)
    output_depth: int = parameter(5, "Depth of the output queue of the middleware (QoS keep last).", low=1, high=100)
    input_reliability: str = parameter(
        "best_effort",
        "QoS reliability of the subscriptions: best_effort hears every camera, reliable only reliable ones.",
        choices=RELIABILITIES,
    )
    output_reliability: str = parameter(
        "reliable",
        "QoS reliability of the fused images: reliable is heard by every subscriber, best_effort never sends again.",
        choices=RELIABILITIES,
    )
    statistics_period: float = parameter(1.0, "Period of /diagnostics.", unit="s", low=0.1, high=60.0)
    doctor_window: float = parameter(
        30.0, "Time that the service ~/sync_doctor looks back on.", unit="s", low=1.0, high=600.0
    )
    silence_after: float = parameter(
        1.0, "A camera that has sent nothing for this long is reported as silent.", unit="s", low=0.05, high=3600.0
    )
    warm_up_size: tuple[int, ...] = parameter(
        (480, 640),
        "Height and width of the image fused once while configuring, so that the first real one is not slow.",
        unit="pixel",
        low=8,
        high=8192,
    )


@dataclass(frozen=True)
class PlayerConfig:
    """What the ``player_node`` runs by."""

    source: str = parameter("", "A rosbag2 recording (folder or .mcap / .db3 file), or a folder with vis/ and ir/.")
    rate: float = parameter(1.0, "Speed of playing; 2 is twice as fast as recorded.", low=0.001, high=1000.0)
    loop: bool = parameter(False, "Start again at the end, with the recorded stamps again.")
    live: bool = parameter(
        False, "Stamp the images as if they were taken now: the time between stamp and recording before the present."
    )
    clock: bool = parameter(False, "Publish /clock from the recorded times, for nodes with use_sim_time.")
    visible_topic: str = parameter(
        "", "Topic of the visible images in the recording, raw or compressed; empty looks for it."
    )
    infrared_topic: str = parameter(
        "", "Topic of the infrared images in the recording, raw or compressed; empty looks for it."
    )
    fps: float = parameter(10.0, "Pairs a second of a folder of images.", unit="Hz", low=0.01, high=1000.0)
    wait_for: int = parameter(
        0, "Subscribers that each image topic must have before playing starts; 0 starts at once.", low=0, high=100
    )
    wait_timeout: float = parameter(
        30.0,
        "Longest wait for those subscribers; after it the player ends with an error.",
        unit="s",
        low=0.0,
        high=3600.0,
    )
    topics: str = parameter(
        "",
        "Other topics of the recording to play under their own names, separated by commas; all plays all that can be "
        "published, and so does *, which YAML wants in quotes of its own.",
    )
    pairs: int = parameter(0, "End after so many pairs of images; 0 plays to the end, or for ever in a loop.", low=0)
    summary: str = parameter("", "File for the counts that are printed at the end, as JSON; empty writes none.")


@dataclass(frozen=True)
class RecorderConfig:
    """What the ``recorder_node`` runs by."""

    output: str = parameter("", "Folder of the rosbag2 recording to write; it must not exist yet.")
    topics: str = parameter("fused", "Topics to record, separated by commas; relative names are remappable.")
    storage: str = parameter("mcap", "Storage format of the recording.", choices=("mcap", "sqlite3"))
    summary: str = parameter("", "File for the counts that are printed at the end, as JSON; empty writes none.")
