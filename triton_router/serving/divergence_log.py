"""Says in the server's log which answers differed and how, and what the inputs look like: never what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.parity.input_summary import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from triton_router.config.parity_of import Pair
    from triton_router.telemetry.kept_inputs import KeptInputs

_AT_ONCE = 3
"""Lines about one target that may come in close succession..."""
_LINE_EVERY_S = 60.0
"""... and after how many seconds there may be one more; what was not said is counted in the next line."""


class DivergenceLog:
    """Writes lines about one routed model's divergences; for one thread at a time.

    Args:
        warn: Writes a line to the server's log.
        inputs: Where diverging inputs are kept, if that is wanted; None for nowhere.

    Attributes:
        keeps_inputs: Whether that is wanted.
    """

    def __init__(self, warn: Callable[[str], None], inputs: KeptInputs | None) -> None:
        self.keeps_inputs = False
        self._warn = warn
        self._inputs = inputs
        self._lines: dict[str, tuple[float, float]] = {}
        self._unsaid: dict[str, int] = {}

    def tell(
        self, pair: Pair, problem: str, inputs: Mapping[str, NDArray[Any]], now: float, *, consequence: str = ""
    ) -> None:
        """Write a line about a divergence, unless there were many of late; what has a consequence is always told."""
        if not self._may_tell(pair.judged, now) and not consequence:
            self._unsaid[pair.judged] = self._unsaid.get(pair.judged, 0) + 1
            return
        unsaid = self._unsaid.pop(pair.judged, 0)
        also = f"; {unsaid} more since the last line" if unsaid else ""
        self._warn(
            f"target {pair.judged!r} answers differently from {pair.by!r}{consequence}: {problem}; "
            f"inputs: {in_words(inputs)}{self._kept(inputs)}{also}"
        )

    def _may_tell(self, target: str, now: float) -> bool:
        lines, at = self._lines.get(target, (_AT_ONCE, now))
        lines = min(_AT_ONCE, lines + (now - at) / _LINE_EVERY_S)
        self._lines[target] = (lines - 1.0 if lines >= 1.0 else lines, now)
        return lines >= 1.0

    def _kept(self, inputs: Mapping[str, NDArray[Any]]) -> str:
        """Keep the inputs, if that is wanted, and return where, in words."""
        if not self.keeps_inputs:
            return ""
        if self._inputs is None:
            return "; they are not kept, because the server has no state directory"
        try:
            return f"; kept in {self._inputs.keep(inputs)}"
        except OSError as error:
            return f"; they cannot be kept: {error.strerror}"
