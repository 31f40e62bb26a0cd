"""What happens to the router itself and to the server: restarted, reloaded, and asked for far too much."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from tests.chaos.conftest import HEALTH, ROUTED, TARGETS
from triton_router.errors import TritonRouterError
from triton_router.testing.chaos import Chaos, await_event
from triton_router.testing.checked_load import Habits
from triton_router.testing.ports import free_ports
from triton_router.testing.served_triton import end, served_triton
from triton_router.testing.switched_fleet import SwitchedFleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.triton

OVERLOAD = 10


def test_a_killed_server_starts_with_what_it_had_learned(tmp_path: Path) -> None:
    """A kill -9 of tritonserver: clients lose their connections, none gets another's answer; a new one knows it all."""
    fleet = SwitchedFleet(tmp_path)
    for target in ("a", "b"):
        fleet.add_target(target)
    fleet.add_routed("routed", ["a", "b"], policy="least-request", health=HEALTH, state={"interval_s": 1})
    state, ports = tmp_path / "state", free_ports(3)
    patient = Habits(seconds=250.0, pause_after_error_s=0.1)
    with (
        served_triton(fleet.repository, tmp_path / "log", state=state, ports=ports) as served,
        served.load("routed", patient) as load,
    ):
        await_event(lambda: served.status("routed")["state"]["saved_at"] > 0, "a snapshot")
        answered = load.seen.answered
        os.kill(served.server_pid, signal.SIGKILL)
        began = time.monotonic()
        assert served.process.wait(120) == 128 + signal.SIGKILL
        with served_triton(fleet.repository, tmp_path / "log", state=state, ports=ports) as again:
            before = load.seen.answered
            await_event(lambda: load.seen.answered > before + 200, "answers of the new server")
            back_s = time.monotonic() - began
            status = again.status("routed")
            seen = load.stop()
            assert end(again.process) == 0
    print(f"kill -9 of the server: {seen.line()}, serving again {back_s:.1f} s, {answered} answers before")
    assert sorted(status["state"]["inherited"]) == ["a", "b"]
    assert (seen.missing, seen.wrong_count) == (0, 0), seen.wrong
    assert seen.accounted == seen.asked


def test_settings_change_under_load(chaos: Chaos) -> None:
    """A new router.yaml is followed by the process that runs, and loses no request."""

    def targets() -> list[str]:
        try:
            status: dict[str, Any] = chaos.served.status("routed")
        except TritonRouterError:
            return []
        return [target["target"]["name"] for target in status["targets"] if not target["removed"]]

    with chaos.scene("hot reload", "routed") as scene:
        pid = chaos.stub("routed")
        chaos.fleet.configure("routed", ["a", "b"], **ROUTED)
        took = await_event(lambda: targets() == ["a", "b"], "the new settings")
        scene.figures["settings in force"] = f"{took:.2f} s"
        scene.await_answers(100)
        chaos.fleet.configure("routed", list(TARGETS), **ROUTED)
        await_event(lambda: targets() == list(TARGETS), "the old settings")
        scene.await_answers(100)
        assert chaos.stub("routed") == pid
    assert scene.seen.asked == scene.seen.answered, (scene.seen.line(), scene.seen.failures)
    assert scene.in_flight == 0


def test_running_sequences_outlive_the_process_of_their_routed_model(chaos: Chaos) -> None:
    """Loaded afresh, then stopped, ended and repaired: each goes on where its state is, and nothing is lost."""
    with grpc_client.InferenceServerClient(chaos.served.grpc_url) as client:

        def add(sequence: int, number: int, **flags: bool) -> int:
            tensor = grpc_client.InferInput("X", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[number]], np.int32))
            return int(client.infer("summed", [tensor], sequence_id=sequence, **flags).as_numpy("SUM")[0, 0])

        sequences = range(1, 9)
        assert [add(sequence, 1, sequence_start=True) for sequence in sequences] == [1] * len(sequences)
        chaos.reload("summed")
        assert [add(sequence, 10) for sequence in sequences] == [11] * len(sequences)
        os.kill(chaos.stub("summed"), signal.SIGSTOP)
        await_event(lambda: answers(lambda: add(99, 1, sequence_start=True, sequence_end=True)), "a repair")
        assert [add(sequence, 100, sequence_end=True) for sequence in sequences] == [111] * len(sequences)


def answers(ask: Callable[[], object]) -> bool:
    """Whether a request is answered."""
    try:
        ask()
    except InferenceServerException:
        return False
    return True


def test_ten_times_too_much(chaos: Chaos) -> None:
    """Asked for ten times what its targets can do, a router does nearly as much as before and refuses the rest."""
    bound_ms, seconds, alone_s = 1000, 6.0, 3.0
    with chaos.served.load("busy", Habits(clients=8, grpc_clients=0, seconds=alone_s)) as load:
        peak = load.wait().answered / alone_s
    bound = {"router_max_latency_ms": bound_ms}
    flood = Habits(clients=400, grpc_clients=0, rate=OVERLOAD * peak, seconds=seconds, parameters=bound)
    with chaos.served.load("busy", flood) as load:
        seen = load.wait()
    in_time = sum(latency <= bound_ms for latency in seen.latencies_ms)
    # Answers to the last questions come when nobody asks any more.
    goodput = in_time / (seconds + bound_ms / 1e3)
    chaos.await_idle("busy")
    print(f"10x overload: peak {peak:.0f}/s, goodput {goodput:.0f}/s ({goodput / peak:.0%}), {seen.line()}")
    print(f"  {dict(seen.failures.most_common(4))}")
    assert (seen.missing, seen.wrong_count, seen.not_asked) == (0, 0, 0), seen.wrong
    assert seen.accounted == seen.asked
    assert goodput > 0.7 * peak
    assert all("[retry-after-ms=" in text or "[deadline-exceeded]" in text for text in seen.failures), seen.failures
    with chaos.scene("after it", "busy", Habits(clients=2, grpc_clients=0)) as scene:
        scene.await_answers(20)
    assert scene.seen.asked == scene.seen.answered, scene.seen.failures
    assert scene.in_flight == 0
