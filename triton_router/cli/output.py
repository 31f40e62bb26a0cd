"""How every command prints: data on stdout, everything else on stderr, readable without colour.

Names, reasons and paths are whatever others wrote: nothing that is printed here acts on the terminal.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from triton_router.config.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.errors import TritonRouterError


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in aligned columns under upper-case headers, on stdout.

    Numbers are aligned to the right, everything else to the left. The last column is not padded, so a line
    never ends in blanks.
    """
    cells = [[printable(str(value)) for value in row] for row in rows]
    widths = [max([len(title), *(len(row[i]) for row in cells)]) for i, title in enumerate(headers)]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headers))]
    for row in [[title.upper() for title in headers], *cells]:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(padded).rstrip())


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON on stdout, keys in the order they were put in."""
    print(_without_controls(json.dumps(value, indent=2, ensure_ascii=False)))


def note(message: str) -> None:
    """Print a line of progress or explanation on stderr."""
    print("\n".join(printable(line) for line in message.split("\n")), file=sys.stderr)


def hint(message: str) -> None:
    """Print what the user can do next, as a ``hint:`` line on stderr."""
    note(f"hint: {message}")


def print_error(error: TritonRouterError) -> None:
    """Print an error and its hint on stderr."""
    note(f"error: {error.message}")
    if error.hint:
        hint(error.hint)


def _without_controls(text: str) -> str:
    """Return JSON with everything that would act on a terminal, or not be seen, as JSON's own escapes."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
