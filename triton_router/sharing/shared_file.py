"""The file itself: made, checked, and divided among processes. Only joining and leaving take its lock.

It lies in memory (``/dev/shm``) and not in the state directory: load is worth nothing after a restart of the host or to
another one, a disk's write-back may hold up whoever writes to a mapped page, and a network disk shows no stores at all.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import time
from contextlib import contextmanager, suppress
from struct import pack
from typing import TYPE_CHECKING

from triton_router.errors import UnavailableError
from triton_router.files import FILE_MODE
from triton_router.sharing import layout
from triton_router.sharing.owners import NOBODY, Owner, is_there, this_process
from triton_router.sharing.place import make_directory

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAX_SET_ASIDE = 4
"""Most unusable files that are kept; further ones replace the last."""
_PATIENCE_S = 2.0
"""Longest wait for the lock."""
_IDENTITY = pack(f"={len(layout.IDENTITY)}Q", *layout.IDENTITY)
_TRIES = 8
"""Each finds another file in the place: others make, remove and set aside at the same time."""


class SharedFile:
    """One instance's view of the file.

    Attributes:
        words: All of it, as unsigned integers.
        doubles: The same, as floating point numbers.
        slot: Number of this instance's slot.
        me: This process.
        problems: What was found wrong on the way here, each a sentence.
    """

    def __init__(self, path: Path, server: int) -> None:
        """Open or make the file and take a slot.

        Args:
            path: The file.
            server: Process id of the server that this instance belongs to.

        Raises:
            UnavailableError: It cannot be had: no memory, no rights, no slot left, or no such system.
        """
        self.problems: list[str] = []
        self._path = path
        try:
            self.me = this_process(server)
            make_directory(path.parent)
            self._descriptor = self._open()
        except OSError as error:
            raise UnavailableError(
                f"{path} cannot be opened: {error.strerror or error}",
                hint="this instance counts its own load alone and learns by itself",
            ) from error

    def owners(self) -> list[Owner]:
        """Return who owns each slot."""
        at = layout.owner_at(0)
        numbers = self.words[at : at + layout.SLOTS * layout.OWNER_WORDS].tolist()
        return [Owner(*numbers[i : i + layout.OWNER_WORDS]) for i in range(0, len(numbers), layout.OWNER_WORDS)]

    def is_mine(self) -> bool:
        """Whether this instance still has its slot: another container may have held it for dead."""
        return self.owners()[self.slot] == self.me

    def beat(self) -> None:
        """Show that this instance is alive."""
        self.words[layout.slot_at(self.slot) + layout.HEARTBEAT] = time.monotonic_ns()

    def silence_ns(self, slot: int) -> int:
        """Return for how many nanoseconds an instance has not shown that it is alive."""
        return time.monotonic_ns() - self.words[layout.slot_at(slot) + layout.HEARTBEAT]

    def ask(self) -> int:
        """Ask all instances for a snapshot, and return the number of the request."""
        with _locked(self._descriptor):
            self.words[layout.ASKED] += 1
            return self.words[layout.ASKED]

    def close(self) -> None:
        """Give the slot back; the last one removes the file."""
        with suppress(OSError, UnavailableError), _locked(self._descriptor):
            if self.is_mine():
                self._enter(self.slot, NOBODY)
            if not any(self._is_taken(slot, owner) for slot, owner in enumerate(self.owners())):
                self._path.unlink(missing_ok=True)
        self.words.release()
        self.doubles.release()
        self._bytes.release()
        self._map.close()
        os.close(self._descriptor)

    def _open(self) -> int:
        for _ in range(_TRIES):
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE
            )
            try:
                with _locked(descriptor):
                    if self._is_in_place(descriptor) and self._is_usable(descriptor):
                        self._take_slot(descriptor)
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise UnavailableError(f"{self._path} is never the same file twice", hint="look who else writes there")

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file that was opened, and then locked, is still the one that others will open."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _is_usable(self, descriptor: int) -> bool:
        """Make an empty file one of ours; set one aside that is none."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(0, "it is not a file of this user")
        if found.st_size == 0:
            os.fchmod(descriptor, FILE_MODE)
            # Taken now: a page that is missing when it is first written to would end this process.
            os.posix_fallocate(descriptor, 0, layout.HEADER_WORDS * layout.WORD)
            os.ftruncate(descriptor, layout.TOTAL_WORDS * layout.WORD)
            os.pwrite(descriptor, _IDENTITY, 0)
        size = os.fstat(descriptor).st_size
        if size == layout.TOTAL_WORDS * layout.WORD and os.pread(descriptor, len(_IDENTITY), 0) == _IDENTITY:
            return True
        self._set_aside()
        return False

    def _set_aside(self) -> None:
        names = [self._path.with_name(f"{self._path.name}.corrupt-{number}") for number in range(1, MAX_SET_ASIDE + 1)]
        place = next((name for name in names if not name.exists()), names[-1])
        self._path.replace(place)
        self.problems.append(f"{self._path} was not a file of instances; set aside as {place.name}")

    def _take_slot(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, layout.TOTAL_WORDS * layout.WORD)
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")
        self.doubles = self._bytes.cast("d")
        free = (slot for slot, owner in enumerate(self.owners()) if not self._is_taken(slot, owner))
        slot = next(free, None)
        if slot is None:
            raise UnavailableError(
                f"{self._path} has no slot left: {layout.SLOTS} instances share it",
                hint="this instance counts its own load alone and learns by itself",
            )
        at = layout.slot_at(slot)
        os.posix_fallocate(descriptor, at * layout.WORD, layout.SLOT_WORDS * layout.WORD)
        self._bytes[at * layout.WORD : (at + layout.SLOT_WORDS) * layout.WORD] = bytes(layout.SLOT_WORDS * layout.WORD)
        self.slot = slot
        self.beat()
        self._enter(slot, self.me)

    def _enter(self, slot: int, owner: Owner) -> None:
        at = layout.owner_at(slot)
        # The process id last: until then the slot is nobody's.
        self.words[at] = 0
        self.words[at + 1], self.words[at + 2], self.words[at + 3] = owner[1:]
        self.words[at] = owner.pid

    def _is_taken(self, slot: int, owner: Owner) -> bool:
        if not owner.pid:
            return False
        there = is_there(owner, self.me)
        return self.silence_ns(slot) < layout.GONE_NS if there is None else there


@contextmanager
def _locked(descriptor: int) -> Generator[None]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the file of instances has been locked for more than {_PATIENCE_S:g} s",
                    hint="look whether a process that has it open is stopped",
                ) from None
            time.sleep(0.005)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
