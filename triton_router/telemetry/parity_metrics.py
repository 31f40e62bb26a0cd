"""Metrics of comparisons, for each target whose answers are compared."""

from __future__ import annotations

from triton_router.telemetry.families import Family

RESULTS = ("agrees", "differs", "failed")

PARITY_FAMILIES = (
    *(
        Family(
            "triton_router_comparisons_total",
            "Answers of the target that were compared with another's to the same request, by what was found",
            labels=(("result", result),),
        )
        for result in RESULTS
    ),
    Family(
        "triton_router_quarantined",
        "1 while the target gets no requests because its answers differ from the reference's",
        kind="GAUGE",
    ),
    Family(
        "triton_router_largest_difference",
        "Largest difference seen of a floating point element, as a share of the largest magnitude in its output",
        kind="GAUGE",
    ),
)
"""Every metric of a target that is compared; docs/metrics.md describes each."""


def parity_counts(results: tuple[int, int, int], *, quarantined: bool, largest_difference: float) -> dict[str, float]:
    """Return a target's counts, by the keys of `PARITY_FAMILIES`.

    Args:
        results: Comparisons by what was found, in the order of `RESULTS`.
        quarantined: Whether it gets no requests because of that.
        largest_difference: See `PARITY_FAMILIES`.
    """
    by_result = zip(RESULTS, results, strict=True)
    return {
        **{f"triton_router_comparisons_total{{result={result}}}": float(count) for result, count in by_result},
        "triton_router_quarantined": float(quarantined),
        "triton_router_largest_difference": largest_difference,
    }
