"""Parameters as dataclass fields.

A field created by :func:`parameter` carries the default, unit, range and help text of a parameter, and whether it may
change while running. YAML files, command-line flags, ROS descriptors, checkpoint metadata and ``docs/parameters.md``
are all derived from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar

from textdifuse_ros.checks import check_number
from textdifuse_ros.errors import ConfigError, quote

T = TypeVar("T")

MAX_ELEMENTS = 1000
"""Longest list of a parameter."""


@dataclass(frozen=True)
class Parameter:
    """Description of one parameter.

    :ivar name: field name
    :ivar type: ``bool``, ``int``, ``float``, ``str`` or ``tuple``
    :ivar default: default value
    :ivar help: help text, one or two sentences
    :ivar unit: unit, or an empty string
    :ivar low: smallest allowed value, or None
    :ivar high: largest allowed value, or None
    :ivar choices: allowed values; empty allows any
    :ivar live: whether a running node applies a change from the next frame on
    :ivar element: element type of a tuple, ``int`` or ``float``
    :ivar accept_numbers: whether a text parameter accepts numbers and lists, converted to text
    """

    name: str
    type: type
    default: Any
    help: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...]
    live: bool
    element: Any = int
    accept_numbers: bool = False

    def check(self, value: Any) -> None:
        """Check the type and range of ``value``.

        :raises ConfigError: wrong type or out of range
        """
        if self.choices and value not in self.choices:
            raise ConfigError(self.name, f"one of {', '.join(map(str, self.choices))}", quote(value))
        if self.type in (int, float):
            check_number(self.name, value, self.low, self.high, self.unit, integer=self.type is int)
        elif self.type is tuple:
            if not isinstance(value, (tuple, list)) or not value:
                elements = "integers" if self.element is int else "numbers"
                raise ConfigError(self.name, f"a list of {elements}", quote(value))
            if len(value) > MAX_ELEMENTS:
                raise ConfigError(self.name, f"a list of at most {MAX_ELEMENTS} elements", len(value))
            for item in value:
                check_number(self.name, item, self.low, self.high, self.unit, integer=self.element is int)
        elif not isinstance(value, self.type):
            names = {bool: "true or false", str: "text"}
            remedy = ""
            if self.accept_numbers:
                remedy = "put it in quotes, since YAML reads on, off, yes and no as true and false"
            raise ConfigError(self.name, names[self.type], f"{quote(value)} ({type(value).__name__})", remedy)

    def coerce(self, value: Any) -> Any:
        """Convert a ``value`` from YAML, ROS or JSON to the parameter's type where this is unambiguous.

        Integers become floats, lists tuples, and with ``accept_numbers`` numbers and lists text. Other values are
        returned unchanged.
        """
        try:
            if self.accept_numbers and all(type(item) in (str, int, float) for item in _items(value)):
                return ", ".join(map(str, _items(value)))
            if self.type is float and isinstance(value, int) and not isinstance(value, bool):
                return float(value)
            if self.type is tuple and isinstance(value, (list, tuple)):
                floats = self.element is float and all(type(item) in (int, float) for item in value)
                return tuple(map(float, value)) if floats else tuple(value)
        except (ValueError, OverflowError):  # an integer of hundreds of digits; the check refuses it
            pass
        return value


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else (value,)


def parameter(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    live: bool = False,
    accept_numbers: bool = False,
) -> Any:
    """Create a dataclass field for a parameter.

    ``default``, ``help``, ``unit``, ``low``, ``high``, ``choices``, ``live`` and ``accept_numbers`` are those of
    :class:`Parameter`; ``help`` ends in a full stop.
    """
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "live": live}
    return field(default=default, metadata={**metadata, "accept_numbers": accept_numbers})


def parameters(kind: type) -> list[Parameter]:
    """List the parameters of ``kind``, a configuration dataclass, in the order of its fields."""
    hints = typing.get_type_hints(kind)
    found = []
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        origin = typing.get_origin(hint)
        if isinstance(hint, types.UnionType):
            raise TypeError(f"{kind.__name__}.{item.name}: a parameter has one type, not {hint}")
        default = item.default if item.default is not MISSING else None
        element = typing.get_args(hint)[0] if origin is tuple else int
        found.append(Parameter(name=item.name, type=origin or hint, default=default, element=element, **item.metadata))
    return found


def validate(config: Any) -> None:
    """Check all parameters of ``config``, an instance of a configuration dataclass.

    :raises ConfigError: the first invalid parameter
    """
    for item in parameters(type(config)):
        item.check(getattr(config, item.name))


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "the configuration") -> T:
    """Create and check a configuration from a mapping.

    :param kind: configuration dataclass
    :param values: values by parameter name; missing parameters take their defaults
    :param where: source of the values in error messages
    :raises ConfigError: unknown name (suggests a similar one), wrong type, or out of range
    """
    known = {item.name: item for item in parameters(kind)}
    for name in values:
        if name not in known:
            similar = difflib.get_close_matches(str(name)[:80], known, n=1)
            remedy = f"did you mean {similar[0]}?" if similar else "see docs/parameters.md"
            raise ConfigError(f"a parameter in {where}", "a known name", quote(name), remedy)
    coerced = {name: known[name].coerce(value) for name, value in values.items()}
    # Checked before the dataclass is created, whose __post_init__ relies on valid values.
    for name, value in coerced.items():
        known[name].check(value)
    return kind(**coerced)


def to_mapping(config: Any) -> dict[str, Any]:
    """Convert ``config`` to a dictionary for YAML or JSON, with tuples as lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()
    }


class _Switch(argparse.BooleanOptionalAction):
    """``--name`` or ``--no-name``; refuses both together, of which argparse would take the last silently."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        before = getattr(namespace, self.dest, None)
        super().__call__(parser, namespace, values, option_string)
        if before is not None and before != getattr(namespace, self.dest):
            flags = " and ".join(self.option_strings)
            raise argparse.ArgumentError(None, f"one of {flags} must be given, got both")


def add_arguments(parser: argparse.ArgumentParser, kind: type, *, skip: tuple[str, ...] = ()) -> None:
    """Add a command-line flag for each parameter; flags that are not given stay absent from the namespace.

    :param parser: parser to extend
    :param kind: configuration dataclass
    :param skip: names of parameters without a flag
    """
    for item in parameters(kind):
        if item.name in skip:
            continue
        default = "empty" if item.default == "" else item.default
        text = item.help + (f" [{item.unit}]" if item.unit else "") + f" Default: {default}."
        flag = "--" + item.name.replace("_", "-")
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if item.type is bool:
            options["action"] = _Switch
        elif item.type is tuple:
            options.update(type=item.element, nargs="+")
        else:
            options["type"] = item.type
            options["metavar"] = item.name.upper() if not item.choices else "{" + ",".join(map(str, item.choices)) + "}"
        parser.add_argument(flag, **options)


def from_arguments(kind: type[T], arguments: argparse.Namespace, **fixed: Any) -> T:
    """Create and check a configuration from command-line flags.

    :param kind: configuration dataclass
    :param arguments: parsed flags of :func:`add_arguments`
    :param fixed: values by name that override the flags
    :raises ConfigError: invalid parameter
    """
    names = {item.name for item in parameters(kind)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    return from_mapping(kind, {**given, **fixed}, "the command line")


@dataclass(frozen=True)
class FuserConfig:
    """Parameters of a :class:`textdifuse_ros.fusion.fuser.Fuser`."""

    model: str = parameter("drive", "Checkpoint: a name in the model folders, or the path of a file.")
    device: str = parameter("auto", "Compute device: auto (CUDA if available, else CPU), cpu, cuda or cuda:N.")
    precision: str = parameter(
        "auto",
        "Data type of the networks: auto is bfloat16 if the device supports it natively, else float32.",
        choices=("auto", "bfloat16", "float32"),
    )
    steps: int = parameter(4, "Reverse diffusion steps per image.", low=1, high=100, live=True)
    sampler: str = parameter(
        "ddim",
        "Sampler of the reverse diffusion: ancestral (iDDPM), ddim, dpm_solver (second order), or posterior_mean "
        "(ancestral without its noise, as the authors' program).",
        choices=("ancestral", "ddim", "dpm_solver", "posterior_mean"),
        live=True,
    )
    seed: int = parameter(
        0,
        "Seed of the initial noise; the same input, seed and weights give the same image.",
        low=0,
        high=2**31 - 1,
        live=True,
    )
    cuda_graphs: bool = parameter(
        True,
        "On CUDA, capture a CUDA graph per image size and replay it from the second image on; this needs more device "
        "memory.",
    )
    threads: int = parameter(0, "CPU threads of the networks; 0 is PyTorch's default.", low=0, high=256)


@dataclass(frozen=True)
class VideoConfig:
    """How a frame depends on the previous one, see :class:`textdifuse_ros.runtime.video_state.VideoState`."""

    video: bool = parameter(
        True,
        "Stabilize brightness and color against the previous fused image, along the motion of the sources; false "
        "fuses each image independently.",
        live=True,
    )
