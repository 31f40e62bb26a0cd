"""``scripts/demo`` as a user runs it, on a repository that is already built, and what it prints for --keep."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.minilm.demo.sentences import QUERIES, SENTENCES, TOPIC_OF
from triton_router.testing.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.triton, pytest.mark.beside, pytest.mark.build, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
MARK = "DEMO_TEST_MARK"
TARGETS = ("onnx-cpu", "onnx-int8-cpu", "pt2-cpu")


@dataclass(frozen=True, slots=True)
class Kept:
    """A demo that has told its story and keeps its server. ``mark`` stands in the environment of all it started."""

    process: subprocess.Popen[str]
    output: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """What it tells its user to type: curl, Python, status."""
        return re.split(r"\n\n(?=\S+ - <<|\S*triton-router )", self.output.split("in this directory:\n\n")[1].strip())


@pytest.fixture(scope="module")
def kept(minilm_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """The demo with --quick --keep, at the point where it serves."""
    directory = tmp_path_factory.mktemp("demo directory")
    (directory / "models").symlink_to(minilm_repository)
    log = directory / "output"
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "examples.minilm.demo", "--quick", "--keep", "--directory", str(directory)]
    with log.open("w") as output, (directory / "progress").open("w") as progress:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=progress,
            text=True,
        )
    try:
        while "status minilm" not in log.read_text() and process.poll() is None:
            time.sleep(0.2)
        assert process.poll() is None, f"{log.read_text()}\n{(directory / 'progress').read_text()}"
        yield Kept(process, log.read_text(), mark)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def marked(mark: str) -> list[str]:
    """Return the command lines of the running processes that carry this mark."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended, or is another user's
            continue
    return found


def until_gone(mark: str) -> None:
    """Wait until no process carries this mark: one that has been killed takes a moment to be gone."""
    end = time.monotonic() + 60
    while left := marked(mark):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def shell(command: str) -> str:
    """Run a printed command as it stands and return what it prints."""
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_table_tells_of_every_target(kept: Kept) -> None:
    """Each target has a row with its share, and the shares are of the requests that both protocols brought."""
    sent = re.search(r"(\d+) requests \((\d+) by grpc, (\d+) by http\)", kept.output)
    assert sent is not None
    assert int(sent[2]) > 0
    assert int(sent[3]) > 0
    table = kept.output[sent.end() : kept.output.index("QUESTION")]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.startswith(TARGETS)}
    assert set(rows) == set(TARGETS)
    assert sum(int(row[0]) for row in rows.values()) == int(sent[1])
    assert abs(sum(float(row[1].rstrip("%")) for row in rows.values()) - 100) < 0.5


def test_the_answers_are_right(kept: Kept) -> None:
    """Every question finds a sentence of its topic, and every way through the server agrees with the original."""
    judged = kept.output[kept.output.index("QUESTION") :]
    for query, topic in QUERIES:
        row = next(line for line in judged.splitlines() if line.startswith(query))
        assert any(TOPIC_OF[sentence] == topic for sentence in SENTENCES if sentence in row), row
    assert "WRONG" not in judged
    assert len(re.findall(r"^(?:routed|onnx-cpu|onnx-int8-cpu|pt2-cpu) .* right$", judged, re.MULTILINE)) == 4


def test_the_comparison_has_every_choice(kept: Kept) -> None:
    """Each fixed choice and the routed model have a cost, and one fixed choice is the best."""
    table = kept.output[kept.output.index("CHOICE") :]
    rows = [line for line in table.splitlines() if re.match(r"(routed|onnx-cpu|onnx-int8-cpu|pt2-cpu) +\d", line)]
    assert len(rows) == 4
    assert [row.split()[0] for row in rows if "the best fixed choice" in row] != ["routed"]


def test_the_printed_curl_line_works(kept: Kept) -> None:
    """Pasted into a shell it returns an embedding."""
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    answer = json.loads(shell(kept.commands[0]))
    assert answer["outputs"][0]["shape"] == [1, 384]


def test_the_printed_python_works(kept: Kept) -> None:
    """Pasted into a shell it prints the cosine of two sentences that mean nearly the same."""
    printed = shell(kept.commands[1])
    assert 0.5 < float(printed.removeprefix("cosine: ")) < 1


def test_the_printed_status_works(kept: Kept) -> None:
    """Pasted into a shell it prints the routed model's targets."""
    printed = shell(kept.commands[2])
    assert all(target in printed for target in TARGETS)


def test_an_end_by_ctrl_c_leaves_nothing(kept: Kept) -> None:
    """Ctrl-C ends the server and every process around it, and the demo, having told its story, exits with 0."""
    assert len(marked(kept.mark)) > 3
    kept.process.send_signal(signal.SIGINT)
    assert kept.process.wait(120) == 0
    until_gone(kept.mark)


def test_a_server_ended_while_it_loads_leaves_nothing(minilm_repository: Path) -> None:
    """Stubs that are starting when their server is told to end do not outlive it."""
    mark = uuid.uuid4().hex
    flags = ("--repository", "--http-port", "--grpc-port", "--metrics-port")
    values = (str(minilm_repository), *map(str, free_ports(3)))
    options = [word for pair in zip(flags, values, strict=True) for word in pair]
    command = [sys.executable, "-m", "triton_router.cli.main", "serve", *options]
    with subprocess.Popen(command, env={**os.environ, MARK: mark}, stderr=subprocess.DEVNULL) as serve:
        while not any("python_backend_stub" in command for command in marked(mark)):
            assert serve.poll() is None
            time.sleep(0.05)
        serve.terminate()
        serve.wait(120)
    until_gone(mark)
