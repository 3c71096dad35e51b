"""Whatever a checkpoint holds: networks, or one CheckpointError of one line, within bounded memory.

Bounded in CI; longer by ``pytest test/test_fuzz_checkpoints.py --hypothesis-profile fuzz``.
"""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdifuse_ros.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from textdifuse_ros.errors import CheckpointError
from textdifuse_ros.fusion.weights import KIND, load_networks
from textdifuse_ros.localize.weights import load_localizer

MAX_MEGABYTES = 400  # of networks of a few kilobytes, and of what PyTorch itself takes at first
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, 8, 16, 512, 1024, 2**31, 10**30]), st.floats(),
    st.text(max_size=8), st.lists(st.integers(-1, 2000), max_size=4), st.lists(st.just(1024), min_size=3, max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.safetensors"


def loaded(load: Callable[[Path], Any], path: Path) -> Any:
    """What is loaded, or None after a typed error of one bounded line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return load(path)
    except CheckpointError as error:
        assert len(str(error)) <= 4000 and "\n" not in str(error), error
        return None
    finally:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_MEGABYTES * 1024


@given(st.data())
def test_any_configuration_is_built_or_refused(good: Checkpoint, path: Path, data: st.DataObject) -> None:
    names = st.one_of(st.sampled_from(sorted(good.config)), st.text(max_size=4))
    changes = data.draw(st.dictionaries(names, VALUES, max_size=3))
    config: Any = data.draw(st.one_of(st.just({**good.config, **changes}), st.just(changes), VALUES))
    save_checkpoint(path, data.draw(st.sampled_from([KIND, "localizer"])), config, good.tensors, {})
    found = loaded(load_networks, path)
    assert found is None or all(torch.isfinite(tensor).all() for tensor in found[0].state_dict().values())
    loaded(load_localizer, path)


@given(st.data())
def test_any_tensors_are_loaded_or_refused(good: Checkpoint, path: Path, data: st.DataObject) -> None:
    tensors = dict(good.tensors)
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=3)):
        change = data.draw(st.sampled_from(["drop", "shape", "type", "value", "rename"]))
        tensor = tensors.pop(name, torch.zeros(1))
        if change == "shape":
            tensors[name] = torch.zeros(data.draw(st.lists(st.integers(0, 5), max_size=5)))
        elif change == "type":
            kinds = [torch.int8, torch.bool, torch.float64, torch.bfloat16, torch.complex64, torch.float8_e4m3fn]
            tensors[name] = tensor.to(data.draw(st.sampled_from(kinds)))
        elif change == "value":
            tensors[name] = tensor.double().fill_(data.draw(st.floats()))
        elif change == "rename":
            tensors[data.draw(st.text(max_size=8))] = tensor
    save_checkpoint(path, KIND, good.config, tensors, {})
    found = loaded(load_networks, path)
    assert found is None or all(torch.isfinite(tensor).all() for tensor in found[0].state_dict().values())


HEADERS = st.recursive(
    st.one_of(VALUES, st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "U64"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["__metadata__", "dtype", "shape", "data_offsets", "a", "kind", "config"]), inner
        ),
    ),
    max_leaves=15,
)


@given(
    st.one_of(st.binary(max_size=100), HEADERS.map(lambda header: json.dumps(header).encode())), st.binary(max_size=50)
)
def test_any_bytes_are_refused(path: Path, header: bytes, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    assert loaded(load_checkpoint, path) is None
    path.write_bytes(header)
    assert loaded(load_networks, path) is None


@given(st.dictionaries(st.sampled_from(["format", "version", "kind", "config", "provenance", "sha256", "x"]),
                       st.one_of(st.text(max_size=20), st.sampled_from(["textdifuse_ros", "1", "fusion", "{}", "[",
                       "null"]))))  # fmt: skip
def test_any_metadata_are_refused(path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path, metadata)
    assert loaded(load_networks, path) is None and loaded(load_checkpoint, path) is None
