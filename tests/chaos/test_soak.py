"""The short form of ``scripts/bench soak``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.soak import Soak
from benchmarks.soak_faults import Plan
from benchmarks.soak_report import print_markdown
from tests.chaos.conftest import TARGETS

if TYPE_CHECKING:
    from triton_router.testing.chaos import Chaos

pytestmark = pytest.mark.triton


def test_a_short_soak(chaos: Chaos) -> None:
    """Random faults beside 40 clients: no hang, no lost, doubled or wrong answer, nothing in flight at the end."""
    faults = ("target fails", "target raises", "target hangs", "out of memory", "target slow", "clients leave")
    report = Soak(chaos, Plan(6.0, TARGETS, clients=40, faults=faults, seed=1)).run()
    print_markdown(report)
    assert not report.problems
    assert report.asked == report.answered > 1000
    assert set(report.in_flight.values()) == {0}
