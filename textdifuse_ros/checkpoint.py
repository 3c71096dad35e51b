"""One file format for weights: safetensors that tells what it is.

The header's metadata carry ``format`` (this project's mark), ``version``, ``kind`` (what the tensors belong to),
``config`` and ``provenance`` (JSON) and ``sha256`` over all of these and the tensors, so that a file loads strictly,
with no flags from outside, and a flipped byte is noticed wherever it is.

Weights are searched in this order: an explicit path; the folder that ``TEXTDIFUSE_MODELS`` names; ``models/`` beside
the checkout; ``<prefix>/share/textdifuse_ros/models``, where an installed package keeps them.
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
"""Stage, in a checkpoint's history, of what was averaged."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of one file.

    :ivar kind: what the tensors belong to, for example ``fusion``
    :ivar config: plain values from which the networks are built
    :ivar provenance: how the weights came about; plain values
    :ivar tensors: by name, on the CPU, in the precision they were saved in
    :ivar sha256: of kind, config, provenance and the tensors' names, types, shapes and bytes; names the weights in
        every output
    """

    kind: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    tensors: dict[str, Tensor]
    sha256: str


def save_checkpoint(
    path: str | Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> None:
    """Write a checkpoint; an existing file is replaced as a whole or not at all.

    :param config: JSON-able values
    :param provenance: JSON-able values
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
    partial.chmod(0o644)  # safetensors makes files that only their owner may read; an installed model is for every user
    partial.replace(path)


def average_checkpoints(paths: Sequence[str | Path], shares: Sequence[float], output: str | Path) -> None:
    """Average the weights of checkpoints of one descent, tensor by tensor.

    Weights that were trained on from common ones mostly lie in one valley of the loss, and their mean errs less than
    either (Wortsman et al., "Model soups", ICML 2022). Integers and the history are the last one's.

    :param paths: two or more, of one kind and configuration
    :param shares: one a checkpoint, above 0; what counts is their ratio
    :raises CheckpointError: unreadable, or of different kinds or configurations
    :raises ConfigError: not two or more, or shares that do not go with them
    """
    import torch

    if len(paths) < 2:
        raise ConfigError("the checkpoints to average", "two or more", len(paths))
    if len(shares) != len(paths) or not all(0 < share < math.inf for share in shares):
        raise ConfigError("the shares", f"{len(paths)} numbers above 0, one a checkpoint", list(shares))
    loaded = [load_checkpoint(path) for path in paths]
    last = loaded[-1]
    for path, checkpoint in zip(paths, loaded, strict=True):
        shapes, due = ({name: t.shape for name, t in one.tensors.items()} for one in (checkpoint, last))
        if (checkpoint.kind, checkpoint.config, shapes) != (last.kind, last.config, due):
            raise CheckpointError(str(path), f"of the same kind and configuration as {paths[-1]}", "another")
    tensors = {}
    for name, tensor in last.tensors.items():
        if tensor.is_floating_point():
            mean = torch.zeros(tensor.shape, dtype=torch.float64)
            for share, one in zip(shares, loaded, strict=True):
                mean += share / sum(shares) * one.tensors[name].double()
            tensor = mean.to(tensor.dtype)
        tensors[name] = tensor
    made = {"stage": AVERAGE, "of": [one.sha256 for one in loaded], "shares": list(shares)}
    provenance = {**last.provenance, "history": [*last.provenance.get("history", []), made]}
    save_checkpoint(output, last.kind, last.config, tensors, provenance)


def load_checkpoint(path: str | Path, kind: str = "") -> Checkpoint:
    """Read a checkpoint and check all that can be checked without building its networks.

    :param kind: the kind that is due; empty takes any
    :raises CheckpointError: missing, no safetensors, not this project's, another kind or version, damaged
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
        raise CheckpointError(str(path), "a readable safetensors file", error, "copy or train it again") from error
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
    """The folders in which a model's name is looked up, in order, whether they exist or not."""
    folders = []
    if named := os.environ.get("TEXTDIFUSE_MODELS"):
        folders.append(Path(named))
    package = Path(__file__).resolve().parent
    folders.append(package.parent / "models")
    share = Path("share") / "textdifuse_ros" / "models"
    folders.append(Path(sys.prefix) / share)
    # A prefix installation (pip --prefix, colcon) keeps <prefix>/[local/]lib/python3.X/{site,dist}-packages/PACKAGE,
    # colcon --symlink-install <prefix>/build links to the checkout: four or five folders up is the prefix.
    folders.extend(parent / share for parent in package.parents[3:5])
    return list(dict.fromkeys(folders))


def find_checkpoint(name: str | Path) -> Path:
    """The file of a model given by path or by name (``drive``).

    :raises CheckpointError: nowhere found; says where it was looked for
    """
    path = Path(name)
    if path.suffix == SUFFIX or path.parent != Path("."):
        if path.is_file():
            return path
        raise CheckpointError(f"the model {str(name)!r}", "a checkpoint file", "no such file")
    places = [folder / f"{name}{SUFFIX}" for folder in model_folders()]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place.parent) for place in places)
    raise CheckpointError(
        f"the model {str(name)!r}", "in a model folder", f"nothing in {looked}", "give a path or set TEXTDIFUSE_MODELS"
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
