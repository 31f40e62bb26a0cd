"""What a target does reaches no client while another can serve: unloaded, hanging, failing, slow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from triton_router.testing.checked_load import Habits

if TYPE_CHECKING:
    from triton_router.testing.chaos import Chaos, Scene

pytestmark = pytest.mark.triton

ALL = ("a", "b", "c")


def assert_nobody_noticed(scene: Scene) -> None:
    """Every question got its own answer, and no slot is left taken."""
    seen = scene.seen
    assert seen.asked == seen.answered, (seen.line(), seen.failures, seen.wrong)
    assert not seen.not_numbers
    assert scene.in_flight == 0


def test_an_unloaded_target_is_left_out_until_it_is_loaded(chaos: Chaos) -> None:
    """Unloading a target and loading it again, later, fails no request."""
    with chaos.scene("unload and load of a target", "routed") as scene:
        chaos.served.unload_model("a")
        scene.await_out("a")
        chaos.served.load_model("a")
        scene.await_back("a")
    assert_nobody_noticed(scene)


def test_reloading_targets_fails_nothing(chaos: Chaos) -> None:
    """Two targets reloaded one after the other under load: no request notices."""
    with chaos.scene("reload of two targets", "routed") as scene:
        for target in ("a", "b"):
            chaos.reload(target)
        scene.await_back(*ALL)
    assert_nobody_noticed(scene)


def test_a_hanging_target_is_given_up(chaos: Chaos) -> None:
    """A target that stops answering: its requests are answered by others, and it is back when it answers again."""
    with chaos.scene("hang of a target", "routed") as scene:
        chaos.fleet.switch("a", "hang")
        scene.await_out("a")
        chaos.fleet.switch("a")
        scene.await_back("a")
    assert_nobody_noticed(scene)


def test_a_failing_target_is_left_out(chaos: Chaos) -> None:
    """Errors of any kind, exceptions and failed allocations of a target reach no client."""
    for line in ("error:INTERNAL:broken", "error:UNAVAILABLE:busy", "raise:broken", "memory"):
        with chaos.scene(f"target answers {line}", "routed") as scene:
            chaos.fleet.switch("a", line)
            scene.await_out("a")
            chaos.fleet.switch("a")
            scene.await_back("a")
        assert_nobody_noticed(scene)


def test_a_slow_target_loses_its_share(chaos: Chaos) -> None:
    """A target that NaN makes a hundred times slower, and that answers NaN: its peers take over most of its part.

    What it answers is what its clients get: the router changes no answer.
    """
    with chaos.scene("slow and NaN", "routed") as scene:
        chaos.fleet.switch("a", "nan:0.1")
        scene.await_answers(500)
        chaos.fleet.switch("a")
        scene.figures["NaN"] = f"{scene.seen.not_numbers}"
        scene.figures["out"] = "yes" if any("a" in look.out for look in scene.watch.looks) else "no"
    seen = scene.seen
    assert seen.asked == seen.answered, (seen.line(), seen.failures, seen.wrong)
    assert 0 < seen.not_numbers < 500 / 5
    assert scene.in_flight == 0


def test_all_targets_out_and_back(chaos: Chaos) -> None:
    """With no target left clients get the targets' errors, in time; with targets back they get answers again."""
    with chaos.scene("all targets out and back", "routed") as scene:
        for target in ALL:
            chaos.fleet.switch(target, "error:INTERNAL:broken")
        time.sleep(1.5)
        failed = scene.seen.failed
        for target in ALL:
            chaos.fleet.switch(target)
        scene.await_back(*ALL)
        at = scene.seen.failed
        scene.await_answers(200)
        scene.figures["failed after the return"] = str(scene.seen.failed - at)
    seen = scene.seen
    assert failed > 0
    assert seen.failed - at == 0, seen.failures
    assert (seen.missing, seen.wrong_count) == (0, 0), seen.wrong
    assert scene.in_flight == 0


def test_clients_that_leave_by_the_thousand(chaos: Chaos) -> None:
    """Thousands of disconnects, cancellations and timeouts leave no slot taken and harm nobody else."""
    habits = Habits(clients=24, grpc_clients=8, leaves_within_s=0.03, questions=3000, pause_after_error_s=0.0)
    with chaos.scene("beside clients that leave", "routed", Habits(clients=4, grpc_clients=2)) as scene:
        with chaos.served.load("routed", habits) as leaving:
            chaos.fleet.switch("a", "sleep:0.02")
            leaving.wait()
            chaos.fleet.switch("a")
        scene.figures["left"] = str(leaving.seen.left)
    assert leaving.seen.left > 1000, leaving.seen.line()
    assert leaving.seen.accounted == leaving.seen.asked == 3000
    assert (leaving.seen.failed, leaving.seen.wrong_count) == (0, 0), leaving.seen.failures
    assert_nobody_noticed(scene)
