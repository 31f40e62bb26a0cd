"""The parts of dispatch by themselves: gate, pool, lanes, error words."""

from __future__ import annotations

import threading

import pytest

from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.sequences import SequenceLanes
from triton_router.serving.target_errors import code_of, without_bls_prefix
from triton_router.serving.worker_pool import WorkerPool


def lonely(gate: InlineGate, executions: int) -> list[bool]:
    return [gate.opens(requests=1, in_flight=0) for _ in range(executions)]


def test_the_gate_opens_after_a_lonely_run_and_keeps_looking() -> None:
    """Closed at first; then open, but for one execution in 32."""
    gate = InlineGate(enabled=True)
    gate.called(0.0002)
    opened = lonely(gate, 96)
    assert not any(opened[:8])
    assert sum(opened[8:]) == 88 - 3


def test_any_sign_of_concurrency_closes_the_gate() -> None:
    """Several requests in one execution, or one still in flight, start the run over."""
    for sign in ({"requests": 2, "in_flight": 0}, {"requests": 1, "in_flight": 1}):
        gate = InlineGate(enabled=True)
        gate.called(0.0002)
        lonely(gate, 20)
        assert not gate.opens(**sign)
        assert not any(lonely(gate, 8))


def test_slow_models_are_never_served_inline() -> None:
    """A mean call of a millisecond or more keeps the gate closed; one slow call among fast ones does not."""
    gate = InlineGate(enabled=True)
    for _ in range(50):
        gate.called(0.004)
    assert not any(lonely(gate, 40))
    gate = InlineGate(enabled=True)
    for _ in range(50):
        gate.called(0.0002)
    gate.called(1.0)
    assert any(lonely(gate, 40))


def test_a_gate_switched_off_stays_closed() -> None:
    """``dispatch.inline: false`` means never."""
    gate = InlineGate(enabled=False)
    gate.called(0.0001)
    assert not any(lonely(gate, 40))


def test_the_pool_grows_only_when_nobody_is_idle() -> None:
    """One job after another is served by one worker; jobs at once by as many as the limit allows."""
    pool = WorkerPool(4, name="test")
    names: list[str] = []
    for _ in range(10):
        done = threading.Event()
        pool.submit(lambda done=done: (names.append(threading.current_thread().name), done.set()))
        assert done.wait(5)
        while pool._idle._value == 0:  # the worker says so right after the job
            pass
    assert set(names) == {"test-0"}
    barrier = threading.Barrier(4)
    for _ in range(4):
        pool.submit(lambda: barrier.wait(5) and None)
    pool.close()
    assert not barrier.broken
    assert len(pool._threads) == 4


def test_a_job_that_raises_costs_no_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """The exception is printed, and the next job is served."""
    pool = WorkerPool(1, name="test")

    def fail() -> None:
        raise RuntimeError("job failed")

    done = threading.Event()
    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(5)
    pool.close()
    assert "job failed" in capsys.readouterr().err


def test_lanes_are_bounded_and_restart_with_the_sequence() -> None:
    """The longest unused pin is forgotten beyond the limit; a start flag begins a fresh lane."""
    lanes: SequenceLanes[int] = SequenceLanes(limit=2)
    first = lanes.lane("a", start=True)
    first.target = "t1"
    assert lanes.lane("a", start=False) is first
    lanes.lane("b", start=True)
    lanes.lane("a", start=False)
    lanes.lane("c", start=True)
    assert lanes.lane("a", start=False) is first
    assert lanes.lane("b", start=False).target == ""
    assert lanes.lane("a", start=True) is not first


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("in ensemble 'e', [request id: <id_unknown>] unexpected shape for input 'X' for model 'm'", "INVALID_ARG"),
        ("[request id: 3] inference request batch-size must be <= 8 for 'm'", "INVALID_ARG"),
        ("unexpected inference input 'Q', allowed inputs are: X", "INVALID_ARG"),
        ("Model 'm' version 1 is not ready.", "UNAVAILABLE"),
        ("Model 'm' is not ready.", "UNAVAILABLE"),
        ("Exceeds maximum queue size", "UNAVAILABLE"),
        ("Request for unknown model: 'm' is not found", "NOT_FOUND"),
        ("CUDA out of memory", "INTERNAL"),
        ("", "INTERNAL"),
    ],
)
def test_error_words_give_back_their_codes(message: str, code: str) -> None:
    """Triton's own sentences are recognised; anything else is INTERNAL."""
    assert code_of(message) == code


def test_the_prefix_of_bls_is_taken_off() -> None:
    """What a direct caller would have read is what the client gets."""
    assert without_bls_prefix("Failed to process the request(s) for model 'm', message: x: y") == "x: y"
    assert without_bls_prefix("x: y") == "x: y"
