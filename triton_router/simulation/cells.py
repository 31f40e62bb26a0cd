"""Very many targets: cells, each with an engine of its own, and a front that picks a cell.

The front knows of each cell only how many requests it has in flight. It draws two and takes the less loaded one
(Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001), which keeps thousands of cells even; the
engine of a cell then chooses among its few dozen targets as it always does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.routing.types import Outcome
    from triton_router.simulation.contenders import Choice, Contender
    from triton_router.simulation.traffic import Request


class Cells:
    """A contender made of contenders.

    Args:
        cells: The contender of each cell, with its number of targets and their indexes in the fleet.
        rng: Uniform numbers in [0, 1).
    """

    def __init__(self, cells: Sequence[tuple[Contender, Sequence[int]]], rng: Callable[[], float]) -> None:
        self._cells = [cell for cell, _ in cells]
        self._sizes = [len(members) for _, members in cells]
        self._cell_of = {target: number for number, (_, members) in enumerate(cells) for target in members}
        self._load = [0] * len(cells)
        self._rng = rng

    @property
    def in_flight(self) -> int:
        """See `Contender`."""
        return sum(cell.in_flight for cell in self._cells)

    def choose(self, request: Request, now: float) -> Choice:
        """See `Contender`."""
        first, second = int(self._rng() * len(self._cells)), int(self._rng() * len(self._cells))
        chosen = min(first, second, key=lambda cell: self._load[cell] / self._sizes[cell])
        self._load[chosen] += 1
        return self._cells[chosen].choose(request, now)

    def finish(self, choice: Choice, outcome: Outcome, now: float) -> None:
        """See `Contender`."""
        cell = self._cell_of[choice.target]
        self._load[cell] -= 1
        self._cells[cell].finish(choice, outcome, now)

    def again(self, choices: Sequence[Choice], now: float) -> Choice | None:
        """See `Contender`: in the same cell."""
        cell = self._cell_of[choices[0].target]
        another = self._cells[cell].again(choices, now)
        if another is not None:
            self._load[cell] += 1
        return another

    def mirror(self, choice: Choice) -> Choice | None:
        """See `Contender`."""
        cell = self._cell_of[choice.target]
        copy = self._cells[cell].mirror(choice)
        if copy is not None:
            self._load[cell] += 1
        return copy
