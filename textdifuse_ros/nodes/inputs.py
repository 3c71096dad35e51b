"""The two cameras: subscriptions, the pairing behind them, and what is known of their arrivals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.image.intake import SensorIntake
from textdifuse_ros.nodes.diagnostics import Arrivals
from textdifuse_ros.nodes.messages import calibration_name
from textdifuse_ros.nodes.qos import input_profile, latched_profile, subscription_events
from textdifuse_ros.nodes.stock_pairing import StockPairing, message_filters
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, stamp_of
from textdifuse_ros.sync.base import Pairing
from textdifuse_ros.sync.counterpart import CounterpartWatch
from textdifuse_ros.sync.doctor import Diagnosis, diagnose
from textdifuse_ros.sync.filters import PairFilter, Received, SimpleFilter
from textdifuse_ros.sync.outcome import Outcome
from textdifuse_ros.sync.pairing import NearestPairing
from textdifuse_ros.sync.stamps import StampWindow

DISABLED = "disabled"
"""Came while the service ``~/enable`` had switched the node off."""

LOOK_PERIOD = 1.0  # [s] between two looks for a calibration that was published before

Settled = Callable[[Outcome[Received[Any]]], Any]


class PlainSubscriber(SimpleFilter):
    """``message_filters.Subscriber`` for machines without that package: the same arguments, the same ``sub``."""

    def __init__(self, node: Node, kind: Any, topic: str, **options: Any) -> None:
        super().__init__()
        self.sub: Subscription = node.create_subscription(kind, topic, self.signalMessage, **options)


def subscriber_class() -> Any:
    """``message_filters.Subscriber`` where it is installed, else :class:`PlainSubscriber`."""
    return PlainSubscriber if message_filters is None else message_filters.Subscriber


def make_pairing(config: FusionNodeConfig) -> Pairing[Received[Any]]:
    """The policy that ``synchronizer`` names.

    :raises ConfigError: a stock one, and message_filters is not installed
    """
    tolerance, wait = round(1e9 * config.tolerance), round(1e9 * config.pairing_wait)
    if config.synchronizer == "nearest":
        return NearestPairing(tolerance, offsets_of(config), config.pairing_queue, wait)
    return StockPairing(config.synchronizer, tolerance, offsets_of(config), config.pairing_queue, wait)


def offsets_of(config: FusionNodeConfig) -> dict[str, int]:
    """The offset of each camera's stamps [ns]."""
    return {VISIBLE: round(1e9 * config.visible_offset), INFRARED: round(1e9 * config.infrared_offset)}


class Inputs:
    """Subscriptions come and go with :meth:`open` and :meth:`close`, the counters go on; the executor's thread only.

    :param settled: called with every outcome of the pairing
    :ivar enabled: while False, messages are counted and refused
    :ivar visible_info: the visible camera's last ``camera_info``, None before one
    """

    def __init__(self, node: Node, config: FusionNodeConfig, settled: Settled) -> None:
        self.enabled = True
        self.arrivals = {stream: Arrivals() for stream in SENSORS}
        self.partner = CounterpartWatch()
        self.visible_info: CameraInfo | None = None
        self._node = node
        self._config = config
        self._warn = node.get_logger().warning
        self._gates = {stream: SimpleFilter() for stream in SENSORS}
        self._window = StampWindow(config.doctor_window)
        self._open: list[Subscription] = []
        self._unheard: dict[str, Callable[[CameraInfo], None]] = {}
        self._looked = 0.0
        self.pairs: PairFilter[Any] = PairFilter(list(self._gates.values()), make_pairing(config))
        self.pairs.when_settled(settled)

    @property
    def is_open(self) -> bool:
        """Whether messages are taken."""
        return bool(self._open)

    def topic(self, stream: str) -> str:
        """The resolved name of a camera's topic; of compressed images what image_transport makes of the raw one's."""
        raw = str(self._node.resolve_topic_name(f"{stream}/image"))
        return f"{raw}/compressed" if self._is_compressed(stream) else raw

    def calibration_topic(self, stream: str) -> str:
        """The resolved name of a camera's ``camera_info``, see :func:`.messages.calibration_name`."""
        return str(self._node.resolve_topic_name(calibration_name(self._node, stream)))

    def check_calibrations(self, intake: SensorIntake) -> None:
        """Refuse one ``camera_info`` for two cameras, as two images in one namespace have it beside them.

        :raises ConfigError: both calibrations are wanted, and would come from one topic
        """
        topics = [self.calibration_topic(stream) for stream in intake.required_calibrations]
        if len(topics) == 2 and topics[0] == topics[1]:
            raise ConfigError(
                "camera_info",
                "a topic for each camera",
                f"{topics[0]} for both",
                "remap visible/camera_info and infrared/camera_info, or name files by visible_calibration and "
                "infrared_calibration",
            )

    def _is_compressed(self, stream: str) -> bool:
        return bool(getattr(self._config, f"{stream}_transport") == "compressed")

    def open(self, intake: SensorIntake) -> None:
        """Subscribe; what was before counts no more for silence and rates.

        :param intake: takes the calibrations that it wants
        """
        self.partner.restart()
        self._window.clear()
        for arrivals in self.arrivals.values():
            arrivals.restart()
        for stream in SENSORS:
            self._subscribe(stream)
        for stream in {VISIBLE, *intake.required_calibrations}:
            self._subscribe_calibration(stream, intake)

    def _subscribe_calibration(self, stream: str, intake: SensorIntake) -> None:
        def take(info: CameraInfo) -> None:
            if stream == VISIBLE:
                self.visible_info = info
            intake.set_calibration(stream, info)

            self._unheard.pop(stream, None)

        name, profile = calibration_name(self._node, stream), input_profile(1, self._config.input_reliability)
        self._open.append(self._node.create_subscription(CameraInfo, name, take, profile))
        self._unheard[stream] = take

    def _ask_for_latched(self) -> None:
        """Subscribe once more to a calibration that has not come, where it was published before and latched.

        Only a subscription that asks for the past is given it; a publisher without one is warned of such a one.
        """
        if not self._unheard or time.monotonic() - self._looked < LOOK_PERIOD:
            return
        self._looked = time.monotonic()
        for stream, take in list(self._unheard.items()):
            topic = self.calibration_topic(stream)
            offers = [each.qos_profile.durability for each in self._node.get_publishers_info_by_topic(topic)]
            if DurabilityPolicy.TRANSIENT_LOCAL in offers:
                del self._unheard[stream]
                name = calibration_name(self._node, stream)
                self._open.append(self._node.create_subscription(CameraInfo, name, take, latched_profile()))

    def _subscribe(self, stream: str) -> None:
        """Have the messages of a camera go through :meth:`_receive`."""
        events = subscription_events(self.topic(stream), self._warn, self.arrivals[stream].lose)
        profile = input_profile(self._config.input_depth, self._config.input_reliability)
        # A resolved name would be remapped a second time, which undoes a swap of the two cameras.
        kind, name = Image, f"{stream}/image"
        if self._is_compressed(stream):
            kind, name = CompressedImage, self.topic(stream)
        subscriber = subscriber_class()(self._node, kind, name, qos_profile=profile, event_callbacks=events)
        subscriber.registerCallback(self._receive, stream)
        self._open.append(subscriber.sub)

    def close(self, reason: str) -> None:
        """Unsubscribe; what waits is dropped for ``reason``."""
        for subscription in self._open:
            self._node.destroy_subscription(subscription)
        self._open.clear()
        self._unheard.clear()
        self.pairs.reset(reason)

    def reset(self, reason: str) -> None:
        """Begin anew: what waits is dropped for ``reason``, and the stamps are forgotten."""
        self.pairs.reset(reason)
        self.partner.restart()
        self._window.clear()

    def apply(self, config: FusionNodeConfig, reason: str) -> None:
        """Take live parameters over; where an offset changed, what waits is dropped for ``reason``."""
        self._config = config

        def step(pairing: Pairing[Received[Any]]) -> Outcome[Received[Any]]:
            pairing.tolerance_ns = round(1e9 * config.tolerance)
            return pairing.set_offsets(offsets_of(config), reason)

        self.pairs.settle(step)

    def poll(self) -> None:
        """Settle what has waited too long; now and then."""
        self.pairs.poll()
        self._ask_for_latched()

    def rewind(self, to_ns: int) -> None:
        """The node's clock was set back to this time [ns]."""
        self.pairs.settle(lambda pairing: pairing.rewind(to_ns))

    def diagnose(self) -> Diagnosis:
        """What the stamps of the last ``doctor_window`` seconds say."""
        now = time.monotonic_ns()
        return diagnose(*(self._window.series(stream, now) for stream in SENSORS))

    def why_silent(self, stream: str) -> str:
        """The most likely reason why nothing comes from a camera, with a remedy."""
        topic = self.topic(stream)
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return f"{topic} has no publisher; start the camera's driver, or remap the topic"
        asked = input_profile(self._config.input_depth, self._config.input_reliability)
        for publisher in publishers:
            verdict, reason = qos_check_compatible(publisher.qos_profile, asked)
            if verdict != QoSCompatibility.ERROR:
                return f"the publisher of {topic} sends nothing, or it does not arrive; see the driver and the network"
        return f"{topic} has no publisher of compatible QoS ({reason.strip().rstrip(';')}); set input_reliability"

    def _receive(self, message: Any, stream: str) -> None:
        now, waits = time.monotonic(), self._config.pairing_wait
        self.arrivals[stream].arrived()
        self._window.add(stream, stamp_of(message.header), time.monotonic_ns())
        if not self.enabled:
            self.pairs.refuse(message, stream, DISABLED)
            self.partner.restart()  # nobody is missed while nothing is wanted
            return
        self.partner.arrived(stream, now)
        if self._config.on_missing != "stop" and self.partner.waits_in_vain(now, self._config.missing_after):
            waits = 0.0  # nothing comes from the other one; its first image puts an end to this

        def step(pairing: Pairing[Received[Any]]) -> Outcome[Received[Any]]:
            pairing.wait_ns = round(1e9 * waits)
            return Outcome()

        self.pairs.settle(step)
        self._gates[stream].signalMessage(message)
