"""Remembers which target holds which sequence's state, for when the routed model is loaded afresh or its process dies.

Without that every running sequence would end there, though its state is still in the target.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from triton_router.errors import RequestError
from triton_router.routing.peers import target_key
from triton_router.sharing.owners import process, this_process
from triton_router.sharing.place import MEMORY
from triton_router.sharing.sequence_file import SequenceFile, sequence_place, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from triton_router.routing.engine import RoutingEngine
    from triton_router.routing.types import Target


class Places(Protocol):
    """What remembers where sequences are."""

    def holder(self, correlation_id: int | str) -> Target | None:
        """Return the target that holds a sequence's state; None if it is not known.

        Raises:
            RequestError: It is not one of the routed model's any more.
        """
        ...

    def note(self, correlation_id: int | str, target: Target) -> None:
        """Remember where a sequence is. Never raises."""
        ...

    def forget(self, correlation_id: int | str) -> None:
        """Forget a sequence that has ended. Never raises."""
        ...

    def close(self) -> None:
        """Leave what is remembered to the next instance. Never raises."""
        ...


class Nowhere(Places):
    """Remembers nothing."""

    def holder(self, correlation_id: int | str) -> Target | None:
        """See `Places.holder`."""

    def note(self, correlation_id: int | str, target: Target) -> None:
        """See `Places.note`."""

    def forget(self, correlation_id: int | str) -> None:
        """See `Places.forget`."""

    def close(self) -> None:
        """See `Places.close`."""


class SequencePlaces(Places):
    """Remembers in a file, and serves without it where it cannot be used, which is said once.

    Args:
        file: Where.
        targets: Returns those of the routed model.
        warn: Writes a line to the server's log.
    """

    def __init__(
        self, file: SequenceFile, targets: Callable[[], Iterable[Target]], warn: Callable[[str], None]
    ) -> None:
        self._file = file
        self._targets = targets
        self._warn = warn
        self._has_warned = False

    def holder(self, correlation_id: int | str) -> Target | None:
        """See `Places.holder`."""
        try:
            key = self._file.find(correlation_id)
        except OSError as error:
            self._fail(error)
            return None
        if key is None:
            return None
        for target in self._targets():
            # That the version is written down now which was served then moves nothing.
            if key in {target_key(target), target_key(replace(target, version=None))}:
                return target
        self.forget(correlation_id)
        raise RequestError(
            f"the target that holds the state of sequence {correlation_id!r} is not one of the routed model's any more",
            hint="begin the sequence anew",
        )

    def note(self, correlation_id: int | str, target: Target) -> None:
        """See `Places.note`."""
        try:
            self._file.put(correlation_id, target_key(target), time.monotonic_ns())
        except OSError as error:
            self._fail(error)

    def forget(self, correlation_id: int | str) -> None:
        """See `Places.forget`."""
        try:
            self._file.drop(correlation_id)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """See `Places.close`."""
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"where sequences are cannot be remembered: {error.strerror or error}; those that run when the model "
                "is loaded afresh, or its process dies, have to begin anew"
            )


def remembered_places(model: str, engine: RoutingEngine, server: int, warn: Callable[[str], None]) -> Places:
    """Return what remembers where a routed model's sequences are.

    Args:
        model: Its name.
        engine: Knows its targets.
        server: Process id of the server that it belongs to.
        warn: Writes a line to the server's log.
    """

    def targets() -> list[Target]:
        return [seen.target for seen in engine.snapshot(time.monotonic()) if not seen.removed]

    try:
        me = this_process(server)
    except OSError as error:
        warn(f"running sequences have to begin anew when the model is loaded afresh: {error}")
        return Nowhere()
    file = sequence_place(model, process(server)._replace(namespace=me.namespace), MEMORY)
    sweep(file.parent, me)
    return SequencePlaces(SequenceFile(file), targets, warn)
