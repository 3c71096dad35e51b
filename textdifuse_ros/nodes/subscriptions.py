"""The two cameras: subscriptions, the pairing of their messages, and their arrival statistics."""

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
"""Reason of a message that came while the service ``~/enable`` had disabled the node."""

LOOK_PERIOD = 1.0  # [s] between two checks for a latched calibration

OnResult = Callable[[Outcome[Received[Any]]], Any]


class PlainSubscriber(SimpleFilter):
    """``message_filters.Subscriber`` for machines without that package: the same arguments and ``sub``.

    :param node: creates the subscription
    :param kind: message type
    :param topic: its name
    :param options: for ``create_subscription``
    """

    def __init__(self, node: Node, kind: Any, topic: str, **options: Any) -> None:
        super().__init__()
        self.sub: Subscription = node.create_subscription(kind, topic, self.signalMessage, **options)


def subscriber_class() -> Any:
    """``message_filters.Subscriber`` where it is installed, else :class:`PlainSubscriber`."""
    return PlainSubscriber if message_filters is None else message_filters.Subscriber


def make_pairing(config: FusionNodeConfig) -> Pairing[Received[Any]]:
    """The pairing policy that ``synchronizer`` names.

    :param config: the parameters in force
    :raises ConfigError: it is a policy of message_filters, which is not installed
    """
    tolerance, wait = round(1e9 * config.tolerance), round(1e9 * config.pairing_wait)
    if config.synchronizer == "nearest":
        return NearestPairing(tolerance, offsets_of(config), config.pairing_queue, wait)
    return StockPairing(config.synchronizer, tolerance, offsets_of(config), config.pairing_queue, wait)


def offsets_of(config: FusionNodeConfig) -> dict[str, int]:
    """The offset to add to each camera's stamps [ns].

    :param config: the parameters in force
    """
    return {VISIBLE: round(1e9 * config.visible_offset), INFRARED: round(1e9 * config.infrared_offset)}


class Subscriptions:
    """Receives the messages of both cameras and pairs them; for the executor's thread.

    The subscriptions exist between :meth:`open` and :meth:`close`; the counters are never reset.

    :param node: creates the subscriptions
    :param config: the parameters in force
    :param on_result: called with every result of the pairing
    :ivar enabled: while False, messages are counted and dropped
    :ivar arrivals: rate, silence and losses of each camera
    :ivar counterpart: detects a missing camera
    :ivar visible_info: the visible camera's last ``camera_info``, or None
    :ivar pairs: the pairing
    """

    def __init__(self, node: Node, config: FusionNodeConfig, on_result: OnResult) -> None:
        self.enabled = True
        self.arrivals = {stream: Arrivals() for stream in SENSORS}
        self.counterpart = CounterpartWatch()
        self.visible_info: CameraInfo | None = None
        self._node = node
        self._config = config
        self._warn = node.get_logger().warning
        self._gates = {stream: SimpleFilter() for stream in SENSORS}
        self._window = StampWindow(config.doctor_window)
        self._open: list[Subscription] = []
        self._awaited: dict[str, Callable[[CameraInfo], None]] = {}
        self._checked = 0.0
        self.pairs: PairFilter[Any] = PairFilter(list(self._gates.values()), make_pairing(config))
        self.pairs.when_settled(on_result)

    @property
    def is_open(self) -> bool:
        """Whether the subscriptions exist."""
        return bool(self._open)

    def topic(self, stream: str) -> str:
        """The resolved name of a camera's topic; for compressed images with image_transport's suffix.

        :param stream: ``visible`` or ``infrared``
        """
        raw = str(self._node.resolve_topic_name(f"{stream}/image"))
        return f"{raw}/compressed" if self._is_compressed(stream) else raw

    def calibration_topic(self, stream: str) -> str:
        """The resolved name of a camera's ``camera_info``, see :func:`.messages.calibration_name`.

        :param stream: ``visible`` or ``infrared``
        """
        return str(self._node.resolve_topic_name(calibration_name(self._node, stream)))

    def check_calibrations(self, intake: SensorIntake) -> None:
        """Check that two needed calibrations have two topics; images of one namespace share a ``camera_info``.

        :param intake: needs the calibrations
        :raises ConfigError: both calibrations are needed and would come from one topic
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
        """Subscribe; silence and rates are measured from now on.

        :param intake: receives the calibrations that it needs
        """
        self.counterpart.restart()
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
            self._awaited.pop(stream, None)

        name, profile = calibration_name(self._node, stream), input_profile(1, self._config.input_reliability)
        self._open.append(self._node.create_subscription(CameraInfo, name, take, profile))
        self._awaited[stream] = take

    def _subscribe_to_latched(self) -> None:
        """Subscribe again, transient local, to calibrations that have not arrived and whose publisher has latched them.

        Not from the beginning: a volatile publisher would be reported as incompatible.
        """
        if not self._awaited or time.monotonic() - self._checked < LOOK_PERIOD:
            return
        self._checked = time.monotonic()
        for stream, take in list(self._awaited.items()):
            topic = self.calibration_topic(stream)
            offers = [each.qos_profile.durability for each in self._node.get_publishers_info_by_topic(topic)]
            if DurabilityPolicy.TRANSIENT_LOCAL in offers:
                del self._awaited[stream]
                name = calibration_name(self._node, stream)
                self._open.append(self._node.create_subscription(CameraInfo, name, take, latched_profile()))

    def _subscribe(self, stream: str) -> None:
        """Subscribe to the images of one camera."""
        events = subscription_events(self.topic(stream), self._warn, self.arrivals[stream].lose)
        profile = input_profile(self._config.input_depth, self._config.input_reliability)
        # A resolved name would be remapped a second time, which would undo a swap of the two cameras.
        kind, name = Image, f"{stream}/image"
        if self._is_compressed(stream):
            kind, name = CompressedImage, self.topic(stream)
        subscriber = subscriber_class()(self._node, kind, name, qos_profile=profile, event_callbacks=events)
        subscriber.registerCallback(self._receive, stream)
        self._open.append(subscriber.sub)

    def close(self, reason: str) -> None:
        """Unsubscribe and drop the waiting images.

        :param reason: of the drops
        """
        for subscription in self._open:
            self._node.destroy_subscription(subscription)
        self._open.clear()
        self._awaited.clear()
        self.pairs.reset(reason)

    def reset(self, reason: str) -> None:
        """Drop the waiting images and forget all stamps.

        :param reason: of the drops
        """
        self.pairs.reset(reason)
        self.counterpart.restart()
        self._window.clear()

    def apply(self, config: FusionNodeConfig, reason: str) -> None:
        """Apply live parameters; if an offset has changed, drop the waiting images.

        :param config: the parameters in force from now on
        :param reason: of the drops
        """
        self._config = config

        def step(pairing: Pairing[Received[Any]]) -> Outcome[Received[Any]]:
            pairing.tolerance_ns = round(1e9 * config.tolerance)
            return pairing.set_offsets(offsets_of(config), reason)

        self.pairs.settle(step)

    def poll(self) -> None:
        """Pair or drop the images that have waited too long; call it periodically."""
        self.pairs.poll()
        self._subscribe_to_latched()

    def rewind(self, to_ns: int) -> None:
        """Reset if the node's clock was set back.

        :param to_ns: the new time [ns]
        """
        self.pairs.settle(lambda pairing: pairing.rewind(to_ns))

    def diagnose(self) -> Diagnosis:
        """Diagnose the stamps of the last ``doctor_window`` seconds."""
        now = time.monotonic_ns()
        return diagnose(*(self._window.series(stream, now) for stream in SENSORS))

    def why_silent(self, stream: str) -> str:
        """The most likely reason why a camera is silent, with a remedy.

        :param stream: ``visible`` or ``infrared``
        """
        topic = self.topic(stream)
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return f"{topic} has no publisher; start the camera's driver, or remap the topic"
        requested = input_profile(self._config.input_depth, self._config.input_reliability)
        for publisher in publishers:
            verdict, reason = qos_check_compatible(publisher.qos_profile, requested)
            if verdict != QoSCompatibility.ERROR:
                return f"the publisher of {topic} sends nothing, or it does not arrive; see the driver and the network"
        return f"{topic} has no publisher of compatible QoS ({reason.strip().rstrip(';')}); set input_reliability"

    def _receive(self, message: Any, stream: str) -> None:
        now, waits = time.monotonic(), self._config.pairing_wait
        self.arrivals[stream].arrived()
        self._window.add(stream, stamp_of(message.header), time.monotonic_ns())
        if not self.enabled:
            self.pairs.refuse(message, stream, DISABLED)
            self.counterpart.restart()  # a disabled node misses no camera
            return
        self.counterpart.arrived(stream, now)
        if self._config.on_missing != "stop" and self.counterpart.counterpart_silent(now, self._config.missing_after):
            waits = 0.0  # do not wait for the silent camera; its first image ends this

        def step(pairing: Pairing[Received[Any]]) -> Outcome[Received[Any]]:
            pairing.wait_ns = round(1e9 * waits)
            return Outcome()

        self.pairs.settle(step)
        self._gates[stream].signalMessage(message)
