"""What a load balancer wants to know of a server: is it alive, is it ready, can a model be served?

Triton alone says too little: on 2.51 it stays READY while it is being stopped, while a model's process is dead, and
while a routed model has no target left.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from triton_router.errors import UnavailableError
from triton_router.serving.status_socket import read_statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.launcher.watchdog import Watchdog
    from triton_router.serving.server_health import ServerHealth

_PATIENCE_S = 1.0


class ServingState:
    """Answers such questions about one server; from any thread.

    Args:
        server: Process id of tritonserver.
        running: Says whether that runs.
        health: Its own word.
        watchdog: Knows the processes of its models.
    """

    def __init__(self, server: int, running: Callable[[], bool], health: ServerHealth, watchdog: Watchdog) -> None:
        self.server = server
        self.draining = threading.Event()
        self._running = running
        self._was_ready = False
        self._health = health
        self._watchdog = watchdog

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the server runs, and what has been repaired."""
        return self._running(), {"server_pid": self.server, "models": self._watchdog.cases()}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether new requests may come, and if not, why.

        Triton calls itself unready while a single model is loaded afresh; here that is the model's matter.
        """
        reasons = self._stopping()
        if not reasons:
            ready = self._health.server_ready()
            self._was_ready |= ready is True
            if ready is not True and not (self._was_ready and ready is False and self._watchdog.repairing()):
                reasons.append("tritonserver does not say that it is ready")
        return not reasons, {"reasons": reasons}

    def model_ready(self, model: str) -> tuple[bool, dict[str, Any]]:
        """Return whether a model can be served, a routed one by any of its targets; and if not, why."""
        reasons = self._stopping()
        if reasons:
            return False, {"model": model, "reasons": reasons, "targets": {}}
        if self._health.is_ready(model, None) is not True:
            reasons.append(f"tritonserver does not say that model {model!r} is ready")
        case = self._watchdog.cases().get(model)
        if case and case["problem"]:
            reasons.append(str(case["problem"]))
        status = next((one for one in statuses(self.server) if one["model"] == model), None)
        targets = {one["target"]["name"]: one["why"] or "" for one in status["targets"]} if status else {}
        if status and all(one["stage"] == "out" for one in status["targets"]):
            reasons.append("no target can serve: " + "; ".join(f"{name}: {why}" for name, why in targets.items()))
        return not reasons, {"model": model, "reasons": reasons, "targets": targets}

    def _stopping(self) -> list[str]:
        if self.draining.is_set():
            return ["draining: this server is about to stop"]
        return [] if self._running() else ["tritonserver does not run"]

    def in_flight(self) -> int:
        """Return the requests that routed models have at their targets."""
        return sum(target["in_flight"] for status in statuses(self.server) for target in status["targets"])


def statuses(server: int) -> list[dict[str, Any]]:
    """Return what the routed models of a server say of themselves; none if none answers."""
    try:
        return read_statuses(server, patience_s=_PATIENCE_S)
    except UnavailableError:
        return []
