"""The router model: what Triton loads for a routed model. This is the composition root of its process.

Triton starts one stub process for it; neither torch nor ONNX Runtime is imported here, because every routed model
pays for what is.
"""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import time
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from triton_router.config.configured_engine import configured_engine
from triton_router.config.cycles import refuse_cycle, router_cycle
from triton_router.config.router_config import ROUTER_FILE, RouterConfig, load_router_config
from triton_router.hardware.calibration import read_calibration
from triton_router.hardware.machine import machine_name
from triton_router.hardware.power import readers
from triton_router.hardware.power_sampling import PowerSampling
from triton_router.serving.assembly import dispatcher, observed
from triton_router.serving.contradictions import refuse_contradiction
from triton_router.serving.following import Followers, Following, RoutedModel
from triton_router.serving.joint_marks import JointMarks
from triton_router.serving.live_status import live_status
from triton_router.serving.parity_guard import ParityGuard
from triton_router.serving.reloading import Reloading
from triton_router.serving.resilience_counts import as_metrics
from triton_router.serving.sequence_places import remembered_places
from triton_router.serving.server_health import ServerHealth
from triton_router.serving.status_socket import StatusSocket
from triton_router.serving.stub_processes import StubScan
from triton_router.serving.target_priors import target_priors
from triton_router.serving.target_watch import TargetWatch
from triton_router.sharing.instances import Instances
from triton_router.sharing.owners import process
from triton_router.sharing.place import shared_place
from triton_router.telemetry.decision_log import configured_log
from triton_router.telemetry.drift_log import DriftLog
from triton_router.telemetry.health_log import HealthLog
from triton_router.telemetry.kept_inputs import KeptInputs
from triton_router.telemetry.metrics import MetricsFlusher
from triton_router.telemetry.parity_metrics import PARITY_FAMILIES
from triton_router.telemetry.rollout_metrics import EXPERIMENT_FAMILIES, ROLLOUT_FAMILIES, TrialCounts
from triton_router.telemetry.snapshot_keeper import SnapshotKeeper
from triton_router.telemetry.state_directory import STATE_VARIABLE, StateDirectory
from triton_router.telemetry.trial_keeper import TrialKeeper
from triton_router.telemetry.verdict_files import VerdictFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from triton_router.experiments.splitting_engine import SplittingEngine
    from triton_router.hardware.calibration import Calibration
    from triton_router.routing.snapshot import TargetSnapshot
    from triton_router.serving.stub import Request, Response, StubModule

_PATIENCE_S = 1.0
"""Longest that loading waits for what instances that serve already know."""


class TritonPythonModel:
    """A routed model, unary or streaming. Works under ``backend: "router"`` and ``backend: "python"`` alike."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the routed model's ``config.pbtxt`` leaves out, from its targets' configurations."""
        # Runs in a process of its own, once per load: what it imports is not paid for while serving.
        from triton_router.serving.complete import complete_config

        return complete_config(auto_complete_model_config, _model_directory())

    def initialize(self, args: dict[str, str]) -> None:
        """Read ``router.yaml`` and start serving. Raises `ConfigError`, which fails the load with its message."""
        stub = cast("StubModule", import_module("triton_python_backend_utils"))
        model_config = cast("dict[str, Any]", json.loads(args["model_config"]))
        directory = Path(args["model_repository"])
        name = args["model_name"]
        self._reloading = Reloading(directory / ROUTER_FILE, _warner(stub, name))
        config = load_router_config(directory / ROUTER_FILE)
        refuse_cycle(router_cycle(directory.parent, directory.name))
        refuse_contradiction(config, model_config)
        self._instances = Instances(_shared_place(name), os.getppid(), _warner(stub, name))
        self._instances.join()
        self._keeper = _keeper(stub, name, config)
        if self._keeper:
            self._instances.ask_to_save(_PATIENCE_S)
        learned = self._keeper.inherited() if self._keeper else {}
        model = RoutedModel(name, directory, model_config, _calibration())
        priors = target_priors(directory, config.targets, model.calibration)
        engine = configured_engine(config, name, learned, rng=random.random, priors=priors)
        self._engine = engine
        self._trials = TrialKeeper(
            engine,
            _state_place() if config.state.keep else None,
            (name, socket.gethostname()),
            tell=stub.Logger.log_info,
            warn=stub.Logger.log_warn,
        )
        self._trials.begin()
        self._log = configured_log(config, name, stub.Logger.log_warn)
        marks = JointMarks(engine)
        self._guard = _guard(engine, marks, _warner(stub, name), name, config)
        self._dispatcher = dispatcher(
            stub, engine, observed(engine, self._log), config, model_config, judge=self._guard
        )
        self._dispatcher.sequences.places = remembered_places(name, engine, os.getppid(), _warner(stub, name))
        if config.streaming:
            stub.Logger.log_warn(
                f"routed model {name!r} streams: before server 25.04 a decoupled target that fails after its first "
                f"response leaves its request, and one of dispatch.max_concurrency workers, waiting for ever"
            )
        trial_counts = TrialCounts(engine, self._trials)
        self._metrics = MetricsFlusher(
            stub,
            name,
            lambda: engine.snapshot(time.monotonic()),
            counts=self._counts,
            merged=self._dispatcher.merged_counts,
            further=(
                (PARITY_FAMILIES, self._guard.counts),
                (ROLLOUT_FAMILIES, trial_counts.of_rollout),
                (EXPERIMENT_FAMILIES, trial_counts.of_experiment),
            ),
            observe=_observer(DriftLog(name, stub.Logger.log_warn), HealthLog(name, stub.Logger.log_warn)),
            interval_s=config.router_config.metrics_interval,
            publishes=config.router_config.enable_metrics,
        )
        self._status = StatusSocket(
            lambda: live_status(
                name, self._following.config.policy_for(name).name, engine.snapshot(time.monotonic()), self._parts()
            )
        )
        self._power = PowerSampling(
            readers(frozenset(settings.backend for settings in config.targets)), engine, stub.Logger.log_warn
        )
        self._watch = TargetWatch(
            marks.of("checks"),
            ServerHealth(os.getppid()),
            StubScan(os.getppid()),
            self._dispatcher.lose,
            _warner(stub, name),
            time.monotonic,
        )
        self._watch.follow(config.targets, config.health.check_interval_s)
        followers = Followers(
            engine,
            self._dispatcher,
            self._metrics,
            self._power,
            self._watch,
            self._guard,
            self._keeper,
            self._trials,
            self._log,
        )
        self._following = Following(model, config, followers, stub.Logger.log_info)
        self._trials.start()
        self._power.start()
        self._watch.start()
        self._guard.start(self._dispatcher.comparisons.hurry)
        if self._keeper:
            self._keeper.start(lambda: engine.state(time.monotonic()), config.state.interval_s)
        if self._log:
            self._log.start()
        self._metrics.start()
        self._status.start()
        self._instances.start(engine, self._keeper.save if self._keeper else _nothing)
        self._reloading.start(self._following.follow)
        # What was made until here stays: no later collection needs to walk it while a request waits.
        gc.collect()
        gc.freeze()

    def execute(self, requests: Iterable[Request]) -> list[Response] | None:
        """Take requests; their answers go through their response senders, but for one served inline."""
        return self._dispatcher.execute(requests)

    def is_ready(self) -> bool:
        """Say whether any target can serve. Servers from 26.03 on ask, as documented; older ones do not know it."""
        return any(target.stage != "out" for target in self._engine.snapshot(time.monotonic()) if not target.removed)

    def finalize(self) -> None:
        """Stop, once Triton has seen every request answered."""
        with ExitStack() as closing:  # each of them, whatever happens to the others; the last one first
            closing.callback(self._metrics.close)
            closing.callback(self._instances.close)  # after the last snapshot: who asks for one until then gets it
            if self._keeper:
                closing.callback(self._keeper.close)
            if self._log:
                closing.callback(self._log.close)
            closing.callback(self._trials.close)
            closing.callback(self._power.close)
            closing.callback(self._guard.close)
            closing.callback(self._watch.close)
            closing.callback(self._status.close)
            closing.callback(self._dispatcher.close)
            closing.callback(self._reloading.close)  # first: what is closed follows nothing

    def _counts(self) -> dict[str, float]:
        counts = self._reloading.counts() | self._watch.counts() | self._instances.counts()
        counts |= as_metrics(self._dispatcher.resilience_counts(), self._dispatcher.retry_counts())
        if self._keeper:
            counts["triton_router_snapshot_errors_total"] = self._keeper.errors
        if self._log:
            counts["triton_router_decision_log_dropped_total"] = self._log.counts.dropped
        return counts

    def _parts(self) -> dict[str, object]:
        return {
            "state": self._keeper.status() if self._keeper else None,
            "power": self._power.status(),
            "problems": self._watch.status(),
            "settings": self._reloading.status(),
            "resilience": self._dispatcher.resilience_counts(),
            "retries": self._dispatcher.retry_counts(),
            "sharing": self._instances.status(),
            "parity": {**self._guard.status(), "uncopied": self._dispatcher.comparisons.uncopied},
            "rollout": self._trials.rollout(),
            "experiment": self._trials.experiment(),
            "trials": self._trials.status(),
            "decision_log": self._log.report() if self._log else None,
        }


def _warner(stub: StubModule, name: str) -> Callable[[str], None]:
    """Return what writes a line about the routed model to the server's log."""
    return lambda message: stub.Logger.log_warn(f"routed model {name!r}: {message}")


def _shared_place(model: str) -> Path:
    return shared_place(model, _state_place(), process(os.getppid()))


def _nothing() -> None:
    """Where nothing is kept."""


def _observer(drifts: DriftLog, health: HealthLog) -> Callable[[Sequence[TargetSnapshot]], None]:
    """Return what is shown every state of the targets."""

    def observe(targets: Sequence[TargetSnapshot]) -> None:
        drifts.observe(targets)
        health.observe(targets)

    return observe


def _state_place() -> Path | None:
    """Return the server's state directory: the one thing that is read from the environment."""
    place = os.environ.get(STATE_VARIABLE, "")
    return Path(place) if place else None


def _calibration() -> Calibration | None:
    place = _state_place()
    return read_calibration(place, machine_name()) if place is not None else None


def _keeper(stub: StubModule, name: str, config: RouterConfig) -> SnapshotKeeper | None:
    """Return what keeps the learned on disk; None where there is no place for it, or it is not wanted."""
    place = _state_place()
    if place is None or not config.state.keep:
        return None
    instance = socket.gethostname()
    return SnapshotKeeper(
        StateDirectory(place, name, instance),
        config.targets,
        machine_name(),
        (name, instance),
        stub.Logger.log_warn,
    )


def _guard(
    engine: SplittingEngine, marks: JointMarks, warn: Callable[[str], None], name: str, config: RouterConfig
) -> ParityGuard:
    """Return what guards the answers of a routed model's targets."""
    place = _state_place() if config.state.keep else None
    inputs = KeptInputs(place, name, socket.gethostname()) if place is not None else None
    places = VerdictFiles(place, name, socket.gethostname()) if place is not None else None
    guard = ParityGuard(marks.of("parity", takes_copies=True), warn, gate=engine, places=places, inputs=inputs)
    guard.go_by(config)
    return guard


def _model_directory() -> Path:
    """Return the model's directory while its configuration is completed, when Triton has not said its path yet.

    The stub process is started with the path of the model's version as its first argument.
    """
    arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(arguments[1])).parent.parent
