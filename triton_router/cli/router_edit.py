"""How every command edits a router.yaml: in place, or printed where it has to be changed elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from triton_router.cli import live, output
from triton_router.config.editing import edit_router_file, edited_router_file, replace_text, why_not_in_place
from triton_router.errors import TritonRouterError, UnsupportedError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from triton_router.config.editing import Change, Edit


def apply(args: argparse.Namespace, path: Path, change: Change, *, or_undo: bool = False) -> bool | None:
    """Edit a router.yaml, or print what it would be (``--dry-run``).

    Args:
        args: Of the command.
        path: The file.
        change: What is to become of it.
        or_undo: Whether the file is put back where the router does not follow: what was refused must not begin by
            itself when the router follows again. Else it stays as the state that is wanted, and that is said.

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
    if edit.before == edit.after:
        return True
    with ExitStack() as otherwise:  # whatever ends the wait, Ctrl-C included
        if or_undo:
            otherwise.callback(output.note, "undone: everything is as it was before")
            otherwise.callback(put_back, path, edit)
        else:
            remark = f"note: {path} is edited all the same: that holds as soon as the router follows it"
            otherwise.callback(output.note, remark)
        followed = live.await_followed(path, lambda _: True, text=edit.after, since=since)
        otherwise.pop_all()
    return followed


def put_back(path: Path, edit: Edit) -> None:
    """Have a file say what it did before an edit, unless somebody has edited it since; that is told."""
    try:
        replace_text(path, edit.after, edit.before)
    except TritonRouterError as error:
        output.note(f"warning: {path} could not be put back: {error.message}")


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
