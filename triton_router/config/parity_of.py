"""From settings to what is compared with what: the one place that says who is guarded, by whom, and how closely."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from triton_router.config.rollout_settings import ToleranceConfig
from triton_router.parity.tolerance import allowed, precision
from triton_router.routing.types import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.parity.tolerance import Tolerance


class Pair(NamedTuple):
    """Two answers to compare.

    Attributes:
        judged: Name of the target whose answer is judged.
        by: Name of the target whose answer is right.
    """

    judged: str
    by: str

    def other_than(self, target: str) -> str:
        """Return the one that did not serve the request, and gets the copy."""
        return self.by if target == self.judged else self.judged


@dataclass(frozen=True, slots=True)
class Comparing:
    """Who is compared with whom.

    Attributes:
        reference: Name of the target that is right; "" for none.
        guarded: Names of the targets that are judged by it.
        canary: Names of the targets of a rollout that are judged by ``stable``; none where they are meant to differ.
        stable: Name of the target that the canary is judged by; "" for none.
        shadow: Name of the target that gets copies only; "" for none.
        compares_shadow: Whether its answers are compared with those that clients got.
        targets: All targets, by name.
        settings: How far answers may be apart, as far as somebody has said so.
        why_off: Why nothing is guarded although there are several targets; "" where something is, or nothing could be.
    """

    reference: str = ""
    guarded: tuple[str, ...] = ()
    canary: tuple[str, ...] = ()
    stable: str = ""
    shadow: str = ""
    compares_shadow: bool = False
    targets: Mapping[str, TargetConfig] = field(default_factory=dict[str, "TargetConfig"])
    settings: ToleranceConfig = field(default_factory=ToleranceConfig)
    why_off: str = ""

    def tolerance(self, pair: Pair) -> Tolerance:
        """Return how far the answers of two targets may be apart."""
        one, other, settings = self.targets[pair.judged], self.targets[pair.by], self.settings
        tolerance = allowed(one.variant, other.variant, same_device=one.backend is other.backend)
        adjusted = tolerance.adjusted(settings.relative, settings.cosine, settings.agreement)
        return adjusted.of_outputs(argmax=frozenset(settings.argmax), ignore=frozenset(settings.ignore))


def comparing_of(config: RouterConfig) -> Comparing:
    """Return who is compared with whom.

    Where nobody has said so, the reference is the first target on the CPU whose variant is not quantised, else the
    first that is not quantised; neither a canary nor a shadow. Guarded are those that are quantised or run on another
    kind of device than it. Streams are not compared, nor requests that must not be executed twice.
    """
    if config.streaming or not config.retry.idempotent or len(config.targets) == 1:
        return Comparing()
    parity, shadow = config.parity, config.shadow
    by_name = {target.name: target for target in config.targets}
    canary = tuple(config.rollout.canary) if config.rollout else ()
    newcomers = {*canary, *([shadow.target] if shadow else ())}
    steady = [target for target in config.targets if target.name not in newcomers]
    reference = by_name[parity.reference] if parity.reference else _reference(steady)
    guarded = _guarded(config, reference, shadow.target if shadow else "") if reference and parity.share else ()
    judged_by_stable = canary if config.rollout and config.rollout.gate.max_mismatch < 1.0 and parity.share else ()
    stable = (reference if reference in steady else steady[0]).name if judged_by_stable and steady else ""
    why_off = ""
    if reference is None and parity.share and len(steady) > 1:
        why_off = "every target's variant is quantised; name the one that is right as parity.reference"
    return Comparing(
        reference=reference.name if reference and guarded else "",
        guarded=guarded,
        canary=judged_by_stable,
        stable=stable,
        shadow=shadow.target if shadow else "",
        compares_shadow=bool(shadow and shadow.compare),
        targets=by_name,
        settings=parity.tolerance,
        why_off=why_off,
    )


def _reference(steady: list[TargetConfig]) -> TargetConfig | None:
    full = [target for target in steady if precision(target.variant) == "fp32"]
    return next((target for target in full if target.backend is Backend.CPU), full[0] if full else None)


def _guarded(config: RouterConfig, reference: TargetConfig, shadow: str) -> tuple[str, ...]:
    chosen = config.parity.targets
    others = [target for target in config.targets if target is not reference]
    if chosen is not None:
        return tuple(target.name for target in others if target.name in chosen)
    return tuple(target.name for target in others if target.name != shadow and _may_differ(target, reference))


def _may_differ(target: TargetConfig, reference: TargetConfig) -> bool:
    return precision(target.variant) != "fp32" or target.backend is not reference.backend
