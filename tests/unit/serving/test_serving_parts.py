"""The parts of dispatch by themselves: gate, pool, lanes, error words."""

from __future__ import annotations

import threading

import pytest

from triton_router.serving.inline_gate import InlineGate
from triton_router.serving.target_errors import code_of
from triton_router.serving.worker_pool import WorkerPool


def lonely(gate: InlineGate, executions: int) -> list[bool]:
    return [gate.opens(requests=1, in_flight=0) for _ in range(executions)]


def test_the_gate_opens_after_a_lonely_run_and_keeps_looking() -> None:
    """Closed at first; then open, but for one execution in 32."""
    opened = lonely(InlineGate(enabled=True), 96)
    assert not any(opened[:8])
    assert sum(opened[8:]) == 88 - 3


def test_any_sign_of_concurrency_closes_the_gate() -> None:
    """Several requests in one execution, or one still in flight, start the run over."""
    for sign in ({"requests": 2, "in_flight": 0}, {"requests": 1, "in_flight": 1}):
        gate = InlineGate(enabled=True)
        lonely(gate, 20)
        assert not gate.opens(**sign)
        assert not any(lonely(gate, 8))


@pytest.mark.parametrize(("expected_ms", "short"), [(0.0, False), (0.3, True), (1.0, False), (1000.0, False)])
def test_only_requests_predicted_to_be_short_may_be_inline(expected_ms: float, short: bool) -> None:
    """A request of unknown or long latency never holds execute() up, however fast the others were."""
    assert InlineGate.is_short(expected_ms) is short


def test_a_gate_switched_off_stays_closed() -> None:
    """``dispatch.inline: false`` means never."""
    assert not any(lonely(InlineGate(enabled=False), 40))


def test_the_pool_grows_only_when_nobody_is_idle() -> None:
    """One job after another is served by one worker; jobs at once by as many as the limit allows."""
    pool = WorkerPool(4, name="test")
    names: list[str] = []
    for _ in range(10):
        done = threading.Event()
        pool.submit(lambda done=done: (names.append(threading.current_thread().name), done.set()))
        assert done.wait(60)
        while pool._spare == 0:  # the worker says so right after the job
            pass
    assert set(names) == {"test-0"}
    barrier = threading.Barrier(4)
    for _ in range(4):
        pool.submit(lambda: barrier.wait(60) and None)
    pool.close()
    assert not barrier.broken
    assert len(pool._threads) == 4


def test_only_an_idle_worker_takes_what_is_offered() -> None:
    """However many jobs have waited for a worker before, an offer to busy ones is refused."""
    pool = WorkerPool(1, name="test")
    first, busy, second, done = (threading.Event() for _ in range(4))

    def last() -> None:
        busy.set()
        second.wait(60)

    pool.submit(lambda: first.wait(60) and None)
    assert not pool.offer(done.set)
    for _ in range(3):
        pool.submit(lambda: None)
    pool.submit(last)
    first.set()
    assert busy.wait(60)
    assert not pool.offer(done.set)
    second.set()
    while not pool.offer(done.set):
        pass
    assert done.wait(60)
    pool.close()


def test_a_job_that_raises_costs_no_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """The exception is printed, and the next job is served."""
    pool = WorkerPool(1, name="test")

    def fail() -> None:
        raise RuntimeError("job failed")

    done = threading.Event()
    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(60)
    pool.close()
    assert "job failed" in capsys.readouterr().err


def test_a_pool_that_can_start_no_thread_refuses_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a single thread the job is refused, not queued for nobody; with some, they do it."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = WorkerPool(4, name="test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(lambda: None)
    release, done = threading.Event(), threading.Event()
    pool.submit(lambda: release.wait(60) and None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        pool.submit(done.set)
    release.set()
    assert done.wait(60)
    pool.close()


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
        ("Failed for execute the inference request. Model 'm' is not ready.", "UNAVAILABLE"),
        ("[request id: a] Exceeds maximum queue size", "UNAVAILABLE"),
        ("Model m - Error when running inference: [request id: a] Exceeds maximum queue size", "UNAVAILABLE"),
        (
            "Model m - Error when running inference: Failed for execute the inference request. Model 'm' is not ready.",
            "UNAVAILABLE",
        ),
        ("Model m 2 - Error when running inference: [request id: 7] unexpected shape for input 'X'", "INVALID_ARG"),
        ("Model m - Error when running inference: out of memory", "INTERNAL"),
        ("[request id: 7] expected 2 inputs but got 1 inputs for model 'm'", "INVALID_ARG"),
        ("[request id: 7] inference input 'X' data-type is 'INT32', but model 'm' expects 'FP32'", "INVALID_ARG"),
        (
            "inference request to model 'm' must specify a non-zero or non-empty correlation ID",
            "INVALID_ARG",
        ),
        (
            (
                "Model m - Error when running inference: inference request for sequence 7 to model 'm' must specify "
                "the START flag on the first request of the sequence"
            ),
            "INVALID_ARG",
        ),
        (
            "in ensemble 'e', inference request to model 'm' must specify batch-size 1 due to requirements",
            "INVALID_ARG",
        ),
        ("[request id: 7] expected number of inputs between 1 and 3 but got 4 inputs for model 'm'", "INVALID_ARG"),
        ("[request id: 7] input 'X' has no shape but model requires batch dimension for 'm'", "INVALID_ARG"),
        (
            "[request id: 7] All input dimensions should be specified for input 'X' for model 'm', got [1,-1]",
            "INVALID_ARG",
        ),
        (
            "[request id: 7] incomplete string length indicator for inference input 'X' for model 'm', expecting 4",
            "INVALID_ARG",
        ),
        (
            "[request id: 7] unexpected number of string elements 3 for inference input 'X' for model 'm', expecting 2",
            "INVALID_ARG",
        ),
        (
            "[request id: 7] expected 2 string elements for inference input 'X' for model 'm', got 1",
            "INVALID_ARG",
        ),
        (
            "[request id: 7] unexpected input 'Q' in request header that does not map to any ensemble inputs",
            "INVALID_ARG",
        ),
        ("timeout of the corresponding sequence has been expired", "UNAVAILABLE"),
        (
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            "UNAVAILABLE",
        ),
        ("in ensemble 'e', [overloaded] [retry-after-ms=7] 4 requests are under way", "UNAVAILABLE"),
        ("[deadline-exceeded] no answer within 7 ms: target 'x' was asked 7 ms ago", "UNAVAILABLE"),
        ("[invalid-argument] model 'm': the inputs do not fit the model: index 9 is out of range", "INVALID_ARG"),
        ("model 'm': the inputs do not fit the model", "INTERNAL"),
        ("said: [overloaded] [retry-after-ms=7] no room", "INTERNAL"),
        ("the scheduler: inference request to model 'm' must specify batch-size 1", "INTERNAL"),
        ("CUDA out of memory", "INTERNAL"),
        ("CUDA out of memory while processing inference request 17", "INTERNAL"),
        ("tokenizer is not ready", "INTERNAL"),
        ("worker died, request was cancelled by peer", "INTERNAL"),
        ("said: unexpected shape for input 'X'", "INTERNAL"),
        ("", "INTERNAL"),
    ],
)
def test_error_words_give_back_their_codes(message: str, code: str) -> None:
    """Triton's own sentences are recognised; anything else is INTERNAL."""
    assert code_of(message) == code
