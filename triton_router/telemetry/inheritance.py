"""Which profiles a routed model begins with: what snapshots hold of the very same targets, on the same machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from triton_router.config.printable import shortened
from triton_router.errors import InvalidInputError
from triton_router.profiling.profile import TargetProfile
from triton_router.telemetry.snapshot_file import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triton_router.config.router_config import TargetConfig
    from triton_router.telemetry.snapshot_file import Snapshot

_LONGEST_NAME = 100


class Inheritance(NamedTuple):
    """What is taken over.

    Attributes:
        profiles: By target; those not in it begin with what was measured at build time.
        origins: The learners whose evidence is in them.
        left: What was not taken over and why, each a sentence.
    """

    profiles: dict[str, TargetProfile]
    origins: tuple[str, ...]
    left: list[str]


def inherit(snapshots: Iterable[Snapshot], targets: Sequence[TargetConfig], machine: str | None) -> Inheritance:
    """Add up what snapshots hold of these targets.

    Args:
        snapshots: Each one's evidence counts once: one that shares an origin with an earlier one is left out.
        targets: As configured now.
        machine: Only what was learned on this kind of machine counts; None for any.

    Raises:
        InvalidInputError: A profile in them is not valid.
    """
    profiles: dict[str, TargetProfile] = {}
    origins: list[str] = []
    left: list[str] = []
    for snapshot in snapshots:
        source = f"snapshot of {shortened(snapshot.instance, _LONGEST_NAME)!r}"
        if machine is not None and snapshot.machine != machine:
            other = shortened(snapshot.machine, _LONGEST_NAME)
            left.append(f"{source}: learned on another machine ({other}, this is {machine})")
            continue
        if not set(origins).isdisjoint(snapshot.origins):
            left.append(f"{source}: its evidence is in another snapshot already")
            continue
        origins += snapshot.origins
        left += [f"{source}: {reason}" for reason in _add(snapshot, targets, profiles)]
    return Inheritance(profiles, tuple(origins), left)


def profiles_in(snapshot: Snapshot, *, expected_model: str) -> dict[str, TargetProfile]:
    """Return every profile of a snapshot.

    Raises:
        InvalidInputError: It is another model's, or a profile in it is not valid.
    """
    if snapshot.model != expected_model:
        raise InvalidInputError(
            f"the snapshot is of model {shortened(snapshot.model, _LONGEST_NAME)!r}, not of {expected_model!r}",
            hint="pass the other one",
        )
    return {name: _profile(snapshot, name) for name in snapshot.targets}


def _add(snapshot: Snapshot, targets: Sequence[TargetConfig], profiles: dict[str, TargetProfile]) -> list[str]:
    left: list[str] = []
    for settings in targets:
        state = snapshot.targets.get(settings.name)
        if state is None:
            continue
        if not state.identity.may_be(identity_of(settings)):
            left.append(f"target {settings.name!r} is another model now than when this was learned")
            continue
        profile = _profile(snapshot, settings.name)
        if not profile.is_proven:  # nothing was learned; a fresh one knows as much, and what was declared since
            continue
        if settings.name in profiles:
            profiles[settings.name].merge(profile)
        else:
            profiles[settings.name] = profile
    return left


def _profile(snapshot: Snapshot, name: str) -> TargetProfile:
    try:
        return TargetProfile.from_state(snapshot.targets[name].profile)
    except ValueError as error:
        raise InvalidInputError(
            f"the snapshot's profile of target {shortened(name, _LONGEST_NAME)!r} is not valid: {error}",
            hint="remove the snapshot",
        ) from error
