"""Which targets an engine chooses among, while they change: who stays, who joins, who leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.routing.health import Health
from triton_router.routing.protocols import Candidate, Device

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.types import Target

MAX_DEPARTED = 64
"""Targets that were removed and are still known, for what is in flight and for sequences that stay with them."""
_COUNTS = ("chosen", "succeeded", "failed", "refused", "cancelled", "mirrored", "retried", "hedged")


def candidates(
    targets: Iterable[tuple[Target, TargetProfile]],
    *,
    known: Sequence[Candidate] = (),
    kept: Collection[str] = (),
) -> list[Candidate]:
    """Return the targets as the engine considers them.

    Args:
        targets: Each with the profile that it begins with.
        known: Those that the engine has or had already, the present ones last.
        kept: Names of those that are still the same model: what is learned of them stays, whatever is in flight too,
            and the profile passed is not used.
    """
    devices = {_device_of(candidate.target): candidate.device for candidate in known}
    before = {candidate.target.name: candidate for candidate in known}
    found: list[Candidate] = []
    for target, profile in targets:
        device = devices.setdefault(_device_of(target), Device())
        earlier = before.get(target.name)
        if earlier is not None and target.name in kept:
            earlier.target, earlier.device = target, device
            found.append(earlier)
            continue
        candidate = Candidate(target, profile, Health(), device, complexity_ms=profile.complexity_ms)
        if earlier is not None:  # another model under the same name: people and metrics count on
            for count in _COUNTS:
                setattr(candidate, count, getattr(earlier, count))
        found.append(candidate)
    return found


def departed(before: Sequence[Candidate], present: Sequence[Candidate]) -> list[Candidate]:
    """Return who is gone of those before, oldest first; the longest gone without requests in flight are forgotten."""
    staying = {id(candidate) for candidate in present}
    gone = [candidate for candidate in before if id(candidate) not in staying]
    surplus = len(gone) - MAX_DEPARTED
    return [candidate for at, candidate in enumerate(gone) if at >= surplus or candidate.in_flight]


def devices_of(members: Iterable[Candidate]) -> list[Device]:
    """Return the devices of some targets, each once."""
    return list({id(candidate.device): candidate.device for candidate in members}.values())


def _device_of(target: Target) -> object:
    return target.device or target.backend
