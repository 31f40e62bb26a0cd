"""A picture of an A/B test: each arm's figures with the intervals that hold at any time, and their difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.errors import InvalidInputError
from triton_router.simulation.plot import headless_pyplot, require_plotting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triton_router.cli.rollout_source import Observed

__all__ = ["plot", "require_plotting"]


def plot(path: Path, model: str, reports: Sequence[Observed]) -> None:
    """Draw what experiments have shown into a file; one row for each instance.

    Raises:
        InvalidInputError: The file cannot be written, or is neither PNG nor SVG.
        UnsupportedError: matplotlib is not installed.
    """
    drawing = headless_pyplot()
    drawing.rcParams["svg.hashsalt"] = "triton-router"
    rows = len(reports)
    figure, axes = drawing.subplots(rows, 3, figsize=(13, 2.6 * rows + 0.8), layout="constrained", squeeze=False)
    for (latency, failures, change), (source, report) in zip(axes, reports, strict=True):
        arms: dict[str, dict[str, Any]] = report["arms"]
        names = [f"{name}\n{report['policies'].get(name, '')}" for name in arms]
        _draw(latency, names, [(arm["latency_ms"], arm["latency_interval_ms"]) for arm in arms.values()])
        _draw(failures, names, [(arm["failure_share"], arm["failure_interval"]) for arm in arms.values()])
        found = report["latency"]
        _draw(change, ["treatment\nagainst control"], [(found["change"], found["interval"])])
        change.axvline(0.0, color="grey", linewidth=0.8)
        latency.set(xlabel="geometric mean latency in ms", title=source)
        failures.set(xlabel="share of failures")
        change.set(xlabel="change of latency, as a share")
    first = reports[0].report
    figure.suptitle(f"{model}: {first['experiment_id']}\n{first['verdict']}", fontsize="medium")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", hint="check the path") from error
    finally:
        drawing.close(figure)


def _draw(axis: Any, names: list[str], figures: list[tuple[float | None, list[float] | None]]) -> None:
    """Draw a dot with a bar for each figure; nothing where there is none yet."""
    for place, (value, interval) in enumerate(figures):
        if value is None:
            continue
        low, high = interval or (value, value)
        axis.errorbar(value, place, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o", capsize=4)
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
