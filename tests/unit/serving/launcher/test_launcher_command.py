"""From options to tritonserver's command line and environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_router.serving.launcher import command
from triton_router.serving.launcher.endpoints import Endpoint, endpoints_of
from triton_router.serving.launcher.find import Installation
from triton_router.serving.launcher.options import ServeOptions
from triton_router.serving.launcher.python_runtime import PythonRuntime
from triton_router.serving.overrides import HEADER_PATTERN

SERVER = Path("/server/bin/tritonserver")


def built(*extra: str, load: tuple[str, ...] = (), **choices: object) -> list[str]:
    """Return the command line for these choices."""
    options = ServeOptions(repositories=(Path("/m"),), extra=extra, **choices)
    return command.arguments(SERVER, options, Path("/be"), load, command.PythonBackendSettings(64, 1 << 24))


def test_every_choice_becomes_a_flag() -> None:
    """Repositories, ports, address, backends and Python settings all stand on the command line."""
    words = built(http_port=1, grpc_port=2, metrics_port=3, address="::1")
    assert words[0] == str(SERVER)
    assert set(words[1:]) == {
        "--model-repository=/m",
        "--backend-directory=/be",
        "--model-control-mode=none",
        "--http-address=::1",
        "--grpc-address=::1",
        "--http-port=1",
        "--grpc-port=2",
        "--metrics-port=3",
        f"--http-header-forward-pattern={HEADER_PATTERN}",
        f"--grpc-header-forward-pattern={HEADER_PATTERN}",
        "--backend-config=python,thread-pool-size=64",
        "--backend-config=python,shm-growth-byte-size=16777216",
    }


def test_models_are_named_only_in_explicit_mode() -> None:
    """Tritonserver refuses --load-model in other modes."""
    assert "--load-model=a" in built(load=("a",), control_mode="explicit")
    assert not any("load-model" in word for word in built(load=("a",), control_mode="poll"))


@pytest.mark.parametrize(
    ("given", "replaced"),
    [
        (("--http-port=9",), "--http-port=8000"),
        (("--http-port", "9"), "--http-port=8000"),
        (("--backend-config=python,thread-pool-size=7",), "--backend-config=python,thread-pool-size=64"),
        (("--model-control-mode=poll",), "--model-control-mode=none"),
        (("--http-header-forward-pattern=x-.*",), f"--http-header-forward-pattern={HEADER_PATTERN}"),
    ],
)
def test_a_users_flag_replaces_ours_and_stands_once(given: tuple[str, ...], replaced: str) -> None:
    """The user's own flag wins, in either spelling, and nothing is said twice."""
    words = built(*given)
    assert replaced not in words
    name = replaced.rpartition("=")[0]
    assert len([word for word in words if word.startswith(name + "=")]) == 1


def test_settings_of_another_key_do_not_replace_ours() -> None:
    """--backend-config is repeatable: only the same backend and key is the same setting."""
    words = built("--backend-config=python,shm-default-byte-size=1", "--backend-config=onnxruntime,thread-pool-size=1")
    assert "--backend-config=python,thread-pool-size=64" in words
    assert len([word for word in words if word.startswith("--backend-config")]) == 4


def test_a_bare_flag_stays_bare() -> None:
    """A flag without a value does not swallow the flag after it."""
    assert built("--disable-auto-complete-config", "--log-verbose", "1")[-2:] == [
        "--disable-auto-complete-config",
        "--log-verbose=1",
    ]


def test_this_python_and_the_servers_libraries_come_first() -> None:
    """The stub finds the environment by PATH; the user's own entries stay behind ours."""
    installation = Installation("bundled", SERVER, None, library_paths=(Path("/libs"),))
    python = PythonRuntime("3.11", Path("/venv/bin"), "libpython3.11.so.1.0", Path("/python/lib"), True, "1.26.4")
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/own", "PYTHONHOME": "/other", "KEPT": "1"}
    assert command.environment(installation, python, base) == {
        "PATH": "/venv/bin:/usr/bin",
        "LD_LIBRARY_PATH": "/libs:/python/lib:/own",
        "KEPT": "1",
    }
    # One server's state directory is none of the next one's, which may serve other models.
    inherited = {**base, "TRITON_ROUTER_STATE_DIR": "/old"}
    assert "TRITON_ROUTER_STATE_DIR" not in command.environment(installation, python, inherited)
    kept = command.environment(installation, python, inherited, state=Path("/new"))
    assert kept["TRITON_ROUTER_STATE_DIR"] == "/new"


@pytest.mark.parametrize(("instances", "expected"), [(0, 128), (1, 128), (32, 128), (64, 64), (1000, 32)])
def test_pools_shrink_as_instances_grow(instances: int, expected: int) -> None:
    """128 threads each, until all pools together would pass 4096; never under Triton's own 32."""
    assert command.thread_pool_size(instances) == expected


def test_endpoints_follow_the_users_flags() -> None:
    """What is announced is where the server listens: own ports and addresses, and nothing that is switched off."""
    options = ServeOptions(
        repositories=(),
        address="0.0.0.0",  # noqa: S104 - nothing is bound here
        extra=("--http-port=9", "--allow-grpc", "false", "--metrics-address=10.0.0.1"),
    )
    found = endpoints_of(options)
    assert found.http == Endpoint("127.0.0.1", 9)
    assert found.grpc is None
    assert found.metrics == Endpoint("10.0.0.1", 8002)
