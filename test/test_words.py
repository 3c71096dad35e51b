"""scripts/check_words keeps retired words out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_words"


def check(folder: Path) -> tuple[int, str]:
    result = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("def read_picture(path): ...", "picture"),
        ('"""So that books balance."""', "books balance"),
        ("# the stream begins anew", "begins anew"),
        ("PARTNERS = 2", "PARTNERS"),
        ('log("the camera is told of")', "is told of"),
    ],
)
def test_a_retired_word_is_found_with_its_place_and_reason(tmp_path: Path, line: str, word: str) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "some.py").write_text(f"first = 1\n{line}\n", encoding="utf-8")
    status, output = check(tmp_path)
    assert status == 1
    assert output.startswith(f"test/some.py:2: {word}: say ")


def test_published_names_and_longer_words_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("dropped: partner_missing\nAn amended bookshelf.\n", encoding="utf-8")
    assert check(tmp_path) == (0, "No retired words.\n")
