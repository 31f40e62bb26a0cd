"""Text of others, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with everything that would act on a terminal, or not be seen, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
