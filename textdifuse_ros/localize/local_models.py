"""Pretrained models in transformers' format from a local folder; nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from textdifuse_ros.checkpoint import model_folders
from textdifuse_ros.errors import CheckpointError, ConfigError

PAGE = "docs/text.md says what to fetch and where to put it"


def find_model(parameter: str, name: str) -> Path:
    """Find the folder or file of a pretrained model, by path or by name within a model folder.

    :param parameter: that names the model, for errors
    :param name: value of the parameter
    :raises ConfigError: no name
    :raises CheckpointError: not found; the message lists the places
    """
    if not name:
        raise ConfigError(parameter, "a folder with pretrained weights", "nothing", PAGE)
    candidates = [Path(name).expanduser(), *(folder / name for folder in model_folders())]
    for path in candidates:
        if path.exists():
            return path
    places = ", ".join(map(str, candidates))
    raise CheckpointError(f"the model {name!r} ({parameter})", "an existing folder or file", f"none at {places}", PAGE)


def read_model_type(folder: Path, parameter: str, known: tuple[str, ...]) -> str:
    """Read the ``model_type`` in the configuration of a model.

    :param folder: of the model
    :param parameter: that names the folder, for errors
    :param known: accepted types
    :raises ConfigError: transformers is not installed
    :raises CheckpointError: no configuration, or a type that is not accepted
    """
    transformers = import_transformers(parameter)
    if not (folder / "config.json").is_file():
        what = f"the folder {folder} ({parameter})"
        raise CheckpointError(what, "a model in transformers' format", "one without config.json", PAGE)
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, parameter, error) from error
    kind = str(config.get("model_type"))
    if kind not in known:
        raise CheckpointError(f"the model in {folder} ({parameter})", f"one of {', '.join(known)}", kind, PAGE)
    return kind


def load_model(model_class: Any, folder: Path, parameter: str, device: torch.device) -> nn.Module:
    """Load a model with all its weights, as float32, for inference.

    :param model_class: a class of transformers with ``from_pretrained``
    :param folder: of the model
    :param parameter: that names the folder, for errors
    :param device: of the result
    :raises CheckpointError: unreadable, or incomplete; transformers itself would initialize missing tensors randomly
    """
    try:
        model, report = model_class.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unreadable(folder, parameter, error) from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        some = ", ".join(missing[:3])
        raise CheckpointError(
            f"the weights in {folder} ({parameter})", "complete", f"{len(missing)} tensors missing ({some})", PAGE
        )
    return model.eval().requires_grad_(False).to(device)


def load_processor(processor_class: Any, folder: Path, parameter: str) -> Any:
    """Load the image processor, the tokenizer, or both, of a model.

    :param processor_class: a class of transformers with ``from_pretrained``
    :param folder: of the model
    :param parameter: that names the folder, for errors
    :raises CheckpointError: files are missing or damaged
    """
    try:
        return processor_class.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise _unreadable(folder, parameter, error) from error


def import_transformers(parameter: str) -> Any:
    """Import transformers and turn its progress bars and warnings off.

    :param parameter: that requires it, for errors
    :raises ConfigError: not installed
    """
    try:
        import transformers
    except ImportError as error:
        remedy = "pip install 'transformers>=5', or use another localizer"
        raise ConfigError(parameter, "used with the package transformers installed", error, remedy) from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _unreadable(folder: Path, parameter: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:300]
    return CheckpointError(f"the model in {folder} ({parameter})", "loadable", reason, PAGE)
