"""The simulated fleet: every target with its device, its true speed, and what happens to it when."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from triton_router.profiling.figures import UNKNOWN_FIGURE, Figure, Source
from triton_router.profiling.profile import TargetProfile
from triton_router.routing.types import Target
from triton_router.simulation.devices import QueueDevice, SharedDevice
from triton_router.telemetry.decision_format import TargetEntry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from triton_router.simulation.devices import Device
    from triton_router.simulation.scenario import DeviceSpec, Episode, Scenario, TargetSpec
    from triton_router.simulation.traffic import Luck, Request


@dataclass(slots=True, eq=False)
class SimulatedTarget:
    """One target as it truly is."""

    index: int
    spec: TargetSpec
    target: Target
    device_index: int
    speed: float
    episodes: tuple[Episode, ...]

    def mean_ms(self, request: Request, now: float) -> float:
        """Return the mean latency of a request alone at ``now`` (seconds)."""
        value = self.spec.curve.latency_ms(request.work, request.rows) * self.speed
        for episode in self.episodes:
            if episode.from_s <= now < episode.to_s:
                value *= episode.slow
        return value

    def failure_rate(self, now: float) -> float:
        """Return the probability of a failure at ``now``."""
        return max((e.fail for e in self.episodes if e.from_s <= now < e.to_s), default=0.0)

    def service_ms(self, request: Request, luck: Luck, now: float) -> float:
        """Return what a request takes alone, chance included; its mean is `mean_ms`."""
        noise, tail = self.spec.noise, self.spec.tail
        factor = exp(noise * luck.normal - 0.5 * noise * noise) / (1.0 + tail.share * (tail.factor - 1.0))
        if luck.tail < tail.share:
            factor *= tail.factor
        return self.mean_ms(request, now) * factor

    def profile(self) -> TargetProfile:
        """Return what a router knows of it before the first request."""
        curve, bias = self.spec.curve, self.spec.measured_bias * self.speed
        power = Figure(self.spec.power_w, Source.ESTIMATED) if self.spec.power_w else UNKNOWN_FIGURE
        return TargetProfile([(work, curve.latency_ms(work, 1) * bias) for work in self.spec.measured], power_w=power)

    def entry(self) -> TargetEntry:
        """Return its entry in a decision log."""
        spec = self.spec
        bias = spec.measured_bias * self.speed
        return TargetEntry(
            name=self.target.name,
            backend=self.target.backend,
            variant=self.target.variant,
            measured=tuple((float(work), spec.curve.latency_ms(work, 1) * bias) for work in spec.measured),
            power_w=spec.power_w,
            power_source=Source.ESTIMATED if spec.power_w else Source.UNKNOWN,
            price_per_hour=spec.price_per_hour,
            device=self.target.device,
        )


@dataclass(slots=True, eq=False)
class Fleet:
    """All targets, and the specifications of their devices, one for each copy."""

    targets: list[SimulatedTarget]
    devices: list[DeviceSpec]

    def fresh_devices(self) -> list[Device]:
        """Return the devices, idle."""
        return [SharedDevice(spec.slots) if spec.kind == "shared" else QueueDevice(spec.slots) for spec in self.devices]


def build_fleet(scenario: Scenario, rng: Random) -> Fleet:
    """Return the fleet of a scenario; ``rng`` draws how much copies of a device differ."""
    targets: list[SimulatedTarget] = []
    devices: list[DeviceSpec] = []
    for device in scenario.devices:
        for copy in range(device.copies):
            speed = exp(device.spread * rng.gauss(0.0, 1.0)) if device.spread else 1.0
            name = f"{device.name}-{copy}" if device.copies > 1 else device.name
            for spec in (spec for spec in scenario.targets if spec.device == device.name):
                full = f"{spec.name}-{copy}" if device.copies > 1 else spec.name
                names = {spec.name, full, device.name, name}
                episodes = tuple(episode for episode in scenario.episodes if episode.target in names)
                target = _target(full, name, spec, device)
                targets.append(SimulatedTarget(len(targets), spec, target, len(devices), speed, episodes))
            devices.append(device)
    return Fleet(targets, devices)


def _target(name: str, device_name: str, spec: TargetSpec, device: DeviceSpec) -> Target:
    return Target(
        name, name, backend=device.backend, variant=spec.name, price_per_hour=spec.price_per_hour, device=device_name
    )


def entries(targets: Sequence[SimulatedTarget]) -> list[TargetEntry]:
    """Return the targets as a decision log's first line lists them."""
    return [target.entry() for target in targets]
