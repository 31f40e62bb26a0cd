"""The flags of tritonserver as data: read as it reads them, and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Flag:
    """One tritonserver flag: its name without dashes, and its value if it has one."""

    name: str
    value: str | None

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


def parse_flags(words: Sequence[str]) -> list[Flag]:
    """Read flags as tritonserver does: ``--name=value``, ``--name value`` or a bare ``--name``."""
    flags: list[Flag] = []
    for word in words:
        if word.startswith("--"):
            name, separator, value = word[2:].partition("=")
            flags.append(Flag(name, value if separator else None))
        elif flags and flags[-1].value is None:
            flags[-1] = Flag(flags[-1].name, word)
        else:
            flags.append(Flag(word, None))
    return flags


def last_value(flags: Sequence[Flag], name: str) -> str | None:
    """Return the value of the last flag of that name, which is the one tritonserver uses; None if absent."""
    return next((flag.value for flag in reversed(flags) if flag.name == name), None)
