"""Parameters: one dataclass field each, from which every other view of them is derived.

A field made by :func:`parameter` carries its default, unit, range, sentence and whether it may change while running.
YAML files, command-line flags, ROS descriptors, checkpoint metadata and ``docs/parameters.md`` are all read off it.
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
from textdifuse_ros.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """One parameter as its views need it.

    :ivar type: ``bool``, ``int``, ``float``, ``str`` or ``tuple``
    :ivar element: of a tuple ``int`` or ``float``, the type of its values
    :ivar words: whether a number, or a list, is taken as the text that it was written as
    :ivar low: smallest value allowed, or None
    :ivar high: largest value allowed, or None
    :ivar choices: the values allowed, or () for any
    :ivar live: whether a running node takes a change from the next frame on
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
    words: bool = False

    def check(self, value: Any) -> None:
        """Refuse a value of another type or outside the range.

        :raises ConfigError: names the parameter
        """
        if self.choices and value not in self.choices:
            raise ConfigError(self.name, f"one of {', '.join(map(str, self.choices))}", repr(value))
        if self.type in (int, float):
            check_number(self.name, value, self.low, self.high, self.unit, integer=self.type is int)
        elif self.type is tuple:
            if not isinstance(value, (tuple, list)) or not value:
                words = "integers" if self.element is int else "numbers"
                raise ConfigError(self.name, f"a list of {words}", repr(value))
            for item in value:
                check_number(self.name, item, self.low, self.high, self.unit, integer=self.element is int)
        elif not isinstance(value, self.type):
            names = {bool: "true or false", str: "text"}
            remedy = "put it in quotes, for YAML reads on, off, yes and no as true and false" if self.words else ""
            raise ConfigError(self.name, names[self.type], f"{value!r} ({type(value).__name__})", remedy)

    def coerce(self, value: Any) -> Any:
        """An integer where a float is due becomes one, a list a tuple, and by ``words`` either becomes text.

        All else is returned as it is.
        """
        if self.words and all(type(item) in (str, int, float) for item in _items(value)):
            return ", ".join(map(str, _items(value)))
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type is tuple and isinstance(value, (list, tuple)):
            whole = self.element is float and all(type(item) in (int, float) for item in value)
            return tuple(map(float, value)) if whole else tuple(value)
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
    words: bool = False,
) -> Any:
    """A dataclass field that carries all there is to know about a parameter.

    :param help: one sentence, ending in a full stop
    """
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "live": live, "words": words}
    return field(default=default, metadata=metadata)


def parameters(kind: type) -> list[Parameter]:
    """The parameters of a configuration dataclass, in their order."""
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
    """Check every field of a configuration.

    :raises ConfigError: the first parameter that is wrong, by name
    """
    for item in parameters(type(config)):
        item.check(getattr(config, item.name))


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "the configuration") -> T:
    """Build and check a configuration from plain values, refusing names it does not know.

    :param where: names the source in error messages
    :raises ConfigError: unknown name (with the nearest known one), wrong type, out of range
    """
    known = {item.name: item for item in parameters(kind)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "docs/parameters.md lists them all"
            raise ConfigError(f"a parameter in {where}", "a known name", repr(name), remedy)
    plain = {name: known[name].coerce(value) for name, value in values.items()}
    # Before anything is built of them: what the parameters have to do with one another is checked there.
    for name, value in plain.items():
        known[name].check(value)
    return kind(**plain)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a configuration, tuples as lists, ready for YAML or JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()
    }


def add_arguments(parser: argparse.ArgumentParser, kind: type, *, skip: tuple[str, ...] = ()) -> None:
    """Add a flag ``--name`` for each parameter; given flags land in the namespace, others stay absent."""
    for item in parameters(kind):
        if item.name in skip:
            continue
        text = item.help + (f" [{item.unit}]" if item.unit else "") + f" Default: {item.default}."
        flag = "--" + item.name.replace("_", "-")
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if item.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif item.type is tuple:
            options.update(type=item.element, nargs="+")
        else:
            options["type"] = item.type
            options["metavar"] = item.name.upper() if not item.choices else "{" + ",".join(map(str, item.choices)) + "}"
        parser.add_argument(flag, **options)


def from_arguments(kind: type[T], arguments: argparse.Namespace, **fixed: Any) -> T:
    """Build and check a configuration from the flags that were given.

    :param fixed: values that come from elsewhere than a flag
    :raises ConfigError: names the parameter
    """
    names = {item.name for item in parameters(kind)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    return from_mapping(kind, {**given, **fixed}, "the command line")


@dataclass(frozen=True)
class FuserConfig:
    """What a :class:`textdifuse_ros.fusion.fuser.Fuser` is made from."""

    model: str = parameter("drive", "Checkpoint: a name looked up in the model folders, or a path to a file.")
    device: str = parameter("auto", "Compute device: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N.")
    precision: str = parameter(
        "auto",
        "Number format of the networks: auto takes bfloat16 where the processor computes in it, else float32.",
        choices=("auto", "bfloat16", "float32"),
    )
    steps: int = parameter(4, "Reverse diffusion steps an image.", low=1, high=100, live=True)
    sampler: str = parameter(
        "ddim",
        "Rule of the reverse step: ancestral (iDDPM), ddim, or dpm_solver (second order).",
        choices=("ancestral", "ddim", "dpm_solver"),
        live=True,
    )
    seed: int = parameter(
        0,
        "Seed of the start noise; the same input, seed and weights give the same image.",
        low=0,
        high=2**31 - 1,
        live=True,
    )
    cuda_graphs: bool = parameter(
        True,
        "On CUDA, launch the computation of a size of images as one from its second image on, which takes more of "
        "the device's memory.",
    )
    threads: int = parameter(0, "Processor threads of the networks; 0 leaves the choice to PyTorch.", low=0, high=256)


@dataclass(frozen=True)
class VideoConfig:
    """How an image of a stream hangs on the one before, see :class:`textdifuse_ros.runtime.video_state.VideoState`."""

    video: bool = parameter(
        True,
        "Steady brightness and color against the fused image before, along the motion of the sources; false fuses "
        "each image for itself.",
        live=True,
    )
