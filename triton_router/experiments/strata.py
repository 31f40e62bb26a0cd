"""What was seen of a canary and of stable, apart for each share and each ten minutes.

Arms are compared within a stratum: traffic that is slow at night and a canary that gets more of it by day would
otherwise look like a slow canary. A request counts where it was assigned, however late its answer comes.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from triton_router.experiments.clumping import Clumping
from triton_router.experiments.tally import Tally, total
from triton_router.profiling.validation import State, count, number, row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EPOCH_S = 600.0
"""Seconds after which a new stratum begins, at the same share."""
_MOST = 36
"""Strata that are kept with stable answering, and as many without: those of six hours at one share. A judgement takes
time in proportion, and has the engine wait. What stable did last stays known however long it gets nothing."""
_MOST_EPOCHS = 2**40


class Stratum:
    """One share, for a while.

    Attributes:
        share: Of the requests that the canary gets, 0 to 1.
        epoch: Its number among those of the rollout, counted by time.
        canary: What its requests came to.
        stable: What the others came to.
        compared: Answers of the canary that were compared with stable's.
        diverged: Those that differed by more than the tolerance.
    """

    __slots__ = ("canary", "compared", "diverged", "epoch", "share", "stable")

    def __init__(self, share: float, epoch: int, labels: tuple[str, str] = ("", "")) -> None:
        self.share = share
        self.epoch = epoch
        self.canary, self.stable = Tally(labels[0]), Tally(labels[1])
        self.compared = self.diverged = 0

    @property
    def exposure(self) -> float:
        """Share of the requests that a failure is expected to hit the canary with, were both equally good.

        That is the share, or more where a caller with many requests is among the canary's. A test for a larger share
        holds for a smaller one as well: the larger of both is taken.
        """
        if self.share >= 1.0:
            return 1.0
        seen = self.canary.answers + self.stable.answers
        observed = (self.canary.answers + _PRIOR * self.share) / (seen + _PRIOR)
        return max(self.share, observed)

    def add(self, other: Stratum) -> None:
        """Count in what another instance saw."""
        self.canary.add(other.canary)
        self.stable.add(other.stable)
        self.compared += other.compared
        self.diverged += other.diverged

    def state(self) -> list[object]:
        """Return it as plain data."""
        return [self.share, self.epoch, self.canary.state(), self.stable.state(), self.compared, self.diverged]

    @classmethod
    def from_state(cls, value: object, labels: tuple[str, str]) -> Stratum:
        """Return the stratum of a state, or raise ValueError."""
        share, epoch, canary, stable, compared, diverged = row(value, _WHERE, 6)
        stratum = cls(number(share, _WHERE, 0.0, 1.0), min(count(epoch, _WHERE), _MOST_EPOCHS), labels)
        stratum.canary = Tally.from_state(canary, stratum.canary.label)
        stratum.stable = Tally.from_state(stable, stratum.stable.label)
        stratum.compared, stratum.diverged = count(compared, _WHERE), count(diverged, _WHERE)
        if stratum.diverged > stratum.compared:
            raise ValueError(f"{_WHERE} has more that diverged than was compared")
        return stratum


_PRIOR = 100.0
"""Requests with which the declared share is believed against the observed one."""
_WHERE = "a stratum"


class Strata:
    """All that was seen in a rollout, oldest first. The caller holds a lock.

    Args:
        id_: Of the rollout or experiment.
        arms: What its two arms are called: the new one, the other.

    Attributes:
        forgotten: Strata that were dropped, being the oldest of too many.
        clumping: How much more than independent ones the latencies of both arms vary; `look` feeds it.
    """

    __slots__ = ("_by_key", "_labels", "_looked", "clumping", "forgotten")

    def __init__(self, id_: str = "", arms: tuple[str, str] = ("canary", "stable")) -> None:
        self._labels = f"{id_}/{arms[0]}", f"{id_}/{arms[1]}"
        self._by_key: dict[tuple[int, float], Stratum] = {}
        self.forgotten = 0
        self.clumping = Clumping()
        self._looked: tuple[Stratum, tuple[int, float], tuple[int, float]] | None = None

    def look(self, stratum: Stratum) -> None:
        """Note how the latencies of a stratum have been since the last look, about a second ago."""
        canary = stratum.canary.measured, stratum.canary.ratios
        stable = stratum.stable.measured, stratum.stable.ratios
        looked, self._looked = self._looked, (stratum, canary, stable)
        if looked is None:
            return
        if looked[0].share != stratum.share:
            self.clumping.settle()
        elif looked[0] is stratum:
            self.clumping.note(_since(looked[1], canary), _since(looked[2], stable))

    def at(self, share: float, epoch: int) -> Stratum:
        """Return the stratum of a share and time, a new one if need be."""
        stratum = self._by_key.get((epoch, share))
        if stratum is None:
            alike = _alike(self._by_key, share)
            if len(alike) >= _MOST:
                del self._by_key[alike[0]]
                self.forgotten += 1
            stratum = self._by_key[epoch, share] = Stratum(share, epoch, self._labels)
        return stratum

    def all(self) -> list[Stratum]:
        """Return them, oldest first."""
        return list(self._by_key.values())

    def canary(self) -> Tally:
        """Return the sum of the canary's tallies."""
        return total(stratum.canary for stratum in self._by_key.values())

    def stable(self) -> Tally:
        """Return the sum of stable's."""
        return total(stratum.stable for stratum in self._by_key.values())

    def answers_at(self, share: float) -> tuple[int, int]:
        """Return how many answers the canary gave while it had a share, and stable whose latencies were measured."""
        there = [one for one in self._by_key.values() if one.share == share]
        return sum(one.canary.answers for one in there), sum(one.stable.measured for one in there)

    def plus(self, others: Sequence[Strata]) -> Strata:
        """Return the sum of this and others, in the order of time; itself where there are no others."""
        if not others:
            return self
        result = Strata()
        result._labels = self._labels
        result.forgotten = self.forgotten
        keyed: dict[tuple[int, float], Stratum] = {}
        for stratum in chain(self.all(), *(other.all() for other in others)):
            key = stratum.epoch, stratum.share
            keyed.setdefault(key, Stratum(stratum.share, stratum.epoch, self._labels)).add(stratum)
        result.clumping = self.clumping.plus(other.clumping for other in others)
        kept = sorted(_alike(sorted(keyed), 0.0)[-_MOST:] + _alike(sorted(keyed), 1.0)[-_MOST:])
        result._by_key = {key: keyed[key] for key in kept}
        return result

    def state(self) -> dict[str, object]:
        """Return it as plain data; strata without anything are left out."""
        rows = [one.state() for one in self._by_key.values() if _has_anything(one)]
        return {
            "forgotten": self.forgotten,
            "rows": rows,
            "clumping": self.clumping.state(),
        }

    @classmethod
    def from_state(cls, state: State, id_: str = "", arms: tuple[str, str] = ("canary", "stable")) -> Strata:
        """Return the strata of a state, or raise ValueError."""
        strata = cls(id_, arms)
        strata.forgotten = state.count("forgotten")
        strata.clumping = Clumping.from_state(state.rows("clumping"))
        rows = state.rows("rows")
        if len(rows) > 2 * _MOST:
            raise ValueError(f"{len(rows)} strata are more than a rollout keeps")
        for value in rows:
            stratum = Stratum.from_state(value, strata._labels)
            key = stratum.epoch, stratum.share
            if key in strata._by_key:
                raise ValueError("a stratum stands twice")
            strata._by_key[key] = stratum
        return strata


def _alike(keys: Iterable[tuple[int, float]], share: float) -> list[tuple[int, float]]:
    """Return the keys at which stable gets requests, or (at full share) at which it gets none."""
    return [key for key in keys if (key[1] >= 1.0) is (share >= 1.0)]


def _since(before: tuple[int, float], now: tuple[int, float]) -> tuple[int, float]:
    return now[0] - before[0], now[1] - before[1]


def _has_anything(stratum: Stratum) -> bool:
    arms = (stratum.canary, stratum.stable)
    return bool(stratum.compared or any(arm.answers or arm.refused or arm.cancelled for arm in arms))
