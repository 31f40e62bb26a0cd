"""What the instances of a routed model have found of its targets' answers, in the state directory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from triton_router.telemetry.instance_files import InstanceFiles, InstanceState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST_TARGETS = 256

_ShortText = Annotated[str, Field(max_length=512)]


class VerdictState(InstanceState):
    """What one instance has found.

    Attributes:
        verdicts: As `ParityVerdict.state` gives them, by target.
    """

    format: Literal["triton-router verdicts"] = "triton-router verdicts"
    verdicts: Annotated[dict[_ShortText, dict[str, Any]], Field(max_length=_MOST_TARGETS)]


class VerdictFiles:
    """The files of one instance.

    Args:
        path: The state directory; made when it is needed.
        model: Name of the routed model.
        host: Name of this host.
    """

    def __init__(self, path: Path, model: str, host: str) -> None:
        self._files = InstanceFiles(VerdictState, ".verdicts", path, model, host)
        self._model = model

    def claim(self) -> Mapping[str, dict[str, Any]]:
        """Take a file that no other process holds, and return what it says of each target.

        Raises:
            OSError: None can be had.
        """
        state = self._files.claim()
        return state.verdicts if state is not None else {}

    def save(self, verdicts: Mapping[str, dict[str, Any]]) -> None:
        """Replace this instance's file. Raises OSError or ValueError: the old one is still whole."""
        self._files.save(VerdictState(model=self._model, written_at=time.time(), verdicts=dict(verdicts)))

    def others(self) -> list[Mapping[str, dict[str, Any]]]:
        """Return what the other instances have found, those that have ended included."""
        return [state.verdicts for state in self._files.others()]

    def problems(self) -> list[str]:
        """Return, once, what could not be used of what lies there, each a sentence."""
        found, self._files.problems = self._files.problems, []
        return found

    def close(self) -> None:
        """Leave the file to the next."""
        self._files.close()
