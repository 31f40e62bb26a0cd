"""A scenario: a fleet, its traffic, and what goes wrong. The built-in ones are files of the same format.

docs/simulate.md describes every key.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from triton_router.config.loading import Document, load_yaml
from triton_router.config.router_config import RouterConfig
from triton_router.errors import ConfigError, NotFoundError
from triton_router.routing.types import Backend, backend_named
from triton_router.simulation.curves import Affine, Flat, Steps
from triton_router.simulation.settings import Settings

BUILT_IN = Path(__file__).parent / "scenarios"
MOST_TARGETS = 100_000

_Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, le=1e9)]
Curve = Annotated[Affine | Flat | Steps, Field(discriminator="kind")]


def _backend(value: object) -> object:
    return backend_named(value) if isinstance(value, str) else value


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


class DeviceSpec(Settings):
    """One device, or many of a kind."""

    name: _Name
    backend: Annotated[Backend, BeforeValidator(_backend)] = Backend.CPU
    kind: Literal["queue", "shared"] = "queue"
    slots: Annotated[int, Field(ge=1, le=4096)] = 1
    copies: Annotated[int, Field(ge=1, le=MOST_TARGETS)] = 1
    spread: Annotated[float, Field(ge=0, le=2)] = 0.0


class Tail(Settings):
    """Rare slow answers: garbage collections, cold caches."""

    share: _Share
    factor: Annotated[float, Field(ge=1, le=1000)]


class TargetSpec(Settings):
    """One target on each copy of a device."""

    name: _Name
    device: _Name
    instances: Annotated[int, Field(ge=0, le=1024)] = 0
    curve: Curve
    noise: Annotated[float, Field(ge=0, le=2)] = 0.05
    tail: Tail = Tail(share=0.0, factor=1.0)
    measured: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, max_length=64)] = ()
    measured_bias: Annotated[float, Field(gt=0, le=100)] = 1.0
    price_per_hour: Annotated[float, Field(ge=0)] = 0.0
    power_w: Annotated[float, Field(ge=0)] = 0.0


class ClosedLoop(Settings):
    """Clients that each send the next request when they have the answer to the last."""

    kind: Literal["closed"]
    clients: Annotated[int, Field(ge=1, le=100_000)] = 1
    think_ms: Annotated[float, Field(ge=0, le=1e9)] = 0.0


class Poisson(Settings):
    """Requests that come whenever they come, at a constant mean rate."""

    kind: Literal["poisson"]
    per_second: Annotated[float, Field(gt=0, le=1e7)]


class Diurnal(Settings):
    """Poisson, at a rate that swings around its mean like day and night."""

    kind: Literal["diurnal"]
    per_second: Annotated[float, Field(gt=0, le=1e7)]
    swing: _Share
    period_s: Annotated[float, Field(gt=0, le=1e9)]


class Recorded(Settings):
    """The times and shapes of a decision log, from its first request on."""

    kind: Literal["trace"]
    path: str


class ShapeSpec(Settings):
    """One kind of request: rows, and elements in each, drawn evenly on a logarithmic scale."""

    share: Annotated[float, Field(gt=0)] = 1.0
    rows: Annotated[tuple[int, int], BeforeValidator(_pair), Field(strict=False)] = (1, 1)
    elements: Annotated[tuple[int, int], BeforeValidator(_pair), Field(strict=False)] = (1, 1)
    max_latency_ms: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, (low, high) in (("rows", self.rows), ("elements", self.elements)):
            if not 1 <= low <= high <= 1_000_000_000:
                raise ValueError(f"{name} must be a number of at least 1, or a pair [least, most]")
        return self


class Episode(Settings):
    """Something that happens to a target, or to all targets of a device, for a while."""

    target: _Name
    from_s: _Seconds
    to_s: _Seconds
    slow: Annotated[float, Field(gt=0, le=1000)] = 1.0
    fail: _Share = 0.0


class EngineRules(Settings):
    """The engine's rules, by default those of a router.yaml that says nothing of them; but nothing is tried again."""

    explore: _Share = Field(default=RouterConfig.model_fields["explore"].default)
    mirror: _Share = Field(default=RouterConfig.model_fields["mirror"].default)
    attempts: Annotated[int, Field(ge=1, le=16)] = 1


class Scenario(Settings):
    """What is simulated."""

    description: Annotated[str, Field(max_length=500)] = ""
    requests: Annotated[int, Field(ge=1, le=100_000_000)] = 4000
    devices: Annotated[tuple[DeviceSpec, ...], Field(min_length=1, max_length=1000, strict=False)]
    targets: Annotated[tuple[TargetSpec, ...], Field(min_length=1, max_length=1000, strict=False)]
    arrivals: Annotated[ClosedLoop | Poisson | Diurnal | Recorded, Field(discriminator="kind")]
    shapes: Annotated[tuple[ShapeSpec, ...], Field(min_length=1, max_length=1000, strict=False)] = (ShapeSpec(),)
    episodes: Annotated[tuple[Episode, ...], Field(max_length=1000, strict=False)] = ()
    rules: EngineRules = EngineRules()
    routers: Annotated[int, Field(ge=1, le=10_000)] = 1
    cell_size: Annotated[int, Field(ge=0, le=10_000)] = 0
    policies: Annotated[tuple[str, ...], Field(strict=False, max_length=100)] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        devices = {device.name: device for device in self.devices}
        for names in ([device.name for device in self.devices], [target.name for target in self.targets]):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"the name {twice[0]!r} stands twice")
        for target in self.targets:
            if target.device not in devices:
                raise ValueError(f"target {target.name!r} is on device {target.device!r}, which is not listed")
        known = {*devices, *(target.name for target in self.targets)}
        for episode in self.episodes:
            if episode.target not in known:
                raise ValueError(f"an episode is about {episode.target!r}, which is neither a target nor a device")
            if episode.to_s <= episode.from_s:
                raise ValueError(f"the episode of {episode.target!r} ends before it begins")
        if sum(devices[target.device].copies for target in self.targets) > MOST_TARGETS:
            raise ValueError(f"there are more than {MOST_TARGETS} targets")
        if self.cell_size and self.routers > 1:
            raise ValueError("cell_size and routers exclude each other: a cell has an engine of its own")
        return self


def built_in_names() -> list[str]:
    """Return the names of the built-in scenarios."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def load_scenario(name: str) -> Scenario:
    """Read a built-in scenario by its name, or a file by its path.

    Raises:
        NotFoundError: There is neither.
        ConfigError: The file is not a valid scenario; the message names line and key.
    """
    if name in built_in_names():
        return validate_scenario(load_yaml(BUILT_IN / f"{name}.yaml"))
    path = Path(name)
    if not path.is_file():
        raise NotFoundError(
            f"there is no scenario {name!r}", hint=f"use a file, or one of {', '.join(built_in_names())}"
        )
    return validate_scenario(load_yaml(path))


def validate_scenario(document: Document) -> Scenario:
    """Validate a parsed document. Errors as `load_scenario`."""
    if not isinstance(document.data, dict):
        raise ConfigError(f"{document.source} is empty or not a mapping", hint="docs/simulate.md shows a scenario")
    try:
        return Scenario.model_validate(document.data)
    except ValidationError as error:
        raise document.validation_error(
            error, hint="the keys of a scenario are described in docs/simulate.md", settings=Scenario
        ) from error
