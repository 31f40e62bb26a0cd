"""How every command edits a router.yaml: in place, or printed where it has to be changed elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from triton_router.cli import live
from triton_router.config.editing import edit_router_file, edited_router_file, why_not_in_place
from triton_router.errors import UnsupportedError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from triton_router.config.editing import Change


def apply(args: argparse.Namespace, path: Path, change: Change) -> bool | None:
    """Edit a router.yaml, or print what it would be (``--dry-run``).

    Returns:
        Whether what serves it follows; False where nothing can be asked, None where nothing was changed.

    Raises:
        UnsupportedError: It cannot be edited in place; what it is to be stands on stdout.
        ConfigError: It would not be valid, or the router does not follow it.
    """
    if args.dry_run:
        print(edited_router_file(path, change), end="")
        return None
    if why_not_in_place(path):
        refuse_in_place(path, edited_router_file(path, change))
    since = time.time()
    edit = edit_router_file(path, change)
    return edit.before == edit.after or live.await_followed(path, lambda _: True, text=edit.after, since=since)


def refuse_in_place(path: Path, text: str) -> None:
    """Do nothing if a file can be edited in place.

    Raises:
        UnsupportedError: It cannot; what it is to say was printed.
    """
    obstacle = why_not_in_place(path)
    if obstacle:
        print(text, end="")
        raise UnsupportedError(
            f"{path} cannot be edited in place: {obstacle}",
            hint="nothing was changed; what the file is to be stands on stdout: apply it where the file comes from",
        )
