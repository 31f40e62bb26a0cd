"""Bad days on a served fleet: load and a look at health around a fault, and the line of figures that comes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.errors import TritonRouterError
from triton_router.testing.checked_load import Habits, Seen
from triton_router.testing.health_watch import HealthWatch, in_flight
from triton_router.testing.process_figures import serving_stub_of, stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from triton_router.testing.checked_load import CheckedLoad
    from triton_router.testing.served_triton import ServedTriton
    from triton_router.testing.switched_fleet import SwitchedFleet

SETTLE_S = 0.5
"""Of load before a fault: every target has answered by then."""

_EVENT_S = 60.0
"""Longest wait for anything that has to happen."""

_IDLE_S = 60.0


@dataclass
class Scene:
    """One fault under load.

    Attributes:
        name: What happens, for the line of figures.
        load: Its clients.
        watch: What is seen of the routed model's health.
        began: When the fault began, in monotonic seconds.
        figures: What was measured besides, by name.
        in_flight: At the end, with no client left.
    """

    name: str
    load: CheckedLoad
    watch: HealthWatch
    began: float = 0.0
    figures: dict[str, str] = field(default_factory=dict[str, str])
    in_flight: int = -1

    @property
    def seen(self) -> Seen:
        """What clients saw so far."""
        return self.load.seen

    def begin(self) -> None:
        """Have time run from here on."""
        self.began = time.monotonic()

    def await_out(self, *targets: str) -> None:
        """Wait until these targets are left out.

        Raises:
            TimeoutError: One is not.
        """
        for target in targets:
            took = self.watch.wait(
                lambda look, target=target: target in look.out, self.began, within_s=_EVENT_S, what=f"{target} out"
            )
            self.figures[f"{target} out"] = f"{took:.2f} s"

    def await_back(self, *targets: str) -> None:
        """Wait until these targets take part again, counted from here. Errors as `await_out`."""
        since = time.monotonic()
        wanted = frozenset(targets)
        took = self.watch.wait(
            lambda look: wanted <= look.well, since, within_s=_EVENT_S, what=f"{', '.join(targets)} back"
        )
        self.figures[f"{', '.join(targets)} back"] = f"{took:.2f} s"

    def await_answers(self, count: int) -> None:
        """Wait until so many more questions have been answered well.

        Raises:
            TimeoutError: They have not.
        """
        wanted = self.seen.answered + count
        await_event(lambda: self.seen.answered >= wanted, f"{count} more answers")

    def line(self) -> str:
        """Return the figures on one line."""
        more = "".join(f", {name} {value}" for name, value in self.figures.items())
        return f"{self.name}: {self.seen.line()}{more}, in flight at the end {self.in_flight}"


class Chaos:
    """A served fleet, and what can be done to it.

    Args:
        fleet: Its repository and switches.
        served: Its server.
    """

    def __init__(self, fleet: SwitchedFleet, served: ServedTriton) -> None:
        self.fleet = fleet
        self.served = served

    def kill_stub(self, model: str) -> int:
        """Kill the stub process that serves a model at once; returns its process id."""
        pid = serving_stub_of(self.served.server_pid, model)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stub(self, model: str) -> int:
        """Return the process id of a model's stub. Raises `NotFoundError` if it has none."""
        return serving_stub_of(self.served.server_pid, model)

    def reload(self, model: str) -> None:
        """Load a model anew, in a new process, while the old one finishes what it has."""
        version = self.fleet.repository / model / "1"
        (version / "touched").write_text(f"{time.monotonic()}")  # Triton reloads only what has changed on disk
        self.served.load_model(model)

    @contextlib.contextmanager
    def scene(self, name: str, model: str, habits: Habits | None = None) -> Generator[Scene]:
        """Have clients ask a routed model, look at its health, and print the figures when all is over.

        At the end the load is stopped and nothing may be in flight any more.

        Raises:
            TimeoutError: Clients hang, or requests are still counted as in flight.
        """
        with HealthWatch(lambda: self.served.status(model)) as watch, self.served.load(model, habits) as load:
            scene = Scene(name, load, watch)
            time.sleep(SETTLE_S)
            scene.begin()
            try:
                yield scene
                load.stop()
                scene.in_flight = self.await_idle(model)
            finally:
                print(scene.line())  # noqa: T201 - the figures are what this is for

    def await_idle(self, model: str) -> int:
        """Wait until nothing is in flight at any target of a routed model; returns what is after a while."""
        count = -1
        end = time.monotonic() + _IDLE_S
        while count and time.monotonic() < end:
            with contextlib.suppress(TritonRouterError):  # it is being loaded
                count = in_flight(self.served.status(model))
            time.sleep(0.02)
        return count

    def await_none_out(self, model: str, *, within_s: float = _EVENT_S) -> None:
        """Wait until a routed model leaves out no target. Raises `TimeoutError` if it does.

        It takes requests to find out, which are the caller's to send.
        """
        with HealthWatch(lambda: self.served.status(model)) as watch:
            now = time.monotonic()
            watch.wait(lambda look: not look.out, now, within_s=within_s, what=f"{model} with all its targets")

    def heal(self, model: str, *targets: str) -> None:
        """Have these targets do well, loaded, alive and taking part again. Raises `TimeoutError` if one is not."""
        for target in targets:
            self.fleet.switch(target)
            if self.served.is_model_ready(target) and stubs_of(self.served.server_pid, target):
                continue
            self.served.unload_model(target)
            self.served.load_model(target)
        with (
            self.served.load(model, Habits(clients=4, grpc_clients=0)),
            HealthWatch(lambda: self.served.status(model)) as watch,
        ):
            now = time.monotonic()
            watch.wait(lambda look: set(targets) <= look.well, now, within_s=_EVENT_S, what=f"{targets} well")


def await_event(happened: Callable[[], bool], what: str, *, within_s: float = _EVENT_S) -> float:
    """Wait until something has happened; return the seconds it took.

    Raises:
        TimeoutError: It has not.
    """
    begun = time.monotonic()
    while not happened():
        if time.monotonic() - begun > within_s:
            raise TimeoutError(f"{what}: not within {within_s} s")
        time.sleep(0.01)
    return time.monotonic() - begun
