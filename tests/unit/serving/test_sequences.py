"""Sequences stay with the target that holds their state, whatever is refused, loaded afresh or killed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.serving.failing_targets import GOOD, Gate, Rig, answer_of, error, message_of, until
from triton_router.config.resilience_settings import QueueConfig
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.policies import policy_named
from triton_router.routing.rules import RoutingRules
from triton_router.routing.types import Backend, Target
from triton_router.serving.sequence_places import SequencePlaces
from triton_router.serving.sequences import Lane, SequenceLanes
from triton_router.sharing.sequence_file import SequenceFile
from triton_router.testing.fake_stub import FakeRequest, TritonError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START, END = 1, 2
WRONG: dict[str, Any] = {"params": {"router_priority": "urgent"}}


def member(flags: int = 0, correlation: int | str = 7, **options: Any) -> FakeRequest:
    return FakeRequest(correlation=correlation, sequence_flags=flags, **options)


def test_an_end_that_is_refused_is_sent_again() -> None:
    """Its sequence is still known, whether the request itself was wrong or the router full."""
    gate = Gate()
    rig = Rig(lambda _, arguments: GOOD if arguments["correlation_id"] else gate(GOOD), queue=QueueConfig(limit=1))
    rig.answered(member(START))
    rig.execute(busy := FakeRequest())
    assert "[overloaded]" in message_of(*rig.answered(member(END)))
    gate.open()
    answer_of(busy)
    assert "router_priority" in message_of(*rig.answered(member(END, **WRONG)))
    assert not rig.answered(member(END))[0].has_error()
    assert rig.closed() == {"refused_full": 1}
    assert [reason for _, reason, _ in rig.verdicts()] == ["policy", "policy", "sequence"]


def test_an_end_that_the_target_refuses_or_never_gets_is_sent_again() -> None:
    """Its target found it wrong, or its time passed behind the request before it."""
    gate = Gate()

    def serve(_: str, arguments: dict[str, Any]) -> Any:
        if (arguments["parameters"] or {}).get("wrong"):
            return error("unexpected shape", TritonError.INVALID_ARG)
        return gate(GOOD) if arguments["parameters"] else GOOD

    rig = Rig(serve)
    rig.answered(member(START))
    rig.answered(member(END, params={"wrong": True}))
    rig.execute(slow := member(params={"slow": True}))
    assert "[deadline-exceeded]" in message_of(*rig.answered(member(END, timeout_us=20_000)))
    gate.open()
    answer_of(slow)
    assert not rig.answered(member(END))[0].has_error()
    until(lambda: len(rig.outcomes) == 5)
    assert [reason for _, reason, _ in rig.verdicts()] == ["policy", *["sequence"] * 4]
    rig.answered(member())
    rig.closed()
    assert rig.verdicts()[-1][1] == "policy", "it has ended"


def test_a_start_that_is_refused_ends_nothing() -> None:
    """The sequence that runs under this id goes on where it is; one that starts well takes its place."""
    rig = Rig(lambda _, __: GOOD)
    rig.answered(member(START))
    rig.answered(member(START, **WRONG))
    rig.answered(member(), member(START), member(END))
    rig.closed()
    assert [reason for _, reason, _ in rig.verdicts()] == ["policy", "sequence", "policy", "sequence"]


def test_an_end_leaves_a_sequence_that_has_begun_anew() -> None:
    """Its client did not wait: the next sequence of this id has started when the former's last request is served."""
    gate = Gate()
    rig = Rig(lambda _, arguments: gate(GOOD) if arguments["flags"] == END else GOOD)
    rig.answered(member(START))
    rig.execute(end := member(END))
    rig.answered(member(START))
    gate.open()
    answer_of(end)
    rig.answered(member())
    rig.closed()
    assert rig.verdicts()[-1][1] == "sequence"


def test_an_edit_that_gives_its_targets_name_away_moves_no_sequence() -> None:
    """Its requests go to the model that holds its state; new ones to the model that has the name."""
    rig = Rig(lambda _, __: GOOD, targets=1)
    rig.answered(member(START))
    rig.engine.reconfigure(policy_named("latency"), RoutingRules(), [(Target("t0", "other"), TargetProfile())], kept=())
    rig.answered(member(), member(START, 8), member(END))
    rig.dispatcher.close()
    assert sorted(rig.calls) == ["other", "t0", "t0", "t0"]


def test_lanes_are_bounded() -> None:
    """The longest unused is forgotten beyond the limit."""
    lanes: SequenceLanes[int] = SequenceLanes(limit=2)
    first = Lane[int]()
    for name in ("a", "b", "a", "c"):
        lanes.keep(name, first)
    assert [lanes.find(name) is first for name in "abc"] == [True, False, True]


class Served:
    """A routed model that is loaded again and again beside the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []

    def loaded(self, *, targets: int = 2, prefers: int = 0) -> Rig:
        """Return a fresh instance; what is routed in it goes to one target."""
        backends = [Backend.CPU if number == prefers else Backend.GPU for number in range(targets)]
        rig = Rig(lambda _, __: GOOD, backends=backends)
        places = SequencePlaces(
            SequenceFile(self.path), lambda: [seen.target for seen in rig.engine.snapshot(0.0)], self.said.append
        )
        rig.dispatcher.sequences.places = places
        return rig


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "sequences")


def went(rig: Rig, *requests: FakeRequest) -> list[tuple[str, str]]:
    """Send requests one after the other; return where each went, and why."""
    places: list[tuple[str, str]] = []
    for number, request in enumerate(requests, len(rig.outcomes) + 1):
        rig.answered(request)
        until(lambda number=number: len(rig.outcomes) == number)
        places.append(rig.verdicts()[-1][:2])
    return places


def only_cpu(flags: int = 0, correlation: int | str = 7) -> FakeRequest:
    return member(flags, correlation, params={"router_backends": "cpu"})


def test_sequences_outlive_the_instance_that_serves_them(served: Served) -> None:
    """Loaded afresh while the former still runs, after it, or after it was killed: each goes on at its target."""
    served.path.parent.chmod(0o700)
    former = served.loaded()
    went(former, only_cpu(START), only_cpu(START, "seven"), only_cpu(START, 8), member(END, 8))
    beside = served.loaded(prefers=1)
    assert went(beside, member(), only_cpu(0, 8), only_cpu(START, 9)) == [
        ("t0", "sequence"),
        ("t1", "policy"),
        ("t1", "policy"),
    ]
    former.closed()
    beside.closed()
    killed = served.loaded(prefers=1)
    went(killed, member(0, "seven"), member(0, 9), only_cpu(START, 10))
    after = served.loaded()
    ends = [member(END, name) for name in (7, "seven", 8, 9, 10)]
    assert went(after, *ends) == [(target, "sequence") for target in ("t0", "t0", "t1", "t1", "t1")]
    after.closed()
    assert not served.path.exists(), "nothing is left to remember"
    assert served.said == []


def test_a_sequence_whose_target_is_no_more_is_told_so(served: Served) -> None:
    """Once: whoever goes on nevertheless is routed like any other."""
    served.path.parent.chmod(0o700)
    former = served.loaded(prefers=1)
    former.answered(only_cpu(START))
    former.closed()
    smaller = served.loaded(targets=1)
    (answer,) = smaller.answered(member())
    assert answer.error().code() == TritonError.INVALID_ARG
    assert "is not one of the routed model's any more (hint: begin the sequence anew)" in message_of(answer)
    assert not smaller.answered(member())[0].has_error()
    smaller.closed()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.mkdir(), id="directory"),
        pytest.param(lambda path: path.symlink_to("/dev/full"), id="link"),
        pytest.param(lambda path: path.parent.chmod(0o755), id="others-may-read"),
    ],
)
def test_sequences_go_on_where_nothing_can_be_remembered(served: Served, spoil: Callable[[Path], None]) -> None:
    """As far as the instance lives; the log says once what that means."""
    served.path.parent.chmod(0o700)
    spoil(served.path)
    rig = served.loaded()
    for answer in rig.answered(member(START), member(), member(END), member(START, 8)):
        assert not answer.has_error()
    rig.closed()
    (said,) = served.said
    assert "have to begin anew" in said
