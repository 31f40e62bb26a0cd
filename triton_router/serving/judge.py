"""Who is told how the answers of two targets to the same request differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from triton_router.config.parity_of import Pair
    from triton_router.parity.difference import Difference


class Judge(Protocol):
    """Who is told what was found; `ParityGuard`."""

    def judges(self, target: str) -> bool:
        """Whether a target of a rollout is to be compared with stable now."""
        ...

    def note(self, pair: Pair, found: Difference, problem: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Note how two answers to the same inputs differ, and what of that is beyond the tolerance, or ""."""
        ...

    def note_failed(self, pair: Pair) -> None:
        """Note that there was nothing to compare: a copy was not answered, or an answer cannot be read."""
        ...


class _Nobody:
    def judges(self, target: str) -> bool:  # noqa: ARG002 - it holds for all of them
        """Return that nobody waits for it."""
        return False

    def note(self, pair: Pair, found: Difference, problem: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Pass it over."""

    def note_failed(self, pair: Pair) -> None:
        """Pass it over."""


NOBODY: Judge = _Nobody()
"""A judge that passes everything over."""
