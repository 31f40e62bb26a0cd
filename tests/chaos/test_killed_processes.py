"""``serve`` watches over the processes of models: a killed one is loaded anew, the router's own too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.test_targets_fail import assert_nobody_noticed
from triton_router.testing.chaos import await_event
from triton_router.testing.checked_load import Habits
from triton_router.testing.process_figures import stubs_of

if TYPE_CHECKING:
    from triton_router.testing.chaos import Chaos

pytestmark = pytest.mark.triton


def test_a_killed_target_is_replaced_and_repaired(chaos: Chaos) -> None:
    """A kill -9 of a target's process: others answer for it, it is left out, loaded anew, and takes part again.

    The same for requests that were merged into one call with others.
    """
    habits = Habits(clients=6, grpc_clients=2)
    with (
        chaos.served.load("merged", habits) as merged,
        chaos.scene("kill -9 of a target", "routed", habits) as scene,
    ):
        pid = chaos.kill_stub("a")
        scene.await_out("a")
        scene.await_back("a")
        assert chaos.stub("a") != pid
        seen = merged.stop()
    print(f"  merged meanwhile: {seen.line()}")
    assert_nobody_noticed(scene)
    assert seen.asked == seen.answered, (seen.line(), seen.failures, seen.wrong)
    assert chaos.await_idle("merged") == 0


def test_a_killed_router_comes_back(chaos: Chaos) -> None:
    """A kill -9 of the router's process: only what was in flight hangs, and new requests are served again."""
    # Longer than a repair takes: who has given up asks again, and is to find the new process.
    habits = Habits(clients=12, grpc_clients=4, patience_s=12.0, pause_after_error_s=0.1)
    with chaos.scene("kill -9 of the router", "routed", habits) as scene:
        pid = chaos.kill_stub("routed")
        took = await_event(
            lambda: stubs_of(chaos.served.server_pid, "routed") not in ([], [pid]), "a new process of the router"
        )
        scene.figures["process back"] = f"{took:.2f} s"
        scene.await_answers(1)
        scene.figures["answers again"] = f"{time.monotonic() - scene.began:.2f} s"
        scene.await_answers(200)
    seen = scene.seen
    assert seen.missing <= habits.clients + habits.grpc_clients, seen.line()
    assert seen.wrong_count == 0, seen.wrong
    assert seen.accounted == seen.asked
    assert scene.in_flight == 0
    with chaos.scene("after it", "routed") as scene:
        scene.await_answers(200)
    assert scene.seen.asked == scene.seen.answered, scene.seen.failures
