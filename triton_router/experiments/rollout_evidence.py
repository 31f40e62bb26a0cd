"""What one instance has of a rollout, as read back: from its own state or from another instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.experiments.rollout_plan import ENDED, PHASES
from triton_router.experiments.strata import Strata
from triton_router.profiling.validation import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.experiments.rollout_plan import RolloutPlan

_MOST_PEERS = 1024


class RolloutEvidence:
    """Evidence of a rollout, checked.

    Args:
        plan: Whose evidence it must be.
        value: What was stored or sent.

    Attributes:
        phase: That instance's.
        share: Likewise.
        generation: How many changes by hand that share comes after.
        is_by_hand: Whether somebody has set that share.
        why: Why it has that share.
        is_same_canary: Whether it is of the targets that are the canary now.
        strata: What it saw.

    Raises:
        ValueError: It is another rollout's, or none at all.
    """

    __slots__ = ("generation", "is_by_hand", "is_same_canary", "phase", "share", "strata", "values", "why")

    def __init__(self, plan: RolloutPlan, value: object) -> None:
        values = State(value, "a rollout")
        self.values = values
        if values.text("id") != plan.id:
            raise ValueError(f"a rollout other than {plan.id!r}")
        self.phase = values.text("phase")
        if self.phase not in PHASES:
            raise ValueError("a rollout in a phase that there is not")
        self.share = values.number("share", 0.0, 1.0)
        self.is_by_hand = values.count("by_hand") > 0
        self.why = values.text("reason")
        self.is_same_canary = values.rows("canary") == sorted(plan.canary)
        try:
            self.generation = values.count("generation")
            self.strata = Strata.from_state(values.part("strata"), plan.id)
        except ValueError:
            if not self.has_ended:
                raise
            # An end stands without its evidence, as after an upgrade: no canary comes back because that is lost.
            self.generation, self.strata = 0, Strata(plan.id)

    @property
    def has_ended(self) -> bool:
        """Whether that instance has come to an end of it."""
        return self.phase in ENDED


def read_peers(plan: RolloutPlan, peers: Sequence[object]) -> list[RolloutEvidence | None]:
    """Return the evidence of other instances, None for what is none: reading takes up to a millisecond for each."""
    return [_read(plan, peer) for peer in peers[:_MOST_PEERS]]


def sound_peers(plan: RolloutPlan, peers: Sequence[object]) -> list[RolloutEvidence]:
    """Return the evidence of other instances, read or not, that is about this rollout; whatever else is left out."""
    read = (peer if isinstance(peer, RolloutEvidence) else _read(plan, peer) for peer in peers[:_MOST_PEERS])
    return [evidence for evidence in read if evidence is not None and evidence.is_same_canary]


def _read(plan: RolloutPlan, peer: object) -> RolloutEvidence | None:
    try:
        return RolloutEvidence(plan, peer)
    except ValueError:
        # The caller reports how many were left out: an instance that follows an older file is nothing unusual.
        return None
