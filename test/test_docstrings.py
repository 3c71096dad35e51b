"""Every public function, method and class says what each of its arguments is (CONTRIBUTING.md, docstrings).

What many functions of a module take alike may be described once, in ``backticks``, in the docstring of the module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import textdifuse_ros

ROOT = Path(textdifuse_ros.__file__).parent
COMPLETE = (
    "bags",
    "checkpoint.py",
    "checks.py",
    "cli",
    "config",
    "data",
    "demo",
    "diffusion",
    "errors.py",
    "evaluate",
    "fusion",
    "image",
    "localize",
    "metrics",
    "networks",
    "nodes",
    "offline",
    "runtime",
    "scenes",
    "sensors.py",
    "sync",
    "train",
)
"""Modules and packages whose docstrings are complete."""

EXEMPT = {"configure", "run", "main"}
"""The three functions of every command-line verb; see cli/main.py. rclpy's ``on_...`` callbacks are exempt, too."""


def python_files() -> list[Path]:
    return sorted(
        path for name in COMPLETE for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    )


def arguments_of(function: ast.FunctionDef) -> list[str]:
    spec = function.args
    names = [item.arg for item in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg) if item]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def missing(body: list[ast.stmt], prefix: str = "", common: str = "") -> Iterator[str]:
    """What is documented nowhere: ``name: argument`` of public functions; of a class those of its constructor."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            text = common + (ast.get_docstring(node) or "")
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    text += ast.get_docstring(item) or ""
                    yield from undocumented(item, text, f"{prefix}{node.name}")
            yield from missing(node.body, f"{prefix}{node.name}.", common)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if (not prefix and node.name in EXEMPT) or node.name.startswith("on_"):
                continue
            is_property = any(
                "property" in ast.unparse(item) or "setter" in ast.unparse(item) for item in node.decorator_list
            )
            text = ast.get_docstring(node) or ""
            if not text:
                yield f"{prefix}{node.name}: no docstring"
            elif not is_property and not (text.startswith("See :") and "\n" not in text):
                yield from undocumented(node, common + text, f"{prefix}{node.name}")


def undocumented(function: ast.FunctionDef, text: str, name: str) -> list[str]:
    return [f"{name}: {item}" for item in arguments_of(function) if not re.search(rf"\b{item}\b", text)]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_public_docstrings_name_every_argument(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    common = " ".join(re.findall("``[a-z_]+``", ast.get_docstring(module) or ""))
    assert list(missing(module.body, common=common)) == []


def test_an_argument_that_is_not_documented_is_found() -> None:
    code = 'def f(a, b):\n    """Take ``a``."""\n\nclass C:\n    """:param x: it"""\n    def __init__(self, x, y): ...'
    assert list(missing(ast.parse(code).body)) == ["f: b", "C: y"]
