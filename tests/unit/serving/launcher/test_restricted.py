"""The key of the administrative APIs: which flags close what, and who finds the key."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from triton_router.errors import InvalidInputError, NotFoundError
from triton_router.serving.launcher import command
from triton_router.serving.launcher.find import Installation
from triton_router.serving.launcher.options import ServeOptions
from triton_router.serving.launcher.python_runtime import PythonRuntime
from triton_router.serving.launcher.restricted import access, chosen_key
from triton_router.serving.launcher.runtime_record import (
    RuntimeRecord,
    chosen,
    key_headers,
    recorded,
    records,
    runtime_directory,
)
from triton_router.serving.launcher.server_flags import parse_flags

KEY = "k" * 20


def built(*extra: str, **choices: object) -> list[str]:
    options = ServeOptions(repositories=(Path("/m"),), extra=extra, **choices)
    return command.arguments(Path("/t"), options, Path("/b"), (), command.PythonBackendSettings())


def test_the_administrative_apis_are_closed_with_a_key_and_open_without() -> None:
    """Both protocols; inference, health, metadata, configurations and statistics are never named."""
    apis = f"model-repository,shared-memory,trace,logging:x-triton-router-key={KEY}"
    words = built(api_key=KEY)
    assert f"--http-restricted-api={apis}" in words
    assert f"--grpc-restricted-protocol={apis}" in words
    assert not [word for word in built() if "restricted" in word]


def test_a_users_own_restriction_replaces_ours_for_the_apis_it_names() -> None:
    """Triton refuses an API that is named twice; our own commands send the user's key then."""
    own = "--http-restricted-api=model-repository,health:Admin=secret"
    words = built(own, api_key=KEY)
    assert own in words
    assert f"--http-restricted-api=shared-memory,trace,logging:x-triton-router-key={KEY}" in words
    opened = access(KEY, parse_flags([own]))
    assert opened.http == {"Admin": "secret"}
    assert opened.grpc == {"triton-grpc-protocol-x-triton-router-key": KEY}
    assert access(None, []).http == {}


def test_a_server_that_loads_everything_can_load_again_by_key_alone() -> None:
    """Repairs need the load API; where it is open, or the user chose a mode, nothing changes."""
    words = built(api_key=KEY)
    assert "--model-control-mode=explicit" in words
    assert "--load-model=*" in words
    assert "--model-control-mode=none" in built()
    assert "--load-model=*" not in built("--model-control-mode=none", api_key=KEY)
    assert "--model-control-mode=poll" in built(api_key=KEY, control_mode="poll")


def test_a_key_of_ones_own_comes_by_the_environment() -> None:
    """Otherwise each start has a new one; what no header carries is refused."""
    assert chosen_key({"TRITON_ROUTER_API_KEY": KEY}) == KEY
    assert chosen_key({}) != chosen_key({})
    for bad in ("short", "with space " * 3, "k" * 300, "k,k:k=k" * 4):
        with pytest.raises(InvalidInputError):
            chosen_key({"TRITON_ROUTER_API_KEY": bad})


def test_models_do_not_inherit_the_key() -> None:
    """Whatever a model prints of its environment, the key is not in it."""
    installation = Installation("bundled", Path("/t"), None)
    python = PythonRuntime("3.11", Path("/bin"), "libpython3.11.so.1.0", None, True, "1.26.4")
    inherited = command.environment(installation, python, {"TRITON_ROUTER_API_KEY": KEY, "PATH": "/bin"})
    assert KEY not in inherited.values()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def record(pid: int, port: int) -> RuntimeRecord:
    return RuntimeRecord(pid, "serve", pid, port, None, {"x-triton-router-key": KEY})


def test_the_record_is_for_its_owner_while_the_server_runs(runtime: Path) -> None:
    """Found by port on this machine, private, gone afterwards."""
    with recorded(record(os.getpid(), 8000)) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert key_headers(8000, "localhost") == {"x-triton-router-key": KEY}
        assert key_headers(8001, "localhost") == {}
        assert key_headers(8000, "triton.example.org") == {}
    assert records() == []


def test_records_of_the_dead_and_of_strangers_are_not_believed(runtime: Path) -> None:
    """A killed server's is taken away; what is no record is passed over; an open directory is neither read nor used."""
    directory = runtime_directory()
    directory.mkdir(mode=0o700)
    gone = directory / "serve-1.json"
    gone.write_text(json.dumps(asdict(record(2**22 + 1, 8000))))  # beyond the largest process id
    (directory / "other.json").write_text('{"pid": "x"}')
    (directory / "broken.json").write_text("{")
    assert records() == []
    assert not gone.exists()
    directory.chmod(0o755)
    with pytest.raises(InvalidInputError, match="not a directory of this user's alone"), recorded(record(1, 1)):
        pass


def test_one_of_several_servers_has_to_be_chosen(runtime: Path) -> None:
    """By URL or by either process id; none and several are refused with what to do."""
    with pytest.raises(NotFoundError):
        chosen(None, None)
    with recorded(record(os.getpid(), 8000)) as first, recorded(record(os.getppid(), 9000)) as second:
        assert first != second
        assert chosen("http://localhost:9000", None).pid == os.getppid()
        assert chosen(None, os.getpid()).http_port == 8000
        with pytest.raises(InvalidInputError, match="there are several"):
            chosen(None, None)
