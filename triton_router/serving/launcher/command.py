"""From options to a command line and an environment; pure, so that every flag can be tested without a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.serving.launcher.restricted import KEY_VARIABLE, restrictions
from triton_router.serving.launcher.server_flags import Flag, parse_flags
from triton_router.serving.overrides import HEADER_PATTERN
from triton_router.telemetry.state_directory import STATE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from triton_router.serving.launcher.find import Installation
    from triton_router.serving.launcher.options import ServeOptions
    from triton_router.serving.launcher.python_runtime import PythonRuntime

REPEATABLE = frozenset(
    {
        "backend-config",
        "cache-config",
        "cuda-memory-pool-byte-size",
        "cuda-virtual-address-size",
        "host-policy",
        "http-restricted-api",
        "grpc-restricted-protocol",
        "load-model",
        "metrics-config",
        "model-load-gpu-limit",
        "model-repository",
        "model-store",
        "rate-limit-resource",
        "trace-config",
    }
)
"""Flags that tritonserver takes more than once; every other flag counts once."""

DEFAULT_THREAD_POOL = 128
MINIMUM_THREAD_POOL = 32
MAXIMUM_POOL_THREADS = 4096
"""Threads of all pools together beyond which each pool is made smaller: they cost memory and pids."""


@dataclass(frozen=True, slots=True)
class PythonBackendSettings:
    """Settings of the Python backend, one value for all of a server's Python instances.

    Attributes:
        thread_pool_size: Threads per instance for BLS calls and response sends; caps the calls in flight.
        shm_growth_bytes: Step by which an instance's shared memory grows; None leaves Triton's 1 MB.
    """

    thread_pool_size: int = DEFAULT_THREAD_POOL
    shm_growth_bytes: int | None = None


def thread_pool_size(python_instances: int, wanted: int = DEFAULT_THREAD_POOL) -> int:
    """Return the pool size per instance: ``wanted``, unless all pools together would hold too many threads."""
    share = MAXIMUM_POOL_THREADS // max(1, python_instances)
    return max(MINIMUM_THREAD_POOL, min(wanted, share))


def arguments(
    executable: Path, options: ServeOptions, backends: Path, load: Sequence[str], settings: PythonBackendSettings
) -> list[str]:
    """Return the command line.

    Args:
        executable: tritonserver.
        options: The user's choices; flags in ``extra`` replace ours of the same meaning.
        backends: The composed backend directory.
        load: Models to load at the start, targets included; only explicit mode uses it.
        settings: Of the Python backend.
    """
    extra = parse_flags(options.extra)
    taken = {_identity(flag) for flag in extra}
    # model-store is tritonserver's older name for model-repository; both add up.
    ours = [Flag("model-repository", str(path)) for path in options.repositories]
    ours += [
        Flag("backend-directory", str(backends)),
        Flag("model-control-mode", "explicit" if loads_by_key(options) else options.control_mode),
        Flag("http-address", options.address),
        Flag("grpc-address", options.address),
        Flag("http-port", str(options.http_port)),
        Flag("grpc-port", str(options.grpc_port)),
        Flag("metrics-port", str(options.metrics_port)),
        Flag("http-header-forward-pattern", HEADER_PATTERN),
        Flag("grpc-header-forward-pattern", HEADER_PATTERN),
        Flag("backend-config", f"python,thread-pool-size={settings.thread_pool_size}"),
    ]
    if settings.shm_growth_bytes is not None:
        ours.append(Flag("backend-config", f"python,shm-growth-byte-size={settings.shm_growth_bytes}"))
    if options.exit_timeout_s is not None:
        ours.append(Flag("exit-timeout-secs", str(options.exit_timeout_s)))
    if options.api_key is not None:
        ours += restrictions(options.api_key, extra)
    if options.control_mode == "explicit":
        ours += [Flag("load-model", name) for name in load]
    elif loads_by_key(options):
        ours.append(Flag("load-model", "*"))
    kept = [flag for flag in ours if _identity(flag) not in taken]
    return [str(executable), *(str(flag) for flag in kept), *(str(flag) for flag in extra)]


def loads_by_key(options: ServeOptions) -> bool:
    """Whether a server that loads everything at its start is told to load by request too.

    Only so can a model whose process has died be loaded again; the key keeps everybody else from loading.
    """
    told = any(flag.name in {"model-control-mode", "load-model"} for flag in parse_flags(options.extra))
    return options.control_mode == "none" and options.api_key is not None and not told


def environment(
    installation: Installation,
    python: PythonRuntime,
    base: Mapping[str, str] | None = None,
    *,
    state: Path | None = None,
) -> dict[str, str]:
    """Return the server's environment: this Python first on PATH, and the libraries the server needs.

    Args:
        installation: The server.
        python: What its stubs will run.
        base: What it inherits; the environment of this process by default.
        state: Where the router models keep what they learn; None for nowhere.
    """
    result = dict(os.environ if base is None else base)
    result.pop(STATE_VARIABLE, None)
    result.pop(KEY_VARIABLE, None)  # models have no use for it
    if state is not None:
        result[STATE_VARIABLE] = str(state)
    result["PATH"] = _joined(str(python.programs), result.get("PATH"))
    libraries = [str(path) for path in installation.library_paths]
    if python.library_directory is not None:
        libraries.append(str(python.library_directory))
    if libraries:
        result["LD_LIBRARY_PATH"] = _joined(*libraries, result.get("LD_LIBRARY_PATH"))
    # A stub that inherits another environment's PYTHONHOME starts with the wrong standard library.
    result.pop("PYTHONHOME", None)
    return result


def _identity(flag: Flag) -> tuple[str, str]:
    """Two flags of one identity set the same thing."""
    if flag.name == "backend-config" and flag.value is not None:
        return flag.name, flag.value.partition("=")[0]
    return flag.name, (flag.value or "") if flag.name in REPEATABLE else ""


def _joined(*parts: str | None) -> str:
    return os.pathsep.join(part for part in parts if part)
