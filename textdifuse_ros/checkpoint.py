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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.errors import CheckpointError, ConfigError

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


def load_checkpoint(path: str | Path, kind: str = "") -> Checkpoint:
    """Read and verify a checkpoint.

    :param path: file to read
    :param kind: required kind; empty accepts any
    :raises CheckpointError: missing, damaged, not a checkpoint of this project, or of another kind or version
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(str(path), "a checkpoint file", "no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(str(path), "a readable safetensors file", error, "copy it again") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(str(path), f"a checkpoint of {FORMAT}", f"format {metadata.get('format')!r}")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            str(path), f"of format version {VERSION}", metadata.get("version"), "use the release that wrote it"
        )
    if kind and metadata.get("kind") != kind:
        raise CheckpointError(str(path), f"a checkpoint of kind {kind!r}", repr(metadata.get("kind")))
    digest = _digest(metadata, tensors)
    if metadata.get("sha256") != digest:
        raise CheckpointError(
            str(path), f"undamaged (sha256 {metadata.get('sha256', '')[:12]}...)", f"{digest[:12]}...", "copy it again"
        )
    try:
        config, provenance = json.loads(metadata["config"]), json.loads(metadata["provenance"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(str(path), "a checkpoint with readable metadata", error, "copy it again") from error
    return Checkpoint(metadata["kind"], config, provenance, tensors, digest)


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
        if path.is_file():
            return path
        raise CheckpointError(f"the model {str(name)!r}", "a checkpoint file", "no such file")
    candidates = [folder / f"{name}{SUFFIX}" for folder in model_folders()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    searched = "nothing in " + ", ".join(str(candidate.parent) for candidate in candidates)
    raise CheckpointError(
        f"the model {str(name)!r}",
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
