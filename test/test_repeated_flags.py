"""A flag that is given twice is honored or refused, never silently overridden."""

from __future__ import annotations

import contextlib

import pytest

from textdifuse_ros.cli.main import build_parser, main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "1", "--steps", "2"], "--steps must be given once, got it twice"),
        (["--steps=1", "--steps=1"], "--steps must be given once, got it twice"),
        (["--text", "car", "--text", "person"], "--text must be given once"),
        (["--model", "drive", "--seed", "3", "--model", "quality"], "--model must be given once"),
        (["--cuda-graphs", "--no-cuda-graphs"], "one of --cuda-graphs and --no-cuda-graphs must be given, got both"),
    ],
)
def test_a_second_value_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["fuse", "a.png", "b.png", "-o", "out"], ["bag", "in", "out"]):
        with pytest.raises(SystemExit) as caught:
            main([*verb, *arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_the_same_switch_twice_means_what_it_says() -> None:
    assert build_parser().parse_args(["bag", "in", "out", "--no-cuda-graphs", "--no-cuda-graphs"]).cuda_graphs is False


def test_each_parameter_file_counts() -> None:
    given = build_parser().parse_args(["bag", "in", "out", "--params-file", "a", "--params-file", "b"])
    assert [str(path) for path in given.params_file] == ["a", "b"]


def test_a_value_of_any_length_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--steps", "9" * 100_000], ["--sampler", "x" * 100_000], ["--unknown" * 10_000]):
        with contextlib.suppress(SystemExit):
            assert main(["bag", "in", "out", *arguments]) == 2
        assert 0 < len(capsys.readouterr().err) < 600
    assert main(["fuse", "a.png", "b.png", "-o", "out", "--model", "x" * 100_000]) == 2
    assert len(capsys.readouterr().err) < 600
