"""How tables and JSON are printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from triton_router.cli.output import print_error, print_json, print_table
from triton_router.errors import ConfigError

if TYPE_CHECKING:
    import pytest

HOSTILE = "\x1b[2J\x9b1m\r\u202egnp\ud800\x7f\u2028\U000e0041"
"""Clears a screen, colours, overwrites a line, turns text round, hides it: what a model's name may try."""


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


def test_nothing_that_is_printed_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and reasons come from files, servers and logs of others."""
    print_table(["name", "state"], [[HOSTILE, "READY"]])
    print_json({HOSTILE: [HOSTILE]})
    print_error(ConfigError(f"one {HOSTILE}\nand two", hint=f"look at {HOSTILE}"))
    out, err = capsys.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    assert err.count("\n") == 3
    assert json.loads(out.split("\n", 2)[2]) == {HOSTILE: [HOSTILE]}
