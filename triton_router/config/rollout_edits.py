"""What the commands change in ``router.yaml``: targets are pinned and added, rollouts begin, go on and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from triton_router.config.splicing import Splice

ROLLOUT, TARGETS, AB_TESTS, PARITY = "rollout", "targets", "ab_tests", "parity"


class Removed(NamedTuple):
    """What the end of a rollout takes out of the file.

    Attributes:
        targets: Their settings, as they stood.
        reference: Whether ``parity.reference`` named one of them.
    """

    targets: list[dict[str, Any]]
    reference: bool


def pin(splice: Splice, versions: Mapping[str, int]) -> None:
    """Have targets name the version of their model; those that name one already stay as they are."""
    for number, target in enumerate(splice.data[TARGETS]):
        if target["name"] in versions and target.get("version") is None:
            splice.set((TARGETS, number, "version"), versions[target["name"]])


def unpin(splice: Splice, versions: Mapping[str, int]) -> None:
    """Take back `pin`, where nobody has changed the version since."""
    for number, target in enumerate(splice.data[TARGETS]):
        if target.get("version") is not None and target["version"] == versions.get(target["name"]):
            splice.remove((TARGETS, number, "version"))


def begin(splice: Splice, rollout: Mapping[str, Any], added: Sequence[Mapping[str, Any]] = ()) -> None:
    """Add targets, and a rollout in the place of one that may be there."""
    for target in added:
        splice.append((TARGETS,), dict(target))
    splice.set((ROLLOUT,), dict(rollout))


def amend(splice: Splice, changes: Mapping[str, Any]) -> None:
    """Change keys of the rollout; None takes one out.

    Raises:
        NotFoundError: There is no rollout.
    """
    if not splice.data.get(ROLLOUT):
        raise NotFoundError("there is no rollout in router.yaml", hint="begin one with 'triton-router canary start'")
    # What is taken out goes first: the two of some pairs may not stand together.
    for key in (key for key, value in changes.items() if value is None):
        splice.remove((ROLLOUT, key))
    for key, value in changes.items():
        if value is not None:
            splice.set((ROLLOUT, key), value)


def finish(splice: Splice, lost: Collection[str]) -> Removed:
    """Take out the rollout and the targets that have lost, by name; none where all of them are to stay.

    Raises:
        NotFoundError: There is no rollout.
    """
    data = splice.data
    if not data.get(ROLLOUT):
        raise NotFoundError("there is no rollout in router.yaml", hint="'triton-router canary status' shows what is")
    gone = [target for target in data[TARGETS] if target["name"] in lost]
    splice.remove((ROLLOUT,))
    for target in gone:
        splice.remove((TARGETS, [t["name"] for t in splice.data[TARGETS]].index(target["name"])))
    return Removed(gone, _forget(splice, lost))


def stop_experiment(splice: Splice, experiment_id: str) -> None:
    """Take an experiment out of ``ab_tests``.

    Raises:
        InvalidInputError: There is none of that id.
    """
    tests = splice.data.get(AB_TESTS) or []
    ids = [test["experiment_id"] for test in tests]
    if experiment_id not in ids:
        raise InvalidInputError(
            f"there is no experiment {experiment_id!r} in router.yaml", hint=f"it has: {', '.join(ids) or 'none'}"
        )
    splice.remove((AB_TESTS,) if len(ids) == 1 else (AB_TESTS, ids.index(experiment_id)))


def _forget(splice: Splice, names: Collection[str]) -> bool:
    """Take targets that are gone out of the settings of the parity guard; return whether one was its reference."""
    parity: dict[str, Any] = splice.data.get(PARITY) or {}
    guarded = parity.get("targets")
    if guarded and set(guarded) & set(names):
        left = [name for name in guarded if name not in names]
        if left:
            splice.set((PARITY, "targets"), left)
        else:
            splice.remove((PARITY, "targets"))
    was_reference = parity.get("reference") in names
    if was_reference:
        splice.remove((PARITY, "reference"))
    return was_reference
