"""Six mistakes each of which crashes or hangs a whole server: under load, none of them is made.

Whoever makes one again finds the router's process gone, or a client without an answer.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from triton_router.testing.chaos import await_event
from triton_router.testing.checked_load import Habits
from triton_router.testing.process_figures import stubs_of

if TYPE_CHECKING:
    from triton_router.testing.chaos import Chaos, Scene

pytestmark = pytest.mark.triton


def requests_total(chaos: Chaos, model: str) -> float:
    """Return the router's own count of requests that its targets answered, by Triton's metrics."""
    with urllib.request.urlopen(chaos.served.metrics_url) as response:
        lines = response.read().decode().splitlines()
    mine = [line for line in lines if line.startswith("triton_router_requests_total{") and f'model="{model}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in mine if 'outcome="success"' in line)


def assert_every_answer_came(scene: Scene) -> None:
    """Each question has ended, with its own answer or with an error."""
    seen = scene.seen
    assert seen.accounted == seen.asked
    assert (seen.missing, seen.wrong_count) == (0, 0), (seen.line(), seen.wrong)
    assert scene.in_flight == 0


def test_metrics_are_one_threads_own(chaos: Chaos) -> None:
    """1. Metrics read by many, and the status asked, while every kind of outcome is counted: nothing crashes."""
    pid = chaos.stub("routed")
    done = threading.Event()
    seen: list[list[float]] = [[] for _ in range(4)]

    def read(found: list[float]) -> None:
        while not done.is_set():
            found.append(requests_total(chaos, "routed"))
            chaos.served.status("routed")

    with ThreadPoolExecutor(4) as pool, chaos.scene("1. metrics", "routed", Habits(8, 4)) as scene:
        readers = [pool.submit(read, found) for found in seen]
        try:
            with chaos.served.load("routed", Habits(4, 4, leaves_within_s=0.02, seconds=1.5)) as leaving:
                for line in ("error:INTERNAL:broken", "ok"):
                    chaos.fleet.switch("b", line)
                    time.sleep(0.7)
                leaving.wait()
            # Published once a second at best.
            await_event(lambda: all(found and found[-1] > found[0] for found in seen), "each reader sees them grow")
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert all(found == sorted(found) for found in seen)
    assert_every_answer_came(scene)
    assert chaos.stub("routed") == pid


@pytest.mark.parametrize("model", ["hedged", "merged"])
def test_no_call_is_made_twice(chaos: Chaos, model: str) -> None:
    """2. Each attempt, hedge and merged call is a request of its own, though its tensors are the client's."""
    chaos.heal(model, "a", "b", "c")
    pid = chaos.stub(model)
    with chaos.scene(f"2. retries, {model}", model) as scene:
        for line in ("sleep:0.03", "error:INTERNAL:broken", "ok"):
            chaos.fleet.switch("a", line)
            time.sleep(0.6)
    assert scene.seen.asked == scene.seen.answered, (scene.seen.line(), scene.seen.failures, scene.seen.wrong)
    assert_every_answer_came(scene)
    assert chaos.stub(model) == pid


def test_nobody_asks_after_the_last_answer(chaos: Chaos) -> None:
    """3. Clients that leave just when their answer comes, and refused requests: nothing is asked of either then."""
    pid = chaos.stub("routed")
    wrong = Habits(2, 2, parameters={"router_goal": "no such goal"}, pause_after_error_s=0.001)
    # Enough of them for waits in the router, after which it looks whether clients are still there.
    leaving = Habits(4, 20, leaves_within_s=0.2, pause_after_error_s=0.0)
    with chaos.scene("3. cancellations", "routed", Habits(2, 2)) as scene:
        with chaos.served.load("routed", leaving) as left, chaos.served.load("routed", wrong) as refused:
            time.sleep(1.5)
            await_event(lambda: min(left.seen.left, left.seen.answered, refused.seen.failed) > 50, "enough of each")
            left.stop()
            refused.stop()
        scene.figures["left"] = str(left.seen.left)
        scene.figures["refused"] = str(refused.seen.failed)
    assert left.seen.left > 50
    assert left.seen.answered > 50
    assert refused.seen.failed == refused.seen.asked > 50, refused.seen.line()
    assert_every_answer_came(scene)
    assert scene.seen.asked == scene.seen.answered, scene.seen.failures
    assert chaos.stub("routed") == pid


@pytest.mark.parametrize("model", ["routed", "merged"])
def test_every_request_is_answered(chaos: Chaos, model: str) -> None:
    """4. Whatever breaks, at every target at once, in and out of merged calls, each client hears something."""
    pid = chaos.stub(model)
    with chaos.scene(f"4. everything breaks, {model}", model) as scene:
        for line in ("raise:broken", "memory", "error:UNAVAILABLE:busy", "ok"):
            for target in ("a", "b", "c"):
                chaos.fleet.switch(target, line)
            time.sleep(0.4)
        scene.await_answers(50)
    assert scene.seen.failed > 0
    assert_every_answer_came(scene)
    assert chaos.stub(model) == pid


def test_nothing_of_the_server_is_needed_to_import(chaos: Chaos) -> None:
    """5. The router takes what the server gives in initialize(): it imports without, and is reloaded under load."""
    check = "import sys, triton_router.serving.router_model; sys.exit('triton_python_backend_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    pid = chaos.stub("routed")
    with chaos.scene("5. reload of the router", "routed") as scene:
        chaos.reload("routed")
        scene.await_answers(50)
    assert scene.seen.asked == scene.seen.answered, (scene.seen.line(), scene.seen.failures)
    assert_every_answer_came(scene)
    await_event(lambda: pid not in stubs_of(chaos.served.server_pid, "routed"), "the end of the first process")


def test_a_clients_mistake_is_its_own(chaos: Chaos) -> None:
    """6. Shapes that no target takes are refused once each: not tried elsewhere, and nobody is left out for them."""
    before = {target["target"]["name"]: target for target in chaos.served.status("merged")["targets"]}
    habits = Habits(6, 2, columns=5, pause_after_error_s=0.002)
    with chaos.scene("6. wrong shapes", "merged", Habits(6, 2)) as scene:
        with chaos.served.load("merged", habits) as wrong:
            time.sleep(1.5)
            await_event(lambda: wrong.seen.failed > 50, "enough of them are refused")
            wrong.stop()
        scene.figures["refused"] = str(wrong.seen.failed)
    after = {target["target"]["name"]: target for target in chaos.served.status("merged")["targets"]}
    grown = {key: sum(after[name][key] - before[name][key] for name in after) for key in ("refused", "failed")}
    assert wrong.seen.failed == wrong.seen.asked > 50, wrong.seen.line()
    assert grown == {"refused": wrong.seen.failed, "failed": 0}, wrong.seen.failures
    assert not any(look.out for look in scene.watch.looks)
    assert scene.seen.asked == scene.seen.answered, (scene.seen.line(), scene.seen.failures)
    assert_every_answer_came(scene)
