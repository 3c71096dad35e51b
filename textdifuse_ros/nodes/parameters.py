"""ROS parameters declared from a configuration dataclass, and read back into it.

All are declared with dynamic typing and checked by :meth:`.Parameter.check`. So ``tolerance:=0`` is accepted as 0.0,
and a wrong type in a launch file does not end the process during construction: it is kept as a fault, which names
the parameter when the node is configured.
"""

from __future__ import annotations

import array
import difflib
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from textdifuse_ros.config.base import Parameter, from_mapping, parameters
from textdifuse_ros.config.ros_files import is_own_of_ros
from textdifuse_ros.errors import ConfigError, quote

T = TypeVar("T")


class NodeParameters(Generic[T]):
    """The parameters of one node.

    :param node: declares them
    :param kind: configuration dataclass; each of its fields becomes a parameter of that name
    :ivar fixed: while True, only parameters marked ``live`` may change
    """

    def __init__(self, node: Node, kind: type[T]) -> None:
        self.fixed = False
        self._kind = kind
        self._known = {item.name: item for item in parameters(kind)}
        self._values: dict[str, Any] = {}
        self._faults: dict[str, ConfigError] = {}
        self._listeners: list[Callable[[T], None]] = []
        self._checks: list[Callable[[T], None]] = []
        overrides = self._overrides(node)
        for item in self._known.values():
            self._declare(node, item, overrides)
        self._config: T = from_mapping(kind, self._values)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)

    @property
    def config(self) -> T:
        """The values in force; a new object after each change, so any thread may keep it.

        :raises ConfigError: the first value given at start that is unknown, of another type or out of range
        """
        for fault in self._faults.values():
            raise fault
        return self._config

    @property
    def faults(self) -> list[ConfigError]:
        """Errors of the values given at start; a later valid value clears its error, an unknown name stays."""
        return list(self._faults.values())

    def check_by(self, check: Callable[[T], None]) -> None:
        """Register a check of changed configurations.

        :param check: called with the configuration after a change; its ConfigError refuses the change
        """
        self._checks.append(check)

    def when_changed(self, listener: Callable[[T], None]) -> None:
        """Register a listener.

        :param listener: called with the new configuration after every change, in the executor's thread
        """
        self._listeners.append(listener)

    def _overrides(self, node: Node) -> dict[str, Any]:
        """The values from command line and parameter files; unknown names become faults."""
        # rclpy has no public way to list them; automatically_declare_parameters_from_overrides would end the process at
        # an empty list. rclpy itself reads them by this method of the handle.
        with node.handle:
            given = node.handle.get_parameters(RosParameter)
        values = {}
        for name, item in given.items():
            if name in self._known:
                values[name] = _plain(item.value)
            elif not node.has_parameter(name) and not is_own_of_ros(name):
                near = difflib.get_close_matches(name[:80], self._known, n=1)
                remedy = f"did you mean {near[0]}?" if near else "docs/parameters.md lists them all"
                what = f"a parameter of {node.get_name()}"
                self._faults[name] = ConfigError(what, "a known name", quote(name), remedy)
        return values

    def _declare(self, node: Node, item: Parameter, overrides: dict[str, Any]) -> None:
        value = item.default
        if item.name in overrides:
            given = item.coerce(overrides[item.name])
            try:
                item.check(given)
                value = given
            except ConfigError as fault:
                self._faults[item.name] = fault
        self._values[item.name] = value
        plain = list(value) if isinstance(value, tuple) else value
        node.declare_parameter(item.name, plain, _descriptor(item), ignore_override=True)

    def _check(self, changes: list[RosParameter]) -> SetParametersResult:
        for change in changes:
            item = self._known.get(change.name)
            if item is None:
                continue
            if self.fixed and not item.live:
                reason = f"{item.name} cannot change while the node is configured; clean it up first, or restart it"
                return SetParametersResult(successful=False, reason=reason)
            try:
                item.check(item.coerce(_plain(change.value)))
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
        try:
            changed = from_mapping(self._kind, {**self._values, **self._coerced(changes)})
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for check in self._checks:
            wrong = _error_of(check, changed)
            # An error that was there before, such as an initial text, must not block the change that fixes it.
            if wrong and wrong != _error_of(check, self._config):
                return SetParametersResult(successful=False, reason=wrong)
        return SetParametersResult(successful=True)

    def _coerced(self, changes: list[RosParameter]) -> dict[str, Any]:
        known = [change for change in changes if change.name in self._known]
        return {change.name: self._known[change.name].coerce(_plain(change.value)) for change in known}

    def _take(self, changes: list[RosParameter]) -> None:
        taken = self._coerced(changes)
        if not taken:
            return
        for name, value in taken.items():
            self._values[name] = value
            self._faults.pop(name, None)
        self._config = from_mapping(self._kind, self._values)
        for listener in self._listeners:
            listener(self._config)


def _error_of(check: Callable[[Any], None], config: Any) -> str:
    """The message of a failed check; empty if it passes."""
    try:
        check(config)
    except ConfigError as error:
        return str(error)
    return ""


def _plain(value: Any) -> Any:
    """Convert ``array.array``, which ROS uses for some integer lists, to a list."""
    return list(value) if isinstance(value, array.array) else value


def _descriptor(item: Parameter) -> ParameterDescriptor:
    notes = []
    if item.choices:
        notes.append("one of " + ", ".join(map(str, item.choices)))
    notes.append("may change at any time" if item.live else "fixed while the node is configured")
    descriptor = ParameterDescriptor(
        description=item.help + (f" [{item.unit}]" if item.unit else ""),
        additional_constraints="; ".join(notes),
        dynamic_typing=True,
    )
    if item.low is None and item.high is None:
        return descriptor
    if item.type is float:
        low = -sys.float_info.max if item.low is None else float(item.low)
        high = sys.float_info.max if item.high is None else float(item.high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif item.type is int:
        low_int = -(2**63) if item.low is None else int(item.low)
        high_int = 2**63 - 1 if item.high is None else int(item.high)
        descriptor.integer_range = [IntegerRange(from_value=low_int, to_value=high_int)]
    return descriptor
