"""Rounds: whatever happens in one, the next is made; and a thread that is closed has ended."""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING

import pytest

from triton_router.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Generator

PATIENCE_S = 60.0


class Walk:
    """What rounds do in these tests: counts them, and is waited for."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.fails = False
        self._changed = threading.Condition()

    def make(self) -> None:
        with self._changed:
            self.threads.append(threading.current_thread())
            self._changed.notify_all()
        if self.fails:
            raise ValueError("stumbled")

    def wait_for(self, rounds: int) -> None:
        """Wait until so many have been made."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.threads) >= rounds, PATIENCE_S)


@pytest.fixture
def walk() -> Walk:
    return Walk()


@pytest.fixture
def waiting(walk: Walk) -> Generator[Rounds]:
    """Rounds that are made when woken only."""
    rounds = Rounds("walk", walk.make)
    rounds.start()
    yield rounds
    rounds.close()


def test_rounds_are_made_by_one_thread_until_closed(walk: Walk) -> None:
    """Round follows round on one and the same thread; once `close` has returned there is none any more."""
    rounds = Rounds("walk", walk.make, 1e-4)
    rounds.start()
    walk.wait_for(3)
    rounds.close()
    (thread,) = set(walk.threads)
    assert thread.name == "walk"
    assert not thread.is_alive()


def test_who_waits_for_ever_is_woken(walk: Walk, waiting: Rounds) -> None:
    """Without an interval each round is made when it is asked for, also when that was before the start."""
    waiting.wake()
    walk.wait_for(1)
    waiting.wake()
    walk.wait_for(2)
    early = Rounds("early", walk.make)
    early.wake()
    early.start()
    walk.wait_for(3)
    early.close()


def test_another_interval_is_followed_when_woken(walk: Walk, waiting: Rounds) -> None:
    """An interval that is changed holds for the waits that follow."""
    waiting.every_s = 1e-4
    waiting.wake()
    walk.wait_for(4)
    waiting.every_s = inf


def test_a_round_that_fails_is_told_and_the_next_is_made(walk: Walk) -> None:
    """A defect in one round ends neither the thread nor what is said of the next."""
    told: list[str] = []
    walk.fails = True
    rounds = Rounds("walk", walk.make, 1e-4, failed=lambda error: told.append(str(error)))
    rounds.start()
    walk.wait_for(3)
    rounds.close()
    assert told == ["stumbled"] * len(walk.threads)


def test_a_last_round_is_made_where_it_is_wanted(walk: Walk, waiting: Rounds) -> None:
    """At the end one more round is made, by the same thread, or none, as it was asked for."""
    flushing = Walk()
    flushes = Rounds("flushes", flushing.make, ends_with_one=True)
    flushes.start()
    flushes.close()
    waiting.close()
    assert [thread.name for thread in flushing.threads] == ["flushes"]
    assert not walk.threads


def test_a_round_may_be_the_last_of_its_own_accord(walk: Walk) -> None:
    """Who finds that there is nothing left to do stops the thread from within, without waiting for itself."""

    def once() -> None:
        walk.make()
        rounds.stop()
        assert rounds.is_closing

    rounds = Rounds("walk", once, 1e-4)
    rounds.start()
    walk.wait_for(1)
    walk.threads[0].join(PATIENCE_S)
    assert not walk.threads[0].is_alive()
    assert len(walk.threads) == 1


def test_without_a_thread_closing_is_harmless(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had `start` says so, and what could not begin can be closed."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    rounds = Rounds("walk", walk.make)
    with pytest.raises(RuntimeError, match="start new thread"):
        rounds.start()
    rounds.close()
    assert not walk.threads
