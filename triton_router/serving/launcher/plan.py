"""Everything about a start that is decided before the server runs, and what the checks say about it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.serving.capabilities import Capabilities, capabilities
from triton_router.serving.launcher import backend_directory, command, python_runtime
from triton_router.serving.launcher.endpoints import Endpoint, Endpoints, endpoints_of
from triton_router.serving.launcher.find import Installation, find
from triton_router.serving.launcher.models import ServedModel, closure, read_models
from triton_router.serving.launcher.preflight import cycles, flags, host, repositories, signature
from triton_router.serving.launcher.preflight import models as model_checks
from triton_router.serving.launcher.process import reachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.serving.launcher.options import ServeOptions
    from triton_router.serving.launcher.preflight.finding import Finding
    from triton_router.serving.launcher.python_runtime import PythonRuntime

_GROWTH_LIMIT = 16 << 20
_NATIVE = {"", "ensemble", "tensorrt", "pytorch", "tensorflow", "openvino", "dali", "fil"}


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """A start, decided.

    Attributes:
        options: What the user chose.
        installation: The server.
        server: What it can do.
        python: What its stubs will run.
        load: Models to load at the start; only explicit mode uses it.
        settings: Of the Python backend.
        endpoints: Where it will listen.
        models: The models that will be loaded, by name.
        findings: What the checks found, errors first.
    """

    options: ServeOptions
    installation: Installation
    server: Capabilities
    python: PythonRuntime
    load: tuple[str, ...]
    settings: command.PythonBackendSettings
    endpoints: Endpoints
    models: Mapping[str, ServedModel]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the server from starting."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def plan(options: ServeOptions) -> LaunchPlan:
    """Decide how to start, and check it.

    Raises:
        NotFoundError: No server, or a repository that is not a directory.
    """
    installation = find(options.tritonserver)
    python = python_runtime.current()
    server = capabilities(installation.version)
    mistaken = repositories.mistaken(options.repositories, options.control_mode)
    present = read_models([path for path in options.repositories if path not in mistaken])
    by_name = {model.name: model for model in present}
    load = tuple(closure(by_name, options.load_models)) if "*" not in options.load_models else ("*",)
    chosen = set(load) if options.control_mode == "explicit" and "*" not in load else set(by_name)
    models = {name: model for name, model in by_name.items() if name in chosen}
    available = backend_directory.available(installation)
    instances = _python_instances(models, available)
    settings = _settings(models, instances)
    endpoints = endpoints_of(options)
    health = None if options.health_port is None else Endpoint(reachable(options.address), options.health_port)
    findings = [
        *host.stub_python(installation, python),
        *host.numpy_version(python, server),
        *host.glibc(installation),
        *host.shared_memory(instances),
        *host.threads(instances, settings.thread_pool_size, host.thread_limit()),
        *host.ports(
            (
                ("HTTP", "--http-port", endpoints.http),
                ("gRPC", "--grpc-port", endpoints.grpc),
                ("metrics", "--metrics-port", endpoints.metrics),
                ("readiness", "--health-port", health),
            )
        ),
        *host.addresses((endpoints.http, endpoints.grpc, endpoints.metrics, health)),
        *flags.header_patterns(options),
        *flags.exposure(options),
        *mistaken.values(),
        *model_checks.unique([model for model in present if model.name in chosen]),
        *model_checks.wanted_exist(by_name, options.load_models),
        *model_checks.plain_names(list(models.values())),
        *model_checks.readable(list(models.values())),
        *model_checks.complete_files(list(models.values())),
        *model_checks.backends_present(list(models.values()), available),
        *model_checks.router_settings(list(models.values())),
        *model_checks.targets_fit(models),
        *signature.completed(models),
        *cycles.no_cycles(models),
    ]
    findings.sort(key=lambda finding: finding.level != "error")
    return LaunchPlan(options, installation, server, python, load, settings, endpoints, models, tuple(findings))


def _python_instances(models: Mapping[str, ServedModel], available: Mapping[str, bool]) -> int:
    """Count the stub processes: instances of Python models and of this project's Python-based backends."""
    return sum(
        model.instances
        for model in models.values()
        if model.backend == "python" or available.get(model.backend, model.backend not in _NATIVE)
    )


def _settings(models: Mapping[str, ServedModel], instances: int) -> command.PythonBackendSettings:
    # A call to a target and the response to the client each take a thread of the pool.
    concurrency = [2 * model.router.dispatch.max_concurrency for model in models.values() if model.router is not None]
    wanted = max([command.DEFAULT_THREAD_POOL, *concurrency])
    shm = Path("/dev/shm")  # noqa: S108 - its fixed place
    room = shutil.disk_usage(shm).free // (16 * max(1, instances)) if shm.is_dir() else 0
    growth = min(_GROWTH_LIMIT, room >> 20 << 20)
    return command.PythonBackendSettings(
        thread_pool_size=command.thread_pool_size(instances, wanted),
        shm_growth_bytes=growth if growth > host.SHM_START else None,
    )
