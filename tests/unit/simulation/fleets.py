"""Small scenarios for tests."""

from __future__ import annotations

from typing import Any

from triton_router.simulation.scenario import Scenario


def scenario(**changes: Any) -> Scenario:
    """Two targets on two devices, of which the first is better for little work."""
    settings: dict[str, Any] = {
        "devices": [{"name": "cpu", "kind": "shared", "slots": 2}, {"name": "gpu", "backend": "gpu"}],
        "targets": [
            {
                "name": "small",
                "device": "cpu",
                "curve": {"kind": "affine", "base_ms": 0.5, "per_work_ms": 0.05},
                "measured": [16, 128],
            },
            {
                "name": "large",
                "device": "gpu",
                "curve": {"kind": "flat", "base_ms": 3.0, "knee": 500.0, "per_work_ms": 0.01},
                "measured": [16, 128],
            },
        ],
        "arrivals": {"kind": "closed", "clients": 1},
        "shapes": [{"rows": [1, 4], "elements": [4, 128]}],
    }
    return Scenario.model_validate({**settings, **changes})
