"""The instances of one routed model on one host, as one of them sees the others.

A thread looks ten times a second who is there (four times while nobody is), takes in what they were answered, and
writes a snapshot when one asks.
Nothing here may disturb serving: an instance that cannot share serves by itself, and says so.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from triton_router.errors import UnavailableError
from triton_router.rounds import Rounds
from triton_router.sharing import layout
from triton_router.sharing.board import Board, Peer
from triton_router.sharing.owners import Owner, is_there
from triton_router.sharing.shared_file import SharedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from triton_router.routing.peers import LoadBoard, PeerAnswer

LOOK_EVERY_S = 0.1
ALONE_EVERY_S = 0.25
"""Between two rounds while nobody else is there."""
_ASK_EVERY_S = 0.01
_TOGETHER = 16
"""Answers that are learned in one go: meanwhile no request is decided."""


class Sharer(Protocol):
    """Who shares; the routing engine."""

    def share(self, board: LoadBoard | None) -> None:
        """Post on a board and count what peers post there."""
        ...

    def hear(self, answers: Iterable[PeerAnswer]) -> None:
        """Learn from answers that peers were given."""
        ...


class Instances:
    """One instance among its peers.

    Args:
        path: The file that they share.
        server: Process id of the server that this one belongs to.
        warn: Writes a line to the server's log.
    """

    def __init__(self, path: Path, server: int, warn: Callable[[str], None]) -> None:
        self._path = path
        self._server = server
        self._warn = warn
        self._file: SharedFile | None = None
        self._board: Board | None = None
        self._sharer: Sharer | None = None
        self._save: Callable[[], None] = _nothing
        self._peers: dict[tuple[int, Owner], Peer] = {}
        self._problem = ""
        self._rounds = Rounds("sharing", self._round, ALONE_EVERY_S)

    def join(self) -> None:
        """Take a place among the instances."""
        try:
            self._file = SharedFile(self._path, self._server)
        except UnavailableError as error:
            self._fail(f"{error.message} (hint: {error.hint})")
            return
        for problem in self._file.problems:
            self._fail(problem)

    def ask_to_save(self, patience_s: float) -> bool:
        """Have the peers write down what they know now, so that a newcomer begins with it.

        Returns:
            Whether one of them has: False if there are none, or none does in time.
        """
        file = self._file
        if file is None:
            return False
        try:
            self._look_round(file)
            serving = [peer for peer in self._peers.values() if peer.serves]
            if not serving:
                return False
            number = file.ask()
        except (OSError, UnavailableError) as error:
            self._fail(f"peers cannot be asked for what they know: {error}")
            return False
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if any(peer.written >= number for peer in serving):
                return True
            time.sleep(_ASK_EVERY_S)
        return False

    def start(self, sharer: Sharer, save: Callable[[], None]) -> None:
        """Share from now on.

        Args:
            sharer: Whose load and answers are shared.
            save: Writes down what it knows.
        """
        file = self._file
        if file is None:
            return
        self._sharer, self._save = sharer, save
        # What is met at this moment may have been in the snapshot that was begun with: only what comes is learned.
        self._peers = {}
        self._look_round(file)
        self._board = Board(file)
        self._board.see(self._peers.values())
        sharer.share(self._board)
        self._pace()
        own = layout.slot_at(file.slot)
        file.words[own + layout.WRITTEN] = file.words[layout.ASKED]
        try:
            self._rounds.start()
        except RuntimeError as error:
            self._leave()
            self._fail(f"no thread shares with other instances: {error}")
            return
        file.words[own + layout.SERVES] = 1

    def close(self) -> None:
        """Share no more."""
        self._rounds.close()
        self._leave()

    def status(self) -> dict[str, Any]:
        """Return what ``triton-router status`` shows."""
        return {
            "file": str(self._path),
            "instances": 1 + len(self._peers) if self._file else 1,
            "problem": self._problem,
        }

    def counts(self) -> dict[str, float]:
        """Return the metrics of the whole model that are known here."""
        return {"triton_router_instances": self.status()["instances"]}

    def _round(self) -> None:
        file, board = self._file, self._board
        if file is None or board is None:
            return
        if not file.is_mine():
            self._stop_sharing()
            return
        file.beat()
        if self._look_round(file):
            self._pace()
            board.see(self._peers.values())
        self._hear()
        self._answer_askers(file, layout.slot_at(file.slot))

    def _pace(self) -> None:
        self._rounds.every_s = LOOK_EVERY_S if self._peers else ALONE_EVERY_S

    def _look_round(self, file: SharedFile) -> bool:
        """Note who is there; return whether that has changed."""
        there = {
            (slot, owner)
            for slot, owner in enumerate(file.owners())
            if owner.pid
            and slot != file.slot
            and is_there(owner, file.me) is not False
            and file.silence_ns(slot) < layout.SILENT_NS
        }
        if there == self._peers.keys():
            return False
        is_first = self._board is None
        peers = {key: self._peers.get(key) or _peer(file, *key, is_old=is_first) for key in there}
        self._peers = peers
        return True

    def _hear(self) -> None:
        for peer in self._peers.values():
            if peer.problem and not self._problem:
                self._fail(f"instance with slot {peer.slot} of {self._path}: {peer.problem}")
            answers = peer.answers()
            for first in range(0, len(answers), _TOGETHER):
                if self._sharer is not None:
                    self._sharer.hear(answers[first : first + _TOGETHER])

    def _answer_askers(self, file: SharedFile, own: int) -> None:
        asked = file.words[layout.ASKED]
        if file.words[own + layout.WRITTEN] != asked:
            self._save()
            file.words[own + layout.WRITTEN] = asked

    def _stop_sharing(self) -> None:
        self._rounds.stop()
        if self._sharer is not None:
            self._sharer.share(None)
        self._peers = {}
        self._fail(f"another instance has taken this one's place in {self._path}; it counts its own load alone now")

    def _leave(self) -> None:
        if self._sharer is not None:
            self._sharer.share(None)
        if self._board is not None:
            self._board.close()
        self._peers = {}
        if self._file is not None:
            self._file.close()
        self._board = self._file = None

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._warn(problem)


def _peer(file: SharedFile, slot: int, owner: Owner, *, is_old: bool) -> Peer:
    """Return a peer; of one that was there before this instance, what it has told already is known."""
    heard = file.words[layout.slot_at(slot) + layout.TOLD] if is_old else 0
    return Peer(file, slot, heard, shares_targets=owner.server == file.me.server)


def _nothing() -> None:
    """Before there is anything to save."""
