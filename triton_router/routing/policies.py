"""Policies: named combinations of filters, weighted scorers and one picker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.errors import ConfigError
from triton_router.routing import scorers
from triton_router.routing.filters import Late, unproven_and_busy
from triton_router.routing.pickers import BestThenLeastRequest, PowerOfTwo, Proportional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triton_router.routing.protocols import Filter, Picker, Scorer

LIKELY = 0.5
"""Probability of meeting a request's latency bound that policies other than ``slo`` ask of a target."""

_USUALLY = Late(LIKELY)


@dataclass(frozen=True, slots=True)
class Policy:
    """How one target is chosen.

    Attributes:
        filters: What is left out while something else is left; after the request's constraints, failing targets and
            the rules, before the latency bound.
        scorers: Each with its weight; weights are not negative and not all 0. The total score is their weighted mean.
        picker: Takes one of the rated.
        late: Judges who meets a request's latency bound.
        learns: Whether the choice rests on what is learned of a target, so that trying others is worth its price.
        shares: The scorers that count, weights scaled to sum to 1.
    """

    name: str
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    picker: Picker
    late: Late = _USUALLY
    learns: bool = False
    shares: tuple[tuple[Scorer, float], ...] = field(init=False)

    def __post_init__(self) -> None:
        total = sum(weight for _, weight in self.scorers)
        if total <= 0.0 or any(weight < 0.0 for _, weight in self.scorers):
            raise ConfigError(
                f"the weights of policy {self.name!r} are negative or all 0", hint="give at least one a positive weight"
            )
        shares = tuple((scorer, weight / total) for scorer, weight in self.scorers if weight)
        object.__setattr__(self, "shares", shares)


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A policy with its parameters open.

    Attributes:
        make: Makes it, from every parameter's value.
        parameters: Their names and default values. Weights are not negative, probabilities are below 1.
    """

    make: Callable[[Mapping[str, float]], Policy]
    parameters: Mapping[str, float] = field(default_factory=dict[str, float])


def policy_named(name: str, parameters: Mapping[str, float] | None = None) -> Policy:
    """Return a policy by its name in ``router.yaml`` (``balanced`` is ``adaptive``).

    Args:
        name: One of `POLICIES`.
        parameters: Those that differ from their defaults.

    Raises:
        ConfigError: The name or a parameter is unknown, or a value is out of range.
    """
    kind = POLICIES.get(_ALIASES.get(name, name))
    if kind is None:
        raise ConfigError(f"there is no policy {name!r}", hint=f"use one of {', '.join(POLICIES)}")
    given = dict(parameters or {})
    for key, value in given.items():
        if key not in kind.parameters:
            known = ", ".join(kind.parameters) or "none"
            raise ConfigError(f"policy {name!r} has no parameter {key!r}", hint=f"its parameters: {known}")
        if not 0.0 <= value < float("inf") or (key == "probability" and not 0.0 < value < 1.0):
            raise ConfigError(
                f"parameter {key!r} of policy {name!r} cannot be {value:g}",
                hint="weights are 0 or more, a probability lies between 0 and 1",
            )
    return kind.make({**kind.parameters, **given})


def _learning(name: str, *rated: tuple[Scorer, float], probability: float = LIKELY) -> Policy:
    """Return a policy that rests on what was learned, and finds out about the unproven."""
    return Policy(
        name,
        (unproven_and_busy,),
        rated,
        BestThenLeastRequest(),
        Late(probability),
        learns=True,
    )


def _adaptive(parameters: Mapping[str, float]) -> Policy:
    return _learning(
        "adaptive",
        (scorers.complexity, parameters["complexity_weight"]),
        (scorers.latency, parameters["latency_weight"]),
        (scorers.resources, parameters["resource_weight"]),
    )


def _slo(parameters: Mapping[str, float]) -> Policy:
    return _learning(
        "slo",
        (scorers.cost, parameters["cost_weight"]),
        (scorers.power, parameters["power_weight"]),
        probability=parameters["probability"],
    )


def _without_learning(name: str, scorer: Scorer, picker: Picker) -> Policy:
    return Policy(name, (), ((scorer, 1.0),), picker)


_ALIASES = {"balanced": "adaptive"}

POLICIES: Mapping[str, PolicyKind] = {
    "latency": PolicyKind(lambda _: _learning("latency", (scorers.latency, 1.0))),
    "throughput": PolicyKind(lambda _: _learning("throughput", (scorers.throughput, 1.0))),
    "power": PolicyKind(lambda _: _learning("power", (scorers.power, 1.0))),
    "adaptive": PolicyKind(_adaptive, {"complexity_weight": 0.3, "latency_weight": 0.4, "resource_weight": 0.3}),
    "cost": PolicyKind(lambda _: _learning("cost", (scorers.cost, 1.0))),
    "slo": PolicyKind(_slo, {"probability": 0.95, "cost_weight": 1.0, "power_weight": 0.0}),
    "least-latency": PolicyKind(lambda _: _learning("least-latency", (scorers.least_latency, 1.0))),
    "least-request": PolicyKind(
        lambda _: _without_learning("least-request", scorers.least_request, BestThenLeastRequest())
    ),
    "power-of-two": PolicyKind(lambda _: _without_learning("power-of-two", scorers.least_request, PowerOfTwo())),
    "random": PolicyKind(lambda _: _without_learning("random", scorers.equal, Proportional())),
}
"""Every policy by its name in ``router.yaml``."""
