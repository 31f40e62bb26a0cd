"""What a routed model says of itself over its status socket."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.routing.snapshot import TargetSnapshot


def live_status(
    model: str, policy: str, targets: Sequence[TargetSnapshot], parts: Mapping[str, object]
) -> dict[str, Any]:
    """Return the status as it travels, in JSON's types.

    Args:
        model: The routed model.
        policy: The one in force.
        targets: As they stand; one that has been removed is shown while it has something in flight.
        parts: What other parts of the process say of themselves, such as ``state``.
    """
    shown = [_target(target) for target in targets if target.in_flight or not target.removed]
    return {"model": model, "policy": policy, "targets": shown, **parts}


def _target(target: TargetSnapshot) -> dict[str, Any]:
    drift = target.last_drift
    return {
        **asdict(target),
        "last_drift": drift._asdict() if drift is not None else None,
        "memory_mb": target.memory_mb.as_json(),
        "power_w": target.power_w.as_json(),
    }
