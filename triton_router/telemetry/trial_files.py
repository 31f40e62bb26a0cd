"""What the instances of a routed model know of its rollouts and experiments, in the state directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from triton_router.telemetry.instance_files import InstanceFiles, InstanceState
from triton_router.telemetry.state_directory import stem_of

if TYPE_CHECKING:
    from pathlib import Path

MOST_KNOWN = 8
"""Rollouts that are remembered, the latest, and as many experiments: one that comes back is where it was."""

_ShortText = Annotated[str, Field(max_length=512)]
_Known = Annotated[dict[_ShortText, dict[str, Any]], Field(max_length=MOST_KNOWN)]


class TrialState(InstanceState):
    """What one instance knows.

    Attributes:
        rollouts: The state of each, by its id, the latest last.
        experiments: Likewise.
    """

    format: Literal["triton-router trials"] = "triton-router trials"
    rollouts: _Known = Field(default_factory=dict[str, dict[str, Any]])
    experiments: _Known = Field(default_factory=dict[str, dict[str, Any]])


class TrialFiles(InstanceFiles[TrialState]):
    """The files of one instance; see `InstanceFiles`.

    Args:
        path: The state directory.
        model: Name of the routed model.
        host: Name of this host.
    """

    def __init__(self, path: Path, model: str, host: str) -> None:
        super().__init__(TrialState, ".trials", path, model, host)
        self._of_model = model

    @property
    def audit_log(self) -> Path:
        """Where changes of rollouts are written down."""
        return audit_log_of(self.path, self._of_model)


def audit_log_of(path: Path, model: str) -> Path:
    """Return where changes of a routed model's rollouts are written down, in a state directory."""
    return path / f"{stem_of(model)}.rollouts.jsonl"
