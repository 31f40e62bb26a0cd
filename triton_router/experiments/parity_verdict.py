"""Whether a target's answers agree with the reference's often enough to be given to clients.

    quarantined as soon as  e-value against "at most max_mismatch of its answers diverge"  >=  1 / false_alarms
    back after              n answers in a row that agree,  (1 - max_mismatch)^n <= 5%

The test is the mixture binomial one (`sequential.share_since`), over runs of comparisons, so that a target which went
wrong today is not excused by last year. The way back is the plain confidence that a share of mismatches as large as
the bound would have shown at least one in so many. Then, and when the target is another one, counting begins anew:
nothing stays for ever.
"""

from __future__ import annotations

from math import ceil, log, log1p
from typing import TYPE_CHECKING

from triton_router.experiments.sequential import e_value, over_starts, share_since
from triton_router.profiling.validation import State, count, row

if TYPE_CHECKING:
    from collections.abc import Sequence

_RUN = 250
"""Comparisons in a run; a fault is taken to begin with one."""
_MOST_RUNS = 100
_DOUBT = 0.05
_FEWEST_TO_RETURN, _MOST_TO_RETURN = 10, 1000
_MOST_PEERS = 1024


class ParityVerdict:
    """What comparisons say of one target. The caller holds a lock.

    Args:
        max_mismatch: Share of the answers that may diverge, 0 to 1.
        false_alarms: Probability with which a target within that is ever quarantined.
        identity: What makes it the target that it is: version, hash.

    Attributes:
        is_quarantined: Whether it should get no requests of clients.
        compared: Comparisons since it was judged anew.
        diverged: Those in which it was too far off.
        agreeing: Agreeing comparisons in a row.
    """

    def __init__(self, max_mismatch: float, false_alarms: float, identity: str = "") -> None:
        self._max_mismatch = max_mismatch
        self._false_alarms = false_alarms
        self._identity = identity
        self._returns = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.is_quarantined = False
        self.compared = self.diverged = self.agreeing = 0
        self._runs: list[list[int]] = []
        self._forgotten = 0

    @property
    def needed_to_return(self) -> int:
        """Agreeing comparisons in a row that end a quarantine."""
        bound = self._max_mismatch
        if bound >= 1.0:
            return _FEWEST_TO_RETURN
        needed = ceil(log(_DOUBT) / log1p(-bound)) if bound > 0.0 else _MOST_TO_RETURN
        return max(_FEWEST_TO_RETURN, min(_MOST_TO_RETURN, needed))

    def note(self, agrees: bool) -> None:
        """Note a comparison, and judge."""
        self.compared += 1
        self.diverged += not agrees
        self.agreeing = self.agreeing + 1 if agrees else 0
        if not self._runs or self._runs[-1][1] >= _RUN:
            self._runs.append([0, 0])
            if len(self._runs) > _MOST_RUNS:
                del self._runs[0]
                self._forgotten += 1
        run = self._runs[-1]
        run[0] += not agrees
        run[1] += 1
        # Agreement never makes a target look worse: there is nothing to judge but a way back.
        if self.is_quarantined or not agrees:
            self._judge(self._runs, self.agreeing)

    def hear(self, peers: Sequence[object]) -> None:
        """Judge by what other instances saw of the same target as well: `evidence` of theirs.

        What is of another target, or none at all, is left out; so is what is older than a return from quarantine.
        """
        heard = [one for one in (self._heard(peer) for peer in peers[:_MOST_PEERS]) if one is not None]
        newest = max((one.returns for one in heard), default=0)
        if newest > self._returns:
            self._returns = newest
            self._begin_anew()
        same = [one for one in heard if one.returns == self._returns]
        runs = [list(run) for run in self._runs]
        for one in same:
            for at, (diverged, compared) in enumerate(one.runs):
                if at == len(runs):
                    runs.append([0, 0])
                runs[at][0] += diverged
                runs[at][1] += compared
        # What agreed where it is not quarantined was before the divergences, or elsewhere: it excuses nothing.
        self._judge(runs, self.agreeing + sum(one.agreeing for one in same if one.is_quarantined))

    def report(self) -> dict[str, object]:
        """Return how it stands, as plain data."""
        return {
            "quarantined": self.is_quarantined,
            "compared": self.compared,
            "diverged": self.diverged,
            "agreeing": self.agreeing,
            "needed_to_return": self.needed_to_return if self.is_quarantined else None,
            "returns": self._returns,
            "max_mismatch": self._max_mismatch,
            "e_value": float(f"{e_value(self._log_e(self._runs)):.4g}"),
            "bound": float(f"{1.0 / self._false_alarms:.4g}"),
            "text": self._text(),
        }

    def evidence(self) -> dict[str, object]:
        """Return what other instances need to know."""
        return {
            "identity": self._identity,
            "returns": self._returns,
            "agreeing": self.agreeing,
            "quarantined": int(self.is_quarantined),
            "runs": [list(run) for run in self._runs],
        }

    def state(self) -> dict[str, object]:
        """Return it as plain data, for a restart."""
        return {
            **self.evidence(),
            "forgotten": self._forgotten,
            "compared": self.compared,
            "diverged": self.diverged,
        }

    @classmethod
    def from_state(cls, max_mismatch: float, false_alarms: float, identity: str, state: object) -> ParityVerdict:
        """Return the verdict of a state; a fresh one if the target has become another since.

        Raises:
            ValueError: It is no such state.
        """
        verdict = cls(max_mismatch, false_alarms, identity)
        values = State(state, "a parity verdict")
        heard = _Heard(values)
        compared, diverged = values.count("compared"), values.count("diverged")
        forgotten = values.count("forgotten")
        if diverged > compared:
            raise ValueError("a parity verdict has more that diverged than was compared")
        if heard.identity != identity:
            return verdict
        verdict._returns, verdict._runs, verdict.agreeing = heard.returns, heard.runs, heard.agreeing
        verdict._forgotten, verdict.compared, verdict.diverged = forgotten, compared, diverged
        verdict.is_quarantined = heard.is_quarantined
        verdict._judge(verdict._runs, verdict.agreeing)
        return verdict

    def _judge(self, runs: Sequence[Sequence[int]], agreeing: int) -> None:
        if self.is_quarantined:
            if agreeing >= self.needed_to_return:
                self._returns += 1
                self._begin_anew()
            return
        if self._log_e(runs) >= -log(self._false_alarms):
            self.is_quarantined = True
            # What agreed before the quarantine does not count towards its end.
            self.agreeing = 0

    def _log_e(self, runs: Sequence[Sequence[int]]) -> float:
        return over_starts(share_since([(run[0], run[1]) for run in runs], self._max_mismatch), self._forgotten)

    def _heard(self, peer: object) -> _Heard | None:
        try:
            heard = _Heard(State(peer, "a parity verdict"))
        except ValueError:
            return None
        return heard if heard.identity == self._identity else None

    def _text(self) -> str:
        share = f" ({self.diverged / self.compared:.2%})" if self.compared else ""
        text = f"{self.diverged:,} of {self.compared:,}{share} compared answers diverge; {self._max_mismatch:.2%} may"
        if self.is_quarantined:
            return f"{text}: quarantined until {self.needed_to_return:,} in a row agree, {self.agreeing:,} have"
        return text


class _Heard:
    """Evidence of a verdict, checked: raises ValueError."""

    __slots__ = ("agreeing", "identity", "is_quarantined", "returns", "runs")

    def __init__(self, values: State) -> None:
        self.identity = values.text("identity")
        self.returns = values.count("returns")
        self.agreeing = values.count("agreeing")
        self.is_quarantined = values.count("quarantined") > 0
        self.runs = [_run(value) for value in values.rows("runs")[-_MOST_RUNS:]]


def _run(value: object) -> list[int]:
    diverged, compared = (count(one, "a run of comparisons") for one in row(value, "a run of comparisons", 2))
    if diverged > compared:
        raise ValueError("a run of comparisons has more that diverged than was compared")
    return [diverged, compared]
