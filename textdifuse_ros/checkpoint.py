"""Checkpoints: self-describing safetensors files.

The metadata hold ``format``, ``version``, ``kind`` (what the tensors belong to), ``config`` and ``provenance`` (JSON),
and ``sha256`` over all of these and the tensors. A file therefore loads strictly, without external flags, and any
flipped byte is detected.

Checkpoints are searched in this order: an explicit path; the folder in ``TEXTDIFUSE_MODELS``; ``models/`` beside the
checkout; ``<prefix>/share/textdifuse_ros/models`` of an installed package.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.errors import CheckpointError, ConfigError, quote, shorten

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "textdifuse_ros"
VERSION = 1
SUFFIX = ".safetensors"
AVERAGE = "average"
"""Stage name of an average in a checkpoint's history."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    :ivar kind: what the tensors belong to, for example ``fusion``
    :ivar config: JSON values from which the networks are built
    :ivar provenance: JSON values that describe how the weights were trained
    :ivar tensors: tensors by name, on the CPU, in the saved data type
    :ivar sha256: hash of kind, config, provenance and the tensors' names, types, shapes and bytes; identifies the
        weights in every output
    """

    kind: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    tensors: dict[str, Tensor]
    sha256: str


def save_checkpoint(
    path: str | Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> None:
    """Write a checkpoint; an existing file is replaced atomically.

    :param path: file to write; missing parent folders are created
    :param kind: what the tensors belong to, for example ``fusion``
    :param config: JSON values from which the networks are built
    :param tensors: tensors by name, on any device
    :param provenance: JSON values that describe how the weights were trained
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "kind": kind,
        "config": json.dumps(config, sort_keys=True),
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    metadata["sha256"] = _digest(metadata, plain)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(plain, partial, metadata)
    partial.chmod(0o644)  # safetensors writes files with mode 600, but an installed model is for every user
    partial.replace(path)


def average_checkpoints(paths: Sequence[str | Path], shares: Sequence[float], output: str | Path) -> None:
    """Write the weighted average of checkpoints of one run.

    Weights fine-tuned from a common start mostly lie in one basin of the loss, and their mean is better than each
    (Wortsman et al., "Model soups", ICML 2022). Integer tensors and the history are taken from the last checkpoint.

    :param paths: at least two checkpoints of the same kind and configuration
    :param shares: weight of each checkpoint, above 0; normalized to sum 1
    :param output: file to write
    :raises CheckpointError: a checkpoint is unreadable, or kinds or configurations differ
    :raises ConfigError: fewer than two checkpoints, or not one positive share for each
    """
    import torch

    if len(paths) < 2:
        raise ConfigError("the checkpoints to average", "two or more", len(paths))
    if len(shares) != len(paths) or not all(0 < share < math.inf for share in shares):
        raise ConfigError("the shares", f"{len(paths)} numbers above 0, one for each checkpoint", list(shares))
    loaded = [load_checkpoint(path) for path in paths]
    last = loaded[-1]
    for path, checkpoint in zip(paths, loaded, strict=True):
        shapes, expected = ({name: t.shape for name, t in one.tensors.items()} for one in (checkpoint, last))
        if (checkpoint.kind, checkpoint.config, shapes) != (last.kind, last.config, expected):
            raise CheckpointError(str(path), f"of the same kind and configuration as {paths[-1]}", "a different one")
    tensors = {}
    for name, tensor in last.tensors.items():
        if tensor.is_floating_point():
            mean = torch.zeros(tensor.shape, dtype=torch.float64)
            for share, one in zip(shares, loaded, strict=True):
                mean += share / sum(shares) * one.tensors[name].double()
            tensor = mean.to(tensor.dtype)
        tensors[name] = tensor
    entry = {"stage": AVERAGE, "of": [one.sha256 for one in loaded], "shares": list(shares)}
    provenance = {**last.provenance, "history": [*last.provenance.get("history", []), entry]}
    save_checkpoint(output, last.kind, last.config, tensors, provenance)


def load_checkpoint(
    path: str | Path, kind: str = "", shapes: Callable[[dict[str, Any]], Mapping[str, Sequence[int]]] | None = None
) -> Checkpoint:
    """Read and verify a checkpoint.

    :param path: file to read
    :param kind: required kind; empty accepts any
    :param shapes: returns the shapes by name that the tensors of a configuration have, and takes little memory for it;
        they are compared before any tensor is read. Its ConfigError refuses the configuration
    :raises CheckpointError: missing, damaged, not a checkpoint of this project, or of another kind or version; the
        tensors do not match the configuration; weights that are not finite in every precision of use
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not _is_file(path):
        raise CheckpointError(str(path), "a checkpoint file", "no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            config, provenance = _read_metadata(path, metadata, kind)
            if shapes is not None:
                found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
                _check_shapes(path, found, shapes, config)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = _digest(metadata, tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(str(path), "a readable safetensors file", error, "copy it again") from error
    if metadata.get("sha256") != digest:
        raise CheckpointError(
            str(path), f"undamaged (sha256 {metadata.get('sha256', '')[:12]}...)", f"{digest[:12]}...", "copy it again"
        )
    check_finite(tensors, path)
    return Checkpoint(metadata["kind"], config, provenance, tensors, digest)


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Check that all weights are finite numbers, also in float32 and bfloat16.

    :param tensors: tensors by name; those of integers are not checked
    :param path: of their file, for the error
    :raises CheckpointError: NaN, infinity, or too large for bfloat16; names the tensor
    """
    import torch

    largest = torch.finfo(torch.bfloat16).max
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise CheckpointError(str(path), "a checkpoint of real weights", f"complex numbers in {name}")
        if tensor.is_floating_point():
            bad = int((~(tensor.to(torch.float32).abs() <= largest)).sum())
            if bad:
                found = f"NaN, infinite or too large numbers in {name} ({bad} of {tensor.numel()})"
                remedy = "the training that made it may have diverged; use an earlier checkpoint"
                raise CheckpointError(str(path), "a checkpoint with finite weights", found, remedy)


def _read_metadata(path: Path, metadata: Mapping[str, str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check format, version and kind; return the configuration and the provenance."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(str(path), f"a checkpoint of {FORMAT}", f"format {quote(metadata.get('format'))}")
    if metadata.get("version") != str(VERSION):
        found = quote(metadata.get("version")).strip("'")
        raise CheckpointError(str(path), f"of format version {VERSION}", found, "use the release that wrote it")
    if kind and metadata.get("kind") != kind:
        raise CheckpointError(str(path), f"a checkpoint of kind {kind!r}", quote(metadata.get("kind")))
    if "kind" not in metadata:
        raise CheckpointError(str(path), "a checkpoint of some kind", "one without")
    return _read_json(path, metadata, "config"), _read_json(path, metadata, "provenance")


def _read_json(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError) as error:
        found = f"{name}: {type(error).__name__} {shorten(str(error), 200)}"
        raise CheckpointError(str(path), "a checkpoint with readable metadata", found, "copy it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} of {path}", "a mapping", f"{quote(value)} ({type(value).__name__})")
    return value


def _check_shapes(
    path: Path,
    found: Mapping[str, Sequence[int]],
    shapes: Callable[[dict[str, Any]], Mapping[str, Sequence[int]]],
    config: dict[str, Any],
) -> None:
    expected_text = "weights that fit their own configuration"
    try:
        expected = {name: list(shape) for name, shape in shapes(config).items()}
    except ConfigError as error:
        raise CheckpointError(str(path), expected_text, error) from error
    problems = [f"Missing key {quote(name)}" for name in expected if name not in found]
    problems += [f"Unexpected key {quote(name)}" for name in found if name not in expected]
    for name, shape in expected.items():
        if name in found and list(found[name]) != shape:
            problems.append(f"size mismatch of {quote(name)}: {quote(list(found[name]))} instead of {shape}")
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise CheckpointError(str(path), expected_text, "; ".join(problems[:2]) + more)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def model_folders() -> list[Path]:
    """List the folders that are searched for a model name, in order, existing or not."""
    folders = []
    if named := os.environ.get("TEXTDIFUSE_MODELS"):
        folders.append(Path(named))
    package = Path(__file__).resolve().parent
    folders.append(package.parent / "models")
    share = Path("share") / "textdifuse_ros" / "models"
    folders.append(Path(sys.prefix) / share)
    # pip --prefix and colcon install to <prefix>/[local/]lib/python3.X/{site,dist}-packages/PACKAGE, so the prefix is
    # four or five folders up.
    folders.extend(parent / share for parent in package.parents[3:5])
    return list(dict.fromkeys(folders))


def find_checkpoint(name: str | Path) -> Path:
    """Find the file of a model.

    :param name: path of a checkpoint, or a name (``drive``) to search in :func:`model_folders`
    :raises CheckpointError: not found; lists the searched folders
    """
    path = Path(name)
    if path.suffix == SUFFIX or path.parent != Path("."):
        if _is_file(path):
            return path
        raise CheckpointError(f"the model {quote(str(name))}", "a checkpoint file", "no such file")
    candidates = [folder / f"{name}{SUFFIX}" for folder in model_folders()]
    for candidate in candidates:
        if _is_file(candidate):
            return candidate
    searched = "nothing in " + ", ".join(str(candidate.parent) for candidate in candidates)
    raise CheckpointError(
        f"the model {quote(str(name))}",
        "in a model folder",
        searched,
        "give a path or set TEXTDIFUSE_MODELS",
    )


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name in ("format", "version", "kind", "config", "provenance"):
        digest.update(f"{name} {metadata.get(name)}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
