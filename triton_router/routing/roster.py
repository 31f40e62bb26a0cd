"""The targets of one engine: who they are, and what each has in flight, here and for other instances."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from triton_router.errors import RequestError
from triton_router.routing import membership
from triton_router.routing.peers import Peers
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import COPIES, RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.health_watch import HealthWatch
    from triton_router.routing.peers import LoadBoard
    from triton_router.routing.policies import Policy
    from triton_router.routing.protocols import Candidate, Device
    from triton_router.routing.types import Backend, RoutingContext, Target


class Roster:
    """Keeps the targets of one engine and reserves slots at them; under the engine's lock.

    Args:
        watch: Is told of slots at targets that are not simply well.

    Attributes:
        present: The targets, in the order of the configuration.
        departed: Those that were removed and are still known, oldest first.
        by_name: All of these; a present one hides one that left under its name.
        devices: Theirs, each once.
        peers: What other instances have in flight at them.
        board: Where these see it, or None.
        in_flight: Slots that are reserved, all together.
    """

    __slots__ = ("_rules", "_watch", "board", "by_name", "departed", "devices", "in_flight", "peers", "present")

    def __init__(self, watch: HealthWatch) -> None:
        self._watch = watch
        self._rules = RoutingRules()
        self.present: list[Candidate] = []
        self.departed: list[Candidate] = []
        self.by_name: dict[str, Candidate] = {}
        self.devices: list[Device] = []
        self.peers = Peers()
        self.board: LoadBoard | None = None
        self.in_flight = 0

    @property
    def removed(self) -> list[Candidate]:
        """Those that departed and whose name is not present; of several with one name the last."""
        names = {candidate.target.name for candidate in self.present}
        return list({c.target.name: c for c in self.departed if c.target.name not in names}.values())

    def admit(self, targets: Iterable[tuple[Target, TargetProfile]], kept: Collection[str]) -> None:
        """Have these targets from now on; see `membership.candidates`. What is in flight elsewhere stays known."""
        known = [*self.departed, *self.present]
        self.present = membership.candidates(targets, known=known, kept=kept)
        self.departed = membership.departed(known, self.present)
        everyone = [*self.departed, *self.present]
        self.by_name = {candidate.target.name: candidate for candidate in everyone}
        self.devices = membership.devices_of(everyone)
        for device in self.devices:
            device.shared_by(sum(candidate.device is device for candidate in self.present))
        self.peers.meet(self.present)
        self._moor()

    def go_by(self, rules: RoutingRules) -> None:
        """Weigh, bound and count by other rules from now on."""
        self._rules = rules
        for device in self.devices:
            device.empty()
        for candidate in self.present:
            candidate.weight = rules.weight_of(candidate.target.backend)
            candidate.cap = rules.resilience.caps.get(candidate.target.name, inf)
            candidate.is_preferred = candidate.target.backend in rules.preferred_backends
        if rules.balance:
            for candidate in (*self.present, *self.departed):
                candidate.count_in()

    def share(self, board: LoadBoard | None) -> None:
        """Post load on a board from now on and count the peers' load there; None to end that."""
        self.board = board
        self._moor()

    def settle_devices(self, now: float) -> None:
        """Bring the utilization of all devices up to ``now``, in monotonic seconds."""
        for device in self.devices:
            device.settle(now)

    def look(self, now: float) -> None:
        """Count the load that the peers have posted, if there are any; ``now`` in monotonic seconds."""
        loads = self.board.loads(now) if self.board is not None else None
        if loads is not None:
            self.peers.carry(loads if self._rules.balance else ())

    def reserve(
        self, asked: tuple[RoutingContext, float], candidate: Candidate, reason: str, policy: Policy | None
    ) -> RoutingDecision:
        """Reserve a slot at a target whose figures for the request have been predicted.

        Args:
            asked: The context and its work.
            candidate: The target.
            reason: Why it is this one; see `RoutingDecision`.
            policy: Chose it; None where there was nothing to choose.
        """
        context, work = asked
        self.in_flight += 1
        load = candidate.load()
        candidate.take(candidate.alone_ms, counted=self._rules.balance)
        candidate.chosen += reason not in COPIES
        if self.board is not None:
            self.board.post(candidate)
        decision = RoutingDecision(
            candidate.target,
            reason,
            policy,
            candidate.expected_latency_ms,
            candidate.alone_ms,
            candidate.confidence,
            1.0,
            context,
            work,
            load,
            (),
            candidate,
            (),
        )
        if not candidate.health.is_well:
            self._watch.reserved(decision)
        return decision

    def release(self, decision: RoutingDecision, now: float) -> None:
        """Release the slot that was reserved with a decision, once; ``now`` in monotonic seconds."""
        if decision.is_released:
            return
        decision.is_released = True
        candidate = decision.candidate
        if self._rules.max_backend_utilization:
            candidate.device.settle(now)
        self.in_flight -= 1
        candidate.release(decision.alone_ms, counted=self._rules.balance)
        if self.board is not None:
            self.board.post(candidate)

    def holder_of(self, context: RoutingContext) -> Candidate:
        """Return the target that a request is pinned to, as it holds its sequence's state.

        Raises:
            RequestError: It was removed so long ago that it is not known any more.
        """
        name, earlier = context.pinned, context.holder
        holder = self.by_name.get(name)
        if holder is not None and earlier is not None and not holder.target.may_hold_what(earlier):
            namesakes = (c for c in reversed(self.departed) if c.target.name == name)
            holder = next((c for c in namesakes if c.target.may_hold_what(earlier)), None)
        if holder is None:
            raise RequestError(
                f"target {name!r}, which holds this sequence's state, has been removed long ago",
                hint="begin the sequence anew",
            )
        return holder

    def sole_busy(self, backend: Backend) -> str:
        """Return the name of the only target of a backend with requests in flight; "" if there is none, or several."""
        everyone = (*self.present, *self.departed)
        busy = [c.target.name for c in everyone if (c.in_flight or c.peers_in_flight) and c.target.backend is backend]
        return busy[0] if len(busy) == 1 else ""

    def _moor(self) -> None:
        self.peers.carry(())
        if self.board is not None:
            self.board.moor([*self.present, *self.departed])
