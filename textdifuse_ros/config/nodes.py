"""Parameters of the ROS nodes; does not import ROS, so that documentation and checks work without it.

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
    """Parameters of the ``fusion_node``: fuser, localizer, sensors, target text, pairing and operation."""

    target_text: str = parameter(
        "",
        "Objects to emphasize, for example 'person, car:0.5'; empty is plain fusion without a localizer.",
        live=True,
        accept_numbers=True,
    )
    target_strength: float = parameter(
        1.0,
        "Strength of the emphasis, multiplied by each phrase's own strength; 0 has no effect, negative values "
        "suppress the objects.",
        low=-1.0,
        high=2.0,
        live=True,
    )
    autostart: bool = parameter(True, "Configure and activate at startup, without a lifecycle manager.")
    synchronizer: str = parameter(
        "nearest",
        "Pairing policy: nearest (stamp), or exact or approximate of message_filters, if installed.",
        choices=SYNCHRONIZERS,
    )
    tolerance: float = parameter(
        0.02,
        "Maximum difference of the two stamps of a pair; less than half a frame period prevents wrong pairs.",
        unit="s",
        low=0.0,
        high=1.0,
        live=True,
    )
    infrared_offset: float = parameter(
        0.0,
        "Offset added to the infrared stamps before pairing; negative if the infrared camera stamps late.",
        unit="s",
        low=-10.0,
        high=10.0,
        live=True,
    )
    visible_offset: float = parameter(
        0.0,
        "Offset added to the visible stamps before pairing; the output's header keeps the original visible stamp.",
        unit="s",
        low=-10.0,
        high=10.0,
        live=True,
    )
    pairing_queue: int = parameter(
        30,
        "Maximum number of images of each camera that wait for a counterpart; the oldest is dropped first. A value "
        "below pairing_wait times the frame rate shortens the wait.",
        low=1,
        high=100,
    )
    pairing_wait: float = parameter(
        0.5, "Maximum time that an image waits for a counterpart or a closer one.", unit="s", low=0.01, high=60.0
    )
    on_missing: str = parameter(
        "stop",
        "Output while one camera is missing: stop publishes nothing, restore the restored image of the other camera, "
        "hold the last fused image.",
        choices=ON_MISSING,
        live=True,
    )
    missing_after: float = parameter(
        0.5,
        "Time without a pair after which a camera counts as missing, until the next pair.",
        unit="s",
        low=0.05,
        high=3600.0,
        live=True,
    )
    latency_budget: float = parameter(
        0.0,
        "Maximum latency from the later message of a pair to its fused image, kept by fewer steps, then by a lower "
        "resolution; 0 disables the limit.",
        unit="s",
        low=0.0,
        high=60.0,
        live=True,
    )
    on_device_error: str = parameter(
        "retry",
        "Reaction to a failed device (out of memory, lost): retry drops the pair and tries the device again at growing "
        "intervals, cpu falls back to the CPU.",
        choices=ON_DEVICE_ERROR,
        live=True,
    )
    input_depth: int = parameter(5, "Depth of the input queues of the middleware (QoS keep last).", low=1, high=100)
    output_depth: int = parameter(5, "Depth of the output queue of the middleware (QoS keep last).", low=1, high=100)
    input_reliability: str = parameter(
        "best_effort",
        "QoS reliability of the subscriptions: best_effort matches every camera, reliable only reliable publishers.",
        choices=RELIABILITIES,
    )
    output_reliability: str = parameter(
        "reliable",
        "QoS reliability of the fused images: reliable matches every subscriber, best_effort never retransmits.",
        choices=RELIABILITIES,
    )
    statistics_period: float = parameter(1.0, "Period of /diagnostics.", unit="s", low=0.1, high=60.0)
    doctor_window: float = parameter(
        30.0, "Time window that the service ~/sync_doctor evaluates.", unit="s", low=1.0, high=600.0
    )
    silence_after: float = parameter(
        1.0, "Time without images after which a camera is reported as silent.", unit="s", low=0.05, high=3600.0
    )
    warm_up_size: tuple[int, ...] = parameter(
        (480, 640),
        "Height and width of the image fused for warm-up during configuration.",
        unit="pixel",
        low=8,
        high=8192,
    )


@dataclass(frozen=True)
class PlayerConfig:
    """Parameters of the ``player_node``."""

    source: str = parameter("", "rosbag2 recording (folder, .mcap or .db3 file), or folder with vis/ and ir/.")
    rate: float = parameter(1.0, "Playback speed; 2 is twice as fast as recorded.", low=0.001, high=1000.0)
    loop: bool = parameter(False, "Restart at the end, with the recorded stamps.")
    live: bool = parameter(
        False, "Replace the stamps by the current time, minus the recorded delay between stamp and reception."
    )
    clock: bool = parameter(False, "Publish /clock from the recorded times, for nodes with use_sim_time.")
    visible_topic: str = parameter(
        "", "Topic of the visible images in the recording, raw or compressed; empty detects it."
    )
    infrared_topic: str = parameter(
        "", "Topic of the infrared images in the recording, raw or compressed; empty detects it."
    )
    fps: float = parameter(10.0, "Frame rate of a folder of images.", unit="Hz", low=0.01, high=1000.0)
    wait_for: int = parameter(
        0, "Subscribers of each image topic to wait for before playback; 0 starts immediately.", low=0, high=100
    )
    wait_timeout: float = parameter(
        30.0,
        "Maximum time to wait for these subscribers; then the player exits with an error.",
        unit="s",
        low=0.0,
        high=3600.0,
    )
    topics: str = parameter(
        "",
        "Other topics of the recording to play under their own names, separated by commas; all or '*' (quoted in "
        "YAML) plays every topic that can be published.",
    )
    pairs: int = parameter(0, "Number of pairs to play; 0 plays to the end, or forever with loop.", low=0)
    summary: str = parameter("", "JSON file for the counts printed at the end; empty writes none.")


@dataclass(frozen=True)
class RecorderConfig:
    """Parameters of the ``recorder_node``."""

    output: str = parameter("", "Folder of the rosbag2 recording to write; it must not exist.")
    topics: str = parameter("fused", "Topics to record, separated by commas; relative names are remappable.")
    storage: str = parameter("mcap", "Storage format of the recording.", choices=("mcap", "sqlite3"))
    summary: str = parameter("", "JSON file for the counts printed at the end; empty writes none.")
