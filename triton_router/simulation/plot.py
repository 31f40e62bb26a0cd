"""One picture of a comparison: how latencies are spread, and how they went over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.errors import InvalidInputError, UnsupportedError
from triton_router.simulation.contenders import ORACLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triton_router.simulation.run import Run
    from triton_router.simulation.scenario import Scenario

SUFFIXES = (".png", ".svg")
_POINTS = 60
"""Parts into which the time axis is cut; each shows its mean."""
_COLOURS = 10
"""Lines beyond these are dotted."""


def require_plotting(path: Path) -> None:
    """Complain about what would keep `plot` from working, before anything is computed.

    Raises:
        InvalidInputError: The file is neither PNG nor SVG.
        UnsupportedError: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InvalidInputError(f"{path} ends neither in .png nor in .svg", hint="name the file plot.png or plot.svg")
    headless_pyplot()


def plot(path: Path, scenario: Scenario, runs: Sequence[Run], *, title: str) -> None:
    """Draw the runs into a file. Errors as `require_plotting`.

    Args:
        path: PNG or SVG.
        scenario: Its episodes are shaded.
        runs: One line each, in both panels.
        title: Stands above.
    """
    pyplot = headless_pyplot()
    pyplot.rcParams["svg.hashsalt"] = "triton-router"
    figure, (spread, course) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for number, run in enumerate(runs):
        style: dict[str, Any] = {
            "linestyle": "--" if run.policy == ORACLE else "-",
            "linewidth": 1.2,
            "color": f"C{number % _COLOURS}",
        }
        if number >= _COLOURS and run.policy != ORACLE:
            style["linestyle"] = ":"
        answered = [one for one in run.served if not one.mirrored and not one.failed]
        if not answered:
            continue
        latencies = sorted(one.latency_ms for one in answered)
        shares = [(rank + 1) / len(latencies) for rank in range(len(latencies))]
        spread.plot(latencies, shares, label=run.policy, **style)
        course.plot(*_course([(one.arrived, one.latency_ms) for one in answered]), **style)
    spread.set(xscale="log", xlabel="latency in ms", ylabel="share of requests answered by then", ylim=(0, 1))
    course.set(yscale="log", xlabel="simulated seconds", ylabel="mean latency in ms")
    for episode in scenario.episodes:
        course.axvspan(episode.from_s, episode.to_s, color="grey", alpha=0.15)
    spread.legend(fontsize="small")
    figure.suptitle(title)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", hint="check the path") from error
    finally:
        pyplot.close(figure)


def _course(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the mean latency of each part of the time, where there is one."""
    points = sorted(points)
    begin, length = points[0][0], (points[-1][0] - points[0][0]) / _POINTS or 1.0
    parts: dict[int, list[float]] = {}
    for at, latency_ms in points:
        parts.setdefault(min(_POINTS - 1, int((at - begin) / length)), []).append(latency_ms)
    return [begin + (part + 0.5) * length for part in parts], [sum(part) / len(part) for part in parts.values()]


def headless_pyplot() -> Any:
    """Return matplotlib, drawing into files. Errors as `require_plotting`."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UnsupportedError(
            "a plot needs matplotlib, which is not installed", hint="pip install 'triton-router[plots]'"
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt
