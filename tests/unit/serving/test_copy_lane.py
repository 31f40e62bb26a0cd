"""The lane of copies: one at a time, also where a second one follows from what the first came to."""

from __future__ import annotations

from typing import Any

from triton_router.parity.sampling import Sampling
from triton_router.serving.copy_lane import CopyLane


class Engine:
    """Has copies overdue after a tenth of a second."""

    def __init__(self) -> None:
        self.given_up: list[str] = []

    def overdue_ms(self, _: object) -> float:
        return 100.0

    def give_up(self, decision: str, _: float) -> None:
        self.given_up.append(decision)


class Held:
    """A request that is sampled."""

    is_answered = False
    taken_at = 0.0


def test_who_was_given_up_goes_on_with_nothing() -> None:
    """A copy that follows another one has the lane as the first had; once others have it, none follows."""
    engine: Any = Engine()
    lane: Any = CopyLane("comparisons", engine, Sampling(lambda: 0.5), clock=lambda: 0.0)
    one, two, three = Held(), Held(), Held()
    assert lane.hold(one, 0.0)
    lane.submit(one, lambda: None)
    lane.begin("first")
    assert lane.go_on("first", "second")
    assert not lane.hold(two, 0.05)
    assert lane.hold(two, 0.2)
    assert engine.given_up == ["second"]
    lane.submit(two, lambda: None)
    lane.begin("another")
    assert not lane.go_on("second", "third")
    lane.end("second", 0.0)
    assert not lane.hold(three, 0.05)
    lane.end("another", 0.0)
    assert lane.hold(three, 0.05)
    lane.close()
