"""What the command line refuses before it does anything: values that an option cannot have."""

from __future__ import annotations

import os
import re

import pytest

from triton_router.cli.main import main
from triton_router.errors import InvalidInputError
from triton_router.serving.launcher.endpoints import endpoints_of
from triton_router.serving.launcher.options import ServeOptions

SERVE = ["serve", "--repository", "r", "--check"]
WATCH = ["watch", "--pid", "1"]
ADD = ["add", "m.onnx", "--name", "m", "--repository", "r"]
EXPLAIN = ["explain", "m", "--repository", "r"]
MODELS = ["models", "list"]


@pytest.mark.parametrize(
    ("argv", "option", "why"),
    [
        ([*SERVE, "--http-port=99999"], "--http-port", "'99999' is not a port: give 1 to 65535"),
        ([*SERVE, "--grpc-port=-1"], "--grpc-port", "'-1' is not a port: give 1 to 65535"),
        ([*SERVE, "--metrics-port=x"], "--metrics-port", "'x' is not a port: give 1 to 65535"),
        ([*SERVE, "--health-port=70000"], "--health-port", "'70000' is not a port: give 0 to 65535"),
        ([*WATCH, "--health-port=99999"], "--health-port", "'99999' is not a port: give 0 to 65535"),
        (["watch", "--url=http://localhost:99999"], "--url", "is not the URL of an HTTP server"),
        ([*MODELS, "--url=http://localhost:99999"], "--url", "is not the URL of an HTTP server"),
        ([*MODELS, "--url=http://[::1"], "--url", "is not the URL of an HTTP server"),
        (["drain", "--url=http://localhost:99999"], "--url", "is not the URL of an HTTP server"),
        ([*SERVE, "--drain-grace=-1"], "--drain-grace", "'-1' is not a number of seconds from 0 to 86400"),
        ([*WATCH, "--drain-timeout=nan"], "--drain-timeout", "'nan' is not a number of seconds from 0 to 86400"),
        ([*MODELS, "--timeout=-1"], "--timeout", "'-1' is not a number of seconds from 0 to 86400"),
        (["drain", "--timeout=soon"], "--timeout", "'soon' is not a number of seconds from 0 to 86400"),
        (["watch", "--pid=0"], "--pid", "'0' is not a whole number of 1 or more"),
        ([*ADD, "--version=-1"], "--version", "'-1' is not a whole number of 1 or more"),
        ([*ADD, "--max-batch-size=-1"], "--max-batch-size", "'-1' is not a whole number of 0 or more"),
        ([*EXPLAIN, "--max-latency-ms=-1"], "--max-latency-ms", "'-1' is not a number of milliseconds above 0"),
        ([*EXPLAIN, "--max-latency-ms=nan"], "--max-latency-ms", "'nan' is not a number of milliseconds above 0"),
        (["simulate", "--requests=-5"], "--requests", "'-5' is not a whole number of 1 or more"),
        (["replay", "log", "--policy=latency", "--limit=0"], "--limit", "'0' is not a whole number of 1 or more"),
        (["replay", "log", "--policy=latency", "--explore=nan"], "--explore", "'nan' is not a share from 0 to 1"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_wrong_usage(
    argv: list[str], option: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It exits with 2 and names the option, the value and what would do; no name of the program's own shows."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {option}: " in said
    assert why in said


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_among_the_servers_own_flags_is_one(port: str) -> None:
    """What stands after ``--`` is refused by its own name, before a server starts."""
    with pytest.raises(InvalidInputError, match=f"--http-port={port} is not a port"):
        endpoints_of(ServeOptions(repositories=(), extra=(f"--http-port={port}",)))


def test_watch_refuses_a_process_that_is_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Signals and readiness would be those of whatever runs under that id."""
    assert main(["watch", "--pid", str(os.getpid())]) == 1
    assert f"process {os.getpid()} is no tritonserver" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "simulate", "replay", "serve", "models"])
def test_descriptions_fit_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --help says of a command is broken into lines as wide as the terminal, as its options are."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    description = re.split(r"\n(?:positional arguments|options):", capsys.readouterr().out)[0].partition("\n\n")[2]
    assert description
    assert max(len(line) for line in description.splitlines()) <= 80
