"""The sandbox returns results, translates every failure, and leaves no process behind."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from triton_router import errors
from triton_router.errors import BuildError, TritonRouterError, UnsupportedError
from triton_router.repository.sandbox import Limits, report_progress, run_child

ENTRIES = "triton_router.testing.sandbox_entries:"


def gone(pid: int) -> bool:
    """Wait up to 60 s until a process is dead (a zombie of another parent counts)."""
    for _ in range(1200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_result_progress_and_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload arrives, printing does not disturb the answer, the caller's directory is the child's."""
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    result = run_child(ENTRIES + "echo", {"a": [1, None, "ü"]}, limits=Limits(), on_progress=lines.append)
    assert result["a"] == [1, None, "ü"]
    assert result["cwd"] == str(tmp_path)
    assert lines == ["first", "second line"]
    assert result["session"] == result["pid"]


def test_a_large_payload_and_answer_pass() -> None:
    """Nothing depends on the size of a pipe's buffer."""
    text = "x" * 3_000_000
    assert run_child(ENTRIES + "echo", {"text": text}, limits=Limits())["text"] == text


@pytest.mark.parametrize("name", ["ModelFileError", "NotFoundError", "UnsupportedError", "BuildError"])
def test_own_errors_come_back_as_themselves(name: str) -> None:
    """Class, message and hint survive the process boundary."""
    with pytest.raises(getattr(errors, name)) as caught:
        run_child(ENTRIES + "refuse", {"class": name}, limits=Limits())
    assert type(caught.value) is getattr(errors, name)
    assert (caught.value.message, caught.value.hint) == ("the reason", "what to do")


def test_other_errors_become_build_errors_that_say_where() -> None:
    """An unexpected exception names its class, its text and the line that raised it."""
    with pytest.raises(BuildError, match=r"ValueError: unexpected 7.*second line.*sandbox_entries.py:\d+ in fail"):
        run_child(ENTRIES + "fail", {"value": 7}, limits=Limits())


def test_an_unserialisable_answer_is_an_error() -> None:
    """The child reports that its answer cannot travel."""
    with pytest.raises(BuildError, match="not JSON serializable"):
        run_child(ENTRIES + "unserialisable", {}, limits=Limits())


def test_a_missing_extra_is_named() -> None:
    """An import that an extra brings becomes the command that installs it."""
    with pytest.raises(UnsupportedError) as caught:
        run_child(ENTRIES + "use_missing_extra", {}, limits=Limits())
    assert caught.value.hint == "pip install 'triton-router[coreml]'"


def test_an_exit_without_answer_shows_the_last_output() -> None:
    """A process that ends by itself is reported with its status and its last words."""
    with pytest.raises(BuildError, match=r"ended with status 7 and gave no answer: going"):
        run_child(ENTRIES + "leave", {"status": 7}, limits=Limits())


def test_a_crash_is_reported_by_its_signal() -> None:
    """A segmentation fault is an error of the build, not of the caller."""
    with pytest.raises(BuildError, match="SIGSEGV"):
        run_child(ENTRIES + "crash", {}, limits=Limits())


def test_wall_time_limit_kills_the_whole_session() -> None:
    """The child and the process it started are dead afterwards, and the option is named."""
    lines: list[str] = []
    with pytest.raises(BuildError, match="took longer than 5 s") as caught:
        run_child(ENTRIES + "sleep", {}, limits=Limits(wall_seconds=5), on_progress=lines.append)
    assert "--time-limit" in caught.value.hint
    assert all(gone(int(pid)) for pid in lines[0].split())


def test_cpu_limit() -> None:
    """A busy loop is ended by its CPU time."""
    with pytest.raises(BuildError, match="1 s of CPU time") as caught:
        run_child(ENTRIES + "burn", {}, limits=Limits(wall_seconds=60, cpu_seconds=1))
    assert "--time-limit" in caught.value.hint


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory limits are enforced on Linux")
def test_memory_limit() -> None:
    """An allocation beyond the limit fails and names the option; one below it succeeds."""
    limits = Limits(memory_bytes=512 * 1024**2)
    with pytest.raises(BuildError, match=r"more memory than its limit of 0\.50 GiB") as caught:
        run_child(ENTRIES + "allocate", {"bytes": 2 * 1024**3}, limits=limits)
    assert "--memory-limit" in caught.value.hint
    assert run_child(ENTRIES + "allocate", {"bytes": 1024**2}, limits=limits) == {"allocated": 1024**2}


def test_file_size_limit() -> None:
    """A file beyond the limit is refused by the system and reported as that."""
    with pytest.raises(BuildError, match="wrote a file larger"):
        run_child(ENTRIES + "write", {"bytes": 4 * 1024**2}, limits=Limits(file_bytes=1024**2))


def test_a_process_left_behind_is_ended() -> None:
    """An answer is not held up by a process that keeps the pipes open, and that process is killed."""
    result = run_child(ENTRIES + "leave_process_behind", {}, limits=Limits(wall_seconds=30))
    assert gone(int(str(result["pid"])))


def test_the_child_dies_with_a_killed_parent() -> None:
    """SIGKILL to the parent, which can clean up nothing, still ends the child."""
    pids: list[int] = []

    def on_progress(line: str) -> None:
        pids.append(int(line.split(maxsplit=1)[0]))
        parent = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)

    with pytest.raises(BuildError, match="killed by the system"):
        run_child(ENTRIES + "nested_sleep", {}, limits=Limits(), on_progress=on_progress)
    assert gone(pids[0])


def test_an_interrupt_kills_the_child() -> None:
    """Ctrl-C in the caller ends the child, which is in a session of its own, before it propagates."""
    lines: list[str] = []

    def on_progress(line: str) -> None:
        lines.append(line)
        threading.Timer(0.1, _thread.interrupt_main).start()

    with pytest.raises(KeyboardInterrupt):
        run_child(ENTRIES + "sleep", {}, limits=Limits(), on_progress=on_progress)
    assert all(gone(int(pid)) for pid in lines[0].split())


def test_only_this_packages_functions_run() -> None:
    """An entry elsewhere is a defect of the caller."""
    with pytest.raises(ValueError, match="is not 'triton_router"):
        run_child("os:system", {}, limits=Limits())


def test_progress_outside_a_child_is_ignored() -> None:
    """A function that reports progress can be called directly."""
    report_progress("nobody listens")


def test_scratch_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's temporary directory is gone after success and after failure."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_child(ENTRIES + "echo", {}, limits=Limits())
    with pytest.raises(TritonRouterError):
        run_child(ENTRIES + "refuse", {"class": "BuildError"}, limits=Limits())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["not json", "[1]", '{"error": {}}', '{"result": 3}', "{}", '{"limit": "x"}'])
def test_a_child_that_writes_to_the_control_pipe(text: str) -> None:
    """Whatever a model's code writes there ends as one of this package's errors."""
    with pytest.raises(TritonRouterError) as caught:
        run_child(ENTRIES + "scribble", {"text": text}, limits=Limits())
    assert caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_named() -> None:
    """The child's own error would blame a library."""
    with pytest.raises(BuildError, match="no space left on the disk") as caught:
        run_child(ENTRIES + "fill_the_disk", {}, limits=Limits())
    assert "TMPDIR" in caught.value.hint
