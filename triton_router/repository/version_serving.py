"""Have a running Triton serve further versions of a model beside those that it serves, or take that back.

Triton has no load of one version. What is served follows from the model's ``config.pbtxt``, so that is edited and the
model loaded again, which replaces nothing before all of it is ready. What Triton loads by itself (polling) is awaited.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from triton_router.config.editing import replace_text, why_not_in_place
from triton_router.config.loading import read_text
from triton_router.errors import (
    InvalidInputError,
    NotFoundError,
    TritonRouterError,
    UnsupportedError,
)
from triton_router.repository.control_errors import NOT_ON_REQUEST
from triton_router.repository.dependencies import model_directory, versions_on_disk
from triton_router.repository.model_config import CONFIG_FILE, parse
from triton_router.repository.version_policy import served_by_policy, with_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from triton_router.repository.control import ModelControl

_POLL_S = 0.1


class VersionServing:
    """Makes versions served, model by model; `undo` takes everything back that was done.

    Args:
        control: The server; None where none runs, so that files are all there is.
        repository: Its model repository.
        wait_s: Longest wait for a server that loads by itself, in seconds.

    Attributes:
        notes: What there is to know of what was done, each a sentence.
    """

    def __init__(self, control: ModelControl | None, repository: Path, *, wait_s: float) -> None:
        self.notes: list[str] = []
        self._control = control
        self._repository = repository
        self._wait_s = wait_s
        self._undo: list[Callable[[], object]] = []

    def serve(self, model: str, versions: Sequence[int]) -> None:
        """Have these versions of a model served, and return when all of them are ready.

        Raises:
            NotFoundError: A version is not in the repository.
            UnsupportedError: The server takes no loads and does not poll, or a file cannot be edited.
            TritonRouterError: What the server says when it cannot load one; those of before are served still.
        """
        directory = model_directory(self._repository, model)
        missing = sorted(set(versions) - set(versions_on_disk(directory)))
        if missing:
            raise _missing(directory, missing)
        has_config = (directory / CONFIG_FILE).exists()
        if has_config:
            self._write_policy(directory, versions)
        if self._control is None:
            if not has_config:
                raise InvalidInputError(
                    f"{directory} has no {CONFIG_FILE}, so which versions are served is the server's to be told",
                    hint="start the server and run this without --offline",
                )
            return
        if not self._is_ready(model, versions):
            self._load(self._control, model, versions, has_config=has_config)

    def serve_only(self, model: str, versions: Sequence[int]) -> None:
        """Have no other versions of a model served than these, which are served now. Errors as `serve`.

        Where the server loads by itself, or files are all there is, that is for it to see.
        """
        directory = model_directory(self._repository, model)
        has_config = (directory / CONFIG_FILE).exists()
        if has_config:
            self._write_policy(directory, versions, only=True)
        if self._control is None:
            return
        if not has_config:
            self._control.load_versions(model, versions)
            return
        try:
            ready = self._control.load(model)
        except UnsupportedError as error:
            if NOT_ON_REQUEST not in error.message:
                raise
        else:
            if set(ready) != set(versions):  # an earlier override by the API outlives what the file says
                self._control.load_versions(model, versions)

    def undo(self) -> list[str]:
        """Take everything back, the latest first, and return what could not be."""
        problems: list[str] = []
        while self._undo:
            try:
                self._undo.pop()()
            except TritonRouterError as error:
                problems.append(error.message)
        return problems

    def _write_policy(self, directory: Path, versions: Sequence[int], *, only: bool = False) -> None:
        path = directory / CONFIG_FILE
        before = read_text(path)
        covered = served_by_policy(parse(before, source=str(path)), versions_on_disk(directory))
        if set(versions) == set(covered) or (not only and set(versions) < set(covered)):
            return
        obstacle = why_not_in_place(path)
        if obstacle:
            raise UnsupportedError(
                f"{path} cannot be edited in place: {obstacle}",
                hint=f"have its version_policy serve {_join(versions)} where it comes from, and run this again",
            )
        after = with_versions(before, versions, source=str(path))
        replace_text(path, before, after)
        self._undo.append(lambda: replace_text(path, after, before))
        self.notes.append(f"{path} serves {_join(versions)} now")

    def _load(self, control: ModelControl, model: str, versions: Sequence[int], *, has_config: bool) -> None:
        former = control.ready_versions(model)
        if not has_config:
            self._undo.append(lambda: _restore(control, model, former))
            control.load_versions(model, versions)
            self.notes.append(
                f"{model} has no {CONFIG_FILE}: the server was told to serve {_join(versions)}, which it forgets when "
                f"it is started again; write a {CONFIG_FILE} with that version_policy to keep it"
            )
            return
        try:
            # A file that is taken back is taken back before this, and then loaded again.
            self._undo.insert(0, lambda: _reload(control, model))
            control.load(model)
        except UnsupportedError as error:
            del self._undo[0]
            if NOT_ON_REQUEST not in error.message:
                raise
            self._await(model, versions)
            return
        if not self._is_ready(model, versions):  # an earlier override by the API outlives what the file says
            control.load_versions(model, versions)

    def _await(self, model: str, versions: Sequence[int]) -> None:
        deadline = time.monotonic() + self._wait_s
        while not self._is_ready(model, versions):
            if time.monotonic() > deadline:
                raise UnsupportedError(
                    f"the server loads no models on request, and after {self._wait_s:g} s it has not loaded "
                    f"{_join(versions)} of {model!r} by polling either",
                    hint="start it with triton-router serve, or with --model-control-mode=explicit; where it polls, "
                    "wait longer with --wait; else end it, run this with --offline, and start it again",
                )
            time.sleep(_POLL_S)

    def _is_ready(self, model: str, versions: Sequence[int]) -> bool:
        return self._control is not None and set(versions) <= set(self._control.ready_versions(model))


def _reload(control: ModelControl, model: str) -> None:
    control.load(model)


def _restore(control: ModelControl, model: str, versions: Sequence[int]) -> None:
    if versions:
        control.load_versions(model, versions)
    else:
        control.unload(model)


def _missing(directory: Path, versions: Sequence[int]) -> NotFoundError:
    there = versions_on_disk(directory)
    return NotFoundError(
        f"model {directory.name!r} has no {_join(versions)} in {directory.parent}"
        + (f"; it has {_join(there)}" if there else ""),
        hint=f"put its files in {directory / str(versions[0])}",
    )


def _join(versions: Sequence[int]) -> str:
    return ("version " if len(versions) == 1 else "versions ") + ", ".join(str(version) for version in versions)
