"""``--help``: one screen and an example that is accepted; ``--help-all``: every option."""

from __future__ import annotations

import re
import shlex

import pytest

from textdifuse_ros.cli.help import EXAMPLES
from textdifuse_ros.cli.main import build_parser, main


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_every_verb_has_an_example() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["no-such-verb"])
    verbs = {name for action in build_parser()._actions for name in getattr(action, "choices", None) or ()}
    assert set(EXAMPLES) == verbs


@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_help_of_a_verb_fits_one_screen_and_ends_with_its_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, verb, "--help")
    assert text.count("\n") <= (65 if verb == "evaluate" else 50), "evaluate has forty options of its own"
    assert f"example: {EXAMPLES[verb]}" in " ".join(text.split())


@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_example_is_accepted(verb: str) -> None:
    words = shlex.split(EXAMPLES[verb])
    assert words[:2] == ["textdifuse", verb]
    build_parser().parse_args(words[1:])


@pytest.mark.parametrize("verb", ["fuse", "bag", "evaluate"])
def test_every_option_is_named_in_the_short_help_and_explained_in_the_long(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short, full = shown(capsys, verb, "--help"), shown(capsys, verb, "--help-all")
    options = set(re.findall(r"^  (?:-\w \w+, )?(--[a-z-]+)", full, re.M))
    assert options >= {"--help-all", "--steps", "--params-file"} - ({"--params-file"} if verb == "evaluate" else set())
    assert options <= set(re.findall(r"--[a-z-]+", short))
    assert "Reverse diffusion steps" in full and "Reverse diffusion steps" not in short
    assert shown(capsys, verb, "--help") == short, "the long help does not change the short one"
