"""Instances of one routed model see each other's load and learn from each other's answers, whatever becomes of one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, RoutingDecision, Target, Verdict
from triton_router.sharing import layout
from triton_router.sharing.board import Peer
from triton_router.sharing.instances import Instances
from triton_router.sharing.shared_file import SharedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVER = 1
SUCCESS = Outcome(Verdict.SUCCESS, 4.0)

PEER = """
import random, sys, time
from pathlib import Path
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.engine import RoutingEngine
from triton_router.routing.policies import policy_named
from triton_router.routing.types import Outcome, RoutingContext, Target, Verdict
from triton_router.sharing.instances import Instances

path, in_flight, answers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
targets = [(Target(name, f"m-{name}"), TargetProfile()) for name in "ab"]
engine = RoutingEngine(targets, policy_named("least-request"), rng=random.Random(1).random)
instances = Instances(path, int(sys.argv[4]), print)
instances.join()
instances.start(engine, lambda: print("saved", flush=True))
context = RoutingContext(2, 32.0, "a")
for _ in range(in_flight):
    engine.decide(context, time.monotonic())
print("ready", flush=True)
for number in range(answers):
    decision = engine.decide(RoutingContext(2, 32.0, "b"), time.monotonic())
    engine.finish(decision, Outcome(Verdict.SUCCESS, 7.0), time.monotonic())
    time.sleep(0.005)  # peers look for answers in time, and not only for the latest
engine.state(time.monotonic())
print("told", flush=True)
sys.stdin.readline()
instances.close()
"""


def engine(*names: str, policy: str = "least-request") -> RoutingEngine:
    """Return an engine over targets of which nothing is known."""
    targets = [(Target(name, f"m-{name}"), TargetProfile()) for name in names]
    return RoutingEngine(targets, policy_named(policy), rng=random.Random(3).random)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "m.v1"


@pytest.fixture
def join(path: Path) -> Iterator[Callable[..., Instances]]:
    """Let engines of this process share the file, each as an instance of its own."""
    joined: list[Instances] = []

    def one(sharer: RoutingEngine, warn: Callable[[str], None] = lambda _: None) -> Instances:
        instances = Instances(path, SERVER, warn)
        instances.join()
        instances.start(sharer, lambda: None)
        joined.append(instances)
        return instances

    yield one
    for instances in joined:
        instances.close()


class PeerProcess:
    """An instance in a process of its own; it shares when this returns."""

    def __init__(self, path: Path, in_flight: int = 0, answers: int = 0, server: int = SERVER) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PEER, str(path), str(in_flight), str(answers), str(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.says("ready")

    def says(self, word: str) -> None:
        """Wait for its next word."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Have it end as it should; nothing else if it has ended."""
        if self._process.poll() is None:
            self._process.communicate("end\n")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def peer(path: Path) -> Iterator[Callable[..., PeerProcess]]:
    """Start instances in processes of their own."""
    with contextlib.ExitStack() as stack:

        def start(**arguments: int) -> PeerProcess:
            process = PeerProcess(path, **arguments)
            stack.callback(process.end)
            return process

        yield start


def in_flight(sharer: RoutingEngine) -> dict[str, int]:
    """Return what an engine believes that its peers have in flight; a decision makes it look."""
    now = time.monotonic()
    sharer.finish(sharer.decide(RoutingContext(1, 1.0), now), Outcome(Verdict.CANCELLED, 0.0), now)
    return {target.target.name: target.peers_in_flight for target in sharer.snapshot(now)}


def test_load_is_counted_across_instances(join: Callable[..., Instances]) -> None:
    """What a peer has at a target counts as soon as it is there and until it is answered: two do not herd."""
    one, other = engine("a", "b"), engine("b", "a")
    seen = [join(one), join(other)]
    until(lambda: all(instances.status()["instances"] == 2 for instances in seen))
    held = [(one, one.decide(RoutingContext(1, 1.0, "a"), time.monotonic())) for _ in range(10)]
    until(lambda: in_flight(other) == {"b": 0, "a": 10})
    held += [(other, other.decide(RoutingContext(1, 1.0), time.monotonic())) for _ in range(10)]
    assert [decision.target.name for _, decision in held] == ["a"] * 10 + ["b"] * 10
    until(lambda: in_flight(one) == {"a": 0, "b": 10})
    for sharer, decision in held:
        sharer.finish(decision, SUCCESS, time.monotonic())
    until(lambda: in_flight(one) == {"a": 0, "b": 0})
    until(lambda: in_flight(other) == {"a": 0, "b": 0})


def instance_count(path: Path) -> int:
    """Return how many slots have an owner."""
    words = path.read_bytes()
    at = [layout.owner_at(slot) * layout.WORD for slot in range(layout.SLOTS)]
    return sum(any(words[place : place + layout.WORD]) for place in at)


def test_a_killed_peer_counts_no_more_and_its_slot_is_taken_again(
    path: Path, join: Callable[..., Instances], peer: Callable[..., PeerProcess]
) -> None:
    """Its load is forgotten as soon as the process is gone; the next instance takes the slot."""
    one = engine("a", "b")
    instances = join(one)
    process = peer(in_flight=5)
    until(lambda: in_flight(one) == {"a": 5, "b": 0})
    assert instances.status()["instances"] == 2
    process.signal(signal.SIGKILL)
    until(lambda: in_flight(one) == {"a": 0, "b": 0})
    assert instances.status()["instances"] == 1
    assert instance_count(path) == 2, "nobody has cleared the dead one's"
    again = peer(in_flight=3)
    until(lambda: in_flight(one) == {"a": 3, "b": 0})
    assert instance_count(path) == 2
    again.end()
    until(lambda: in_flight(one) == {"a": 0, "b": 0})
    assert instances.status()["problem"] == ""


def test_a_stopped_peer_keeps_its_slot(
    path: Path, join: Callable[..., Instances], peer: Callable[..., PeerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped for long is not counted, but it may wake up: two must never write to one slot."""
    monkeypatch.setattr(layout, "SILENT_NS", 300_000_000)
    one = engine("a", "b")
    join(one)
    process = peer(in_flight=5)
    until(lambda: in_flight(one)["a"] == 5)
    process.signal(signal.SIGSTOP)
    try:
        until(lambda: in_flight(one)["a"] == 0)
        join(engine("a"))
        assert instance_count(path) == 3
    finally:
        process.signal(signal.SIGCONT)
    until(lambda: in_flight(one)["a"] == 5)
    process.end()


def test_an_instance_in_another_server_shares_devices_and_no_targets(
    join: Callable[..., Instances], peer: Callable[..., PeerProcess]
) -> None:
    """Its models are others of the same names: its load slows ours down, but does not stand in line with ours."""
    one = engine("a", "b")
    join(one)
    peer(in_flight=5, server=2)
    seen: list[RoutingDecision] = []

    def look() -> bool:
        seen.append(one.decide(RoutingContext(1, 1.0, "a"), time.monotonic()))
        return seen[-1].load.company == 5

    until(look)
    assert seen[-1].load.here == len(seen) - 1, "at the target are ours alone"
    assert all(target.peers_in_flight == 0 for target in one.snapshot(time.monotonic()))


def test_instances_learn_as_one(join: Callable[..., Instances], peer: Callable[..., PeerProcess]) -> None:
    """An answer that one was given teaches all, once: they predict alike, and count what they were asked themselves."""
    one = engine("a", "b")
    join(one)
    process = peer(answers=300)
    process.says("told")

    def known() -> int:
        return {target.target.name: target.latency.count for target in one.snapshot(time.monotonic())}["b"]

    until(lambda: known() >= 290)
    time.sleep(0.3)
    assert 290 <= known() <= 300, "none is learned twice"
    (b,) = [target for target in one.snapshot(time.monotonic()) if target.target.name == "b"]
    assert b.latency.p50_ms == pytest.approx(7.0, rel=0.1)
    assert b.chosen == 0
    assert b.latency.predicted == 0, "the figures of predictions are counted where they were made"
    now = time.monotonic()
    assert one.decide(RoutingContext(2, 32.0, "b"), now).expected_latency_ms == pytest.approx(7.0, rel=0.1)
    process.end()


def test_a_newcomer_has_the_others_write_down_what_they_know(path: Path, peer: Callable[..., PeerProcess]) -> None:
    """It asks, and waits no longer than they take; where nobody serves it does not wait."""
    process = peer()
    process.says("told")
    newcomer = Instances(path, SERVER, lambda _: None)
    newcomer.join()
    assert newcomer.ask_to_save(10.0)
    newcomer.close()
    process.says("saved")
    process.end()
    assert not path.exists(), "the last one removes the file"
    alone = Instances(path, SERVER, lambda _: None)
    alone.join()
    assert not alone.ask_to_save(3600.0)
    alone.close()


@pytest.mark.parametrize(
    "content",
    [b"x", b"x" * layout.TOTAL_WORDS * layout.WORD, bytes(layout.TOTAL_WORDS * layout.WORD)],
    ids=["short", "noise", "zeros"],
)
def test_a_corrupt_file_is_set_aside(path: Path, content: bytes) -> None:
    """It is never believed; the instances share a new one, and say what happened."""
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    said: list[str] = []
    instances = Instances(path, SERVER, said.append)
    instances.join()
    assert "set aside as m.v1.corrupt-1" in instances.status()["problem"]
    assert path.with_name("m.v1.corrupt-1").read_bytes() == content
    assert len(said) == 1
    assert instance_count(path) == 1
    instances.close()


def test_nonsense_of_a_peer_is_not_believed(path: Path, join: Callable[..., Instances]) -> None:
    """Loads that no instance can have, and answers that nobody can have had, are left out and reported."""
    one = engine("a", "b")
    said: list[str] = []
    instances = join(one, said.append)
    file = SharedFile(path, SERVER)
    at = layout.slot_at(file.slot)
    words, doubles = file.words, file.doubles
    rng = random.Random(8)
    try:
        until(lambda: instances.status()["instances"] == 2)
        for number in range(1, 200):
            for word in range(layout.NAMES, layout.SLOT_WORDS):
                if rng.random() < 0.2:
                    words[at + word] = rng.getrandbits(64)
            doubles[at + layout.TIME] = rng.choice([float("nan"), float("inf"), -1e300])
            words[at + layout.TOLD] = number * rng.choice([1, 1, 1 << 40])
            words[at + layout.CHANGES] = number
            in_flight(one)
        until(lambda: said)
    finally:
        file.close()
    assert in_flight(one)["a"] < layout.MOST_IN_FLIGHT
    assert all(target.latency.count == 0 for target in one.snapshot(time.monotonic()))


def test_a_peer_that_takes_back_what_it_told_keeps_nobody_busy(path: Path) -> None:
    """Its count of answers leaps ahead and falls back: of the trillions between nothing is read but what has room."""
    path.parent.mkdir(mode=0o700)
    file = SharedFile(path, SERVER)
    try:
        told = layout.slot_at(file.slot) + layout.TOLD
        peer = Peer(file, file.slot, 0, shares_targets=True)
        for number in (1 << 40, 3, 5, 1 << 50, 0, 0):
            file.words[told] = number
            assert peer.answers() == []
    finally:
        file.close()


def test_where_nothing_can_be_shared_the_instance_serves_alone(path: Path) -> None:
    """A directory that others can write to, and one that cannot be made: said, and shown."""
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    said: list[str] = []
    for place in (path, path.parent.parent / "missing" / "deep" / "m.v1"):
        instances = Instances(place, SERVER, said.append)
        instances.join()
        instances.start(engine("a"), lambda: None)
        assert instances.status() == {"file": str(place), "instances": 1, "problem": said[-1]}
        instances.close()
    assert "not a directory for this user alone" in said[0]
    assert "No such file" in said[1]


def test_what_is_shared_is_for_one_user_alone(path: Path) -> None:
    """Directory 0700 and file 0600, whatever the umask; and a slot more is memory only when it is taken."""
    previous = os.umask(0)
    try:
        file = SharedFile(path, SERVER)
    finally:
        os.umask(previous)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 <= (layout.HEADER_WORDS + 2 * layout.SLOT_WORDS) * layout.WORD
    file.close()


def test_more_instances_than_slots_serve_by_themselves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that finds no slot says so; when another ends, there is room again."""
    monkeypatch.setattr(layout, "SLOTS", 2)
    files = [SharedFile(path, SERVER), SharedFile(path, SERVER)]
    surplus = Instances(path, SERVER, lambda _: None)
    surplus.join()
    assert "no slot left" in surplus.status()["problem"]
    files.pop().close()
    late = Instances(path, SERVER, lambda _: None)
    late.join()
    assert late.status()["problem"] == ""
    late.close()
    files.pop().close()
