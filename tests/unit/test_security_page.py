"""The threat model rests on tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"


def test_every_test_that_the_page_names_exists() -> None:
    """A claim whose test was renamed or removed is a claim without one."""
    named = set(re.findall(r"`(tests/[^`]+)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 15
    assert {name for name in named if not (ROOT / name).is_file()} == set()
