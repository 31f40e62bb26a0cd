"""Which outcomes make a model worth installing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router.repository.plan import BY_SUFFIX, VariantPlan
from triton_router.repository.variants import Outcome, has_baseline, step_count

if TYPE_CHECKING:
    from triton_router.repository.variants import Status


def _row(suffix: str, action: str = "build-and-serve") -> VariantPlan:
    target = BY_SUFFIX[suffix]
    return VariantPlan(suffix, target.variant, target.backend, action, "reason")


def _outcomes(**statuses: Status) -> tuple[Outcome, ...]:
    return tuple(Outcome(_row(name.replace("_", "-")), status, "reason") for name, status in statuses.items())


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (_outcomes(onnx_cpu="served", onnx_int8_cpu="failed"), True),
        (_outcomes(onnx_cpu="failed", pt2_cpu="served"), True),
        (_outcomes(onnx_cpu="failed", onnx_int8_cpu="served"), False),
        (_outcomes(onnx_cpu="failed", pt2_cpu="failed", coreml_ane="kept"), False),
        (_outcomes(onnx_cpu="skipped", onnx_int8_cpu="served"), True),
        (_outcomes(onnx_gpu="kept", onnx_int8_cpu="served"), True),
    ],
)
def test_a_failed_fp32_baseline_condemns_the_rest(outcomes: tuple[Outcome, ...], expected: bool) -> None:
    """If every fp32 variant that was tried failed, an int8 one that passed its looser check is not trusted."""
    assert has_baseline(outcomes) is expected


def test_the_export_is_a_step_of_its_own() -> None:
    """The progress bar counts the ONNX export of a torch source once, and only if something is made from it."""
    rows = (_row("onnx-cpu"), _row("onnx-int8-cpu"), _row("pt2-cpu"), _row("onnx-gpu", "skip"))
    assert step_count(rows, "factory") == 4
    assert step_count(rows, "onnx") == 3
    assert step_count((_row("pt2-cpu"),), "factory") == 1
