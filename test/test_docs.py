"""Documents that are made from the code are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_parameters_page_is_what_the_fields_say() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "parameters_page")], capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8"), (
        "run scripts/parameters_page > docs/parameters.md"
    )
