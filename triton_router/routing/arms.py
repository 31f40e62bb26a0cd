"""Arms: which of the targets a request is chosen among, where requests are split between targets.

Unlike a constraint, an arm gives way: a request does not fail because nobody of its arm is in a state to serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from triton_router.routing.types import Rejection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.routing.protocols import Candidate


@dataclass(frozen=True, slots=True)
class Arm:
    """Some of the targets.

    Attributes:
        names: Names of targets.
        is_inside: Whether these are the arm; if not, all others are.
        reason: Why a target that is not in it is rejected.
    """

    names: frozenset[str]
    is_inside: bool
    reason: str

    def has(self, target: str) -> bool:
        """Return whether a target of this name is in it."""
        return (target in self.names) is self.is_inside

    def divides(self, rejections: Sequence[Rejection]) -> bool:
        """Return whether a choice was made within the arm while others could have served: what these were told."""
        return any(rejection.reason == self.reason for rejection in rejections)


class Roles(NamedTuple):
    """What targets are there for.

    Attributes:
        barred: Those that get no client's request, by name, and why.
        steady: Arm of all requests that are not assigned to another, and of attempts after the first.
        judged: Names of those that somebody is to judge within seconds: they never rest for long when they fail.
    """

    barred: Mapping[str, str] = {}
    steady: Arm | None = None
    judged: frozenset[str] = frozenset()


JUDGED_PAUSE_S = 0.25
"""Longest rest of a target that is judged: one request at a time, which a retry saves, goes on finding out."""
NO_ROLES = Roles()
"""All serve all."""


def within(
    arm: Arm, candidates: list[Candidate], rejections: list[Rejection], *, otherwise: Arm | None = None
) -> list[Candidate]:
    """Return who of the candidates is in an arm, and add the others to ``rejections``.

    Where nobody is, those are returned who are in the ``otherwise`` one; where nobody is in that either, all of them.
    """
    kept = [candidate for candidate in candidates if arm.has(candidate.target.name)]
    if not kept and otherwise is not None and otherwise is not arm:
        return within(otherwise, candidates, rejections)
    if not kept or len(kept) == len(candidates):
        return candidates
    rejections.extend(Rejection(c.target, arm.reason) for c in candidates if not arm.has(c.target.name))
    return kept
