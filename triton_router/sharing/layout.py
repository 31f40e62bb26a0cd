"""What lies where in the file through which the instances of one routed model on one host see each other.

All of it is words of eight bytes, aligned, in the machine's byte order. The header is followed by one slot for each
instance. Each word has one writer, the instance that owns the slot, and is stored at once, so that nobody needs a lock
to read or write it; owners are entered in the header under a lock of the file.

::

    header   0 magic  1 version  2 slots  3 berths  4 answers kept  5 words of a slot  6 snapshots asked for
             64...    four words for each slot: process id, its start, its process namespace, its server's process
                      id; a free slot has process id 0
    slot     0 heartbeat, in nanoseconds of the monotonic clock  1 changes  2 names changed
             3 berths in use  4 answers told  5 snapshot asked for and written  6 whether it serves
             8...     berths: targets' keys; devices' keys; requests in flight; their ms (as a double)
             ...      answers, a ring of eleven words each: number, target's key, and as doubles latency in ms,
                      work, rows, whether it was alone, and the fields of `Load`
"""

from __future__ import annotations

MAGIC = int.from_bytes(b"trrouter", "big")
VERSION = 1
"""Stands in the file's name as well: instances of different versions never meet."""
WORD = 8

SLOTS = 32
"""Instances that see each other; further ones serve by themselves."""
BERTHS = 320
"""Targets of one instance: the most that a routed model has, and those that were removed and are still at work."""
ANSWERS = 256
"""Answers that wait for the peers, which look ten times a second. Of more they learn the latest."""
ANSWER_WORDS = 11

HEADER_WORDS = 512
ASKED = 6
OWNERS = 64
OWNER_WORDS = 4

HEARTBEAT, CHANGES, NAMES, IN_USE, TOLD, WRITTEN, SERVES = range(7)
KEYS = 8
DEVICES = KEYS + BERTHS
IN_FLIGHT = DEVICES + BERTHS
TIME = IN_FLIGHT + BERTHS + 1  # one more berth for what finds no place: it is posted and never read
RING = TIME + BERTHS + 1
SLOT_WORDS = 4608
"""Nine pages."""
TOTAL_WORDS = HEADER_WORDS + SLOTS * SLOT_WORDS

IDENTITY = (MAGIC, VERSION, SLOTS, BERTHS, ANSWERS, SLOT_WORDS)
"""The first words of every file of this version."""

MOST_IN_FLIGHT = 1_000_000
MOST_WORK = 1e15
"""Whatever is beyond these was not written by an instance."""


SILENT_NS = 10_000_000_000
"""An instance whose heartbeat is older is not counted: it has stopped, or is gone with its container..."""
GONE_NS = 60_000_000_000
"""... and if nobody can tell whether its process still is, its slot is taken when it is older than this."""


def slot_at(slot: int) -> int:
    """Return the first word of a slot."""
    return HEADER_WORDS + slot * SLOT_WORDS


def owner_at(slot: int) -> int:
    """Return the first word of what says who owns a slot."""
    return OWNERS + slot * OWNER_WORDS
