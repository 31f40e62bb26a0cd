"""Deaths of stub processes are told from ordinary ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triton_router.serving.stub_processes import Seen, Stub, StubDeaths, StubScan, runs

KILLED = 128 + signal.SIGKILL


def stub(pid: int, instance: str = "m_0_0", model: str = "m") -> Stub:
    return Stub(pid, pid, Path("/models", model, "1", "model.py"), instance)


def ready(_model: str, _version: int) -> bool:
    return True


def unready(_model: str, _version: int) -> bool:
    return False


def words(deaths: StubDeaths, seen: Seen, is_ready: object = ready) -> list[str]:
    return [str(death) for death in deaths.update(seen, is_ready)]


def test_a_killed_process_is_dead_at_the_first_look_until_another_takes_its_place() -> None:
    """A zombie with a bad exit status needs no second look; the finding ends with the repair."""
    deaths = StubDeaths()
    assert words(deaths, Seen([stub(1), stub(2, "m_0_1")], {})) == []
    dead = Seen([stub(2, "m_0_1")], {1: KILLED})
    assert words(deaths, dead) == words(deaths, dead) == ["process 1 of m_0_0 was ended by SIGKILL"]
    assert words(deaths, Seen([stub(2, "m_0_1"), stub(3)], {1: KILLED})) == []


@pytest.mark.parametrize("before", [("m_0_0",), ("m_0_0", "m_0_1")])
def test_a_death_is_over_once_the_model_was_loaded_with_other_instances(before: tuple[str, ...]) -> None:
    """Nobody takes the place of one that is not there any more; all others are new, though."""
    deaths = StubDeaths()
    first, *others = [stub(pid, instance) for pid, instance in enumerate(before, 1)]
    words(deaths, Seen([first, *others], {}))
    assert words(deaths, Seen(others, {1: KILLED})) == ["process 1 of m_0_0 was ended by SIGKILL"]
    reloaded = stub(9, "m_cpu_0_0")
    assert bool(words(deaths, Seen([*others, reloaded], {1: KILLED}))) == bool(others), "while it is being reloaded"
    for _ in range(5):
        assert words(deaths, Seen([reloaded], {1: KILLED})) == []


def test_an_unload_is_no_death() -> None:
    """A process that ends while its model is not ready was ended by Triton."""
    deaths = StubDeaths()
    words(deaths, Seen([stub(1)], {}))
    for _ in range(10):
        assert words(deaths, Seen([], {}), unready) == []


def test_a_reload_and_fewer_instances_are_no_deaths() -> None:
    """An old process ends while its model is ready, and others of the model live: Triton has ended it."""
    deaths = StubDeaths()
    words(deaths, Seen([stub(1), stub(2, "m_0_1")], {}))
    words(deaths, Seen([stub(1), stub(2, "m_0_1"), stub(3)], {}))
    for _ in range(10):
        assert words(deaths, Seen([stub(3)], {})) == []


def test_a_model_without_any_process_that_stays_ready_is_dead_although_nobody_saw_how() -> None:
    """Servers that collect what has died leave no zombie."""
    deaths = StubDeaths()
    words(deaths, Seen([stub(1)], {}))
    found = [words(deaths, Seen([], {})) for _ in range(10)]
    assert found[0] == []
    assert found[-1] == ["process 1 of m_0_0 has ended"]
    assert words(deaths, Seen([], {}), unready) == []


def test_a_process_that_completed_a_configuration_is_not_missed() -> None:
    """It bears the model's own name, and ends when it has done so."""
    deaths = StubDeaths()
    words(deaths, Seen([stub(1, "m")], {}))
    for _ in range(10):
        assert words(deaths, Seen([], {1: 1})) == []


def test_real_children_are_seen_living_and_dead(tmp_path: Path) -> None:
    """The scan reads names, models and exit statuses of its own children alone."""
    program = tmp_path / "triton_python_backend_stub"
    program.symlink_to(sys.executable)
    model = tmp_path / "minilm" / "3" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("import time\ntime.sleep(60)\n")
    more = ["shm", "1", "2", "3", "4", "5", "minilm_0_0"]
    child = subprocess.Popen([program, model, *more])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE):
        scan = StubScan(os.getpid())
        while not (live := scan.look().live):
            assert child.poll() is None
            time.sleep(0.01)
        assert [(one.pid, one.model, one.version, one.instance) for one in live] == [
            (child.pid, "minilm", 3, "minilm_0_0")
        ]
        child.kill()
        while child.pid not in (seen := scan.look()).ended:
            time.sleep(0.01)
        assert not runs(child.pid)
        child.wait()
    assert seen.live == []
    assert seen.ended[child.pid] == KILLED
    assert child.pid not in scan.look().ended


@pytest.mark.parametrize(("status", "how"), [(3, "has ended with status 3"), (128 + 99, "was ended by signal 99")])
def test_how_it_ended_is_said(status: int, how: str) -> None:
    """In words, for statuses and for signals without a name too."""
    deaths = StubDeaths()
    words(deaths, Seen([stub(1)], {}))
    assert words(deaths, Seen([], {1: status})) == [f"process 1 of m_0_0 {how}"]
