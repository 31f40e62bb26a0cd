"""The command line as a whole: what it offers, how it fails, how quickly it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from triton_router import __version__
from triton_router.cli.main import COMMANDS, main

MAIN = [sys.executable, "-m", "triton_router.cli.main"]


def test_commands_stand_in_the_order_in_which_a_user_meets_them() -> None:
    """Every command of the project is there, and --help lists them in the order of use."""
    names = [command.__name__.rpartition(".")[2] for command in COMMANDS]
    first = ["add", "serve", "models", "pipeline", "status", "explain"]
    assert names == [*first, "canary", "experiments", "watch", "drain", "manifests", "simulate", "replay"]


@pytest.mark.parametrize("name", [command.__name__.rpartition(".")[2] for command in COMMANDS])
def test_every_command_explains_itself_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``COMMAND --help`` ends with examples that can be copied."""
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"triton-router {name}" in capsys.readouterr().out.partition("examples:")[2]


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the package's version and nothing else."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"triton-router {__version__}\n"


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is a usage error on stderr; stdout stays empty."""
    with pytest.raises(SystemExit, match="2"):
        main(["modles"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "modles" in captured.err


def test_an_error_goes_to_stderr_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """What the project refuses is printed as ``error:`` and ``hint:`` lines, and the exit code is 1."""
    assert main(["pipeline", "absent.yaml", "--repository", "."]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: absent.yaml does not exist\nhint: check the path\n"


def test_help_imports_nothing_heavy() -> None:
    """Building the whole parser loads no client, protobuf, validation or array library."""
    heavy = {"numpy", "tritonclient", "google", "pydantic", "yaml", "torch", "onnx", "onnxruntime", "gevent"}
    code = "import sys, triton_router.cli.main as m; m.parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert heavy & set(done.stdout.split()) == set()


def test_a_closed_pipe_is_not_an_error() -> None:
    """When the reader of stdout has gone (``| head``), the command ends quietly and successfully."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run([*MAIN, "--help"], check=False, stdout=stdout, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_interrupt_ends_quietly_with_130() -> None:
    """Ctrl-C while a server does not answer ends the command with 130 and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen([*MAIN, "models", "list", "--url", url], stderr=subprocess.PIPE)
        with contextlib.closing(server.accept()[0]) as connection:
            assert connection.recv(1)  # it has asked, and waits for an answer
            process.send_signal(signal.SIGINT)
            stderr = process.communicate(timeout=60)[1]
    assert (process.returncode, stderr) == (130, b"")


HALF_MADE = """
import sys
from triton_router.cli import main, models

class Response:
    def __init__(self):
        raise KeyboardInterrupt
        self.socket = None

    def __del__(self):
        self.socket

models.register = lambda subparsers: subparsers.add_parser("models").set_defaults(func=lambda args: Response())
code = main.main(["models"])
assert sys.unraisablehook is sys.__unraisablehook__
sys.exit(code)
"""


def test_an_interrupt_inside_a_librarys_constructor_is_quiet_too() -> None:
    """What Ctrl-C left half-made may fail when it is collected; that is nobody's news."""
    done = subprocess.run([sys.executable, "-c", HALF_MADE], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.parametrize("limit", ["0", "-3", "nan", "inf", "soon"])
def test_a_time_limit_is_a_number_of_seconds(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["add", "m.onnx", "--name", "m", "--repository", "r", f"--time-limit={limit}"])
    assert caught.value.code == 2
    assert "is not a number of seconds above 0" in capsys.readouterr().err
