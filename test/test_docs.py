"""The documents agree with the code and with each other: parameters, links and commands."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from textdifuse_ros.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").glob("*.md")]
)
PROGRAM = re.compile(r"(?:^|\s)(?:textdifuse|textdifuse_ros\.cli\.main) (.*)")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the tests run outside the source tree")


def pages(*exclude: str) -> pytest.MarkDecorator:
    """Run a test for each page."""
    chosen = [page for page in PAGES if page.name not in exclude]
    return pytest.mark.parametrize("page", chosen, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub derives from the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[str]:
    """The arguments of every ``textdifuse`` command in the code blocks and code spans of a page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    blocks += re.findall(r"(?:^ {4}.*\n?)+", text, re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`(textdifuse [^`]+)`", text)]
    return [match[1] for line in lines + spans for match in PROGRAM.finditer(line)]


def unknown_flags(command: str) -> list[str]:
    """The verb of a command, where there is no such verb, and its flags that the verb's parser does not have."""
    parser: argparse.ArgumentParser = build_parser()
    words = shlex.split(command, comments=True)
    while words:
        verbs = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
        if verbs is None or words[0].startswith("-"):
            break
        if words[0] not in verbs.choices:
            return [words[0]]
        parser = verbs.choices[words.pop(0)]
    flags = [word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    return [flag for flag in flags if flag not in parser._option_string_actions]


def test_the_parameters_page_matches_the_fields() -> None:
    printed = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "parameters_page")], capture_output=True, text=True, check=True
    ).stdout
    assert printed == (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8"), (
        "run scripts/parameters_page > docs/parameters.md"
    )


@pages()
def test_relative_links_lead_to_existing_files_and_headings(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8").replace("\n", "")):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pages("parameters.md")
def test_commands_use_existing_verbs_and_flags(page: Path) -> None:
    found = commands(page.read_text(encoding="utf-8"))
    assert {command: unknown for command in found if (unknown := unknown_flags(command))} == {}


def test_an_unknown_verb_or_flag_in_a_code_block_is_found() -> None:
    indented = "    textdifuse fuze a b\n\n"
    fenced = "```sh\ntextdifuse fuse a b \\\n    --speed 3 -o out\n```\n"
    text = indented + fenced + "A span: `textdifuse info --jason`.\n"
    assert [unknown_flags(command) for command in commands(text)] == [["--speed"], ["fuze"], ["--jason"]]
