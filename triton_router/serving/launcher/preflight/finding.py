"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from triton_router.config.printable import printable


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that would hurt later.

    Attributes:
        level: ``error`` keeps the server from starting, ``warning`` does not.
        what: What is the matter.
        why: What would happen.
        hint: What to do.
    """

    level: Literal["error", "warning"]
    what: str
    why: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        # The names of files and models are others' text, and may break a line.
        return f"{self.level}: {printable(self.what)}: {printable(self.why)}\nhint: {printable(self.hint)}"


def error(what: str, why: str, hint: str) -> Finding:
    """Return a finding that keeps the server from starting."""
    return Finding("error", what, why, hint)


def warning(what: str, why: str, hint: str) -> Finding:
    """Return a finding that is only said."""
    return Finding("warning", what, why, hint)
