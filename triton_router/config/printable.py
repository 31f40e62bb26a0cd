"""Text of others, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with everything that would act on a terminal, or not be seen, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, longest: int) -> str:
    """Return ``text`` as `printable` and cut to ``longest`` characters, so that it fits into a message."""
    # Cut twice: an escape has up to ten characters, and nothing long is to be escaped first.
    shown = printable(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[:longest]}..."
