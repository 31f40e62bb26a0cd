"""How tables and JSON are printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from triton_router.cli.output import print_json, print_table

if TYPE_CHECKING:
    import pytest


def test_columns_are_aligned_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Each column is as wide as its widest cell, a column of numbers is aligned right, no line ends in blanks."""
    print_table(["name", "count", "note"], [["a", 5, "x"], ["longer", 100, ""]])
    assert capsys.readouterr().out == "NAME    COUNT  NOTE\na           5  x\nlonger    100\n"


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list still says which columns it would have."""
    print_table(["model", "state"], [])
    assert capsys.readouterr().out == "MODEL  STATE\n"


def test_json_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for machines parses to what was given, letters beyond ASCII included."""
    value = {"models": [{"name": "é", "versions": [1, 2]}]}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value
