"""The metrics of a routed model as a whole, of its merging, and what a metric family is.

Their values come from whoever counts, once a second, as counts by `Family.key`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One series of a metric family, whatever model and target it is of. Each is one of its own kind: a constant.

    Attributes:
        name: Of the family.
        description: Likewise.
        kind: ``COUNTER`` or ``GAUGE``.
        labels: Beside ``model`` and ``target``.
    """

    name: str
    description: str
    kind: str = "COUNTER"
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Its name among counts: ``name``, or ``name{label=value}``."""
        return self.name + "".join(f"{{{label}={value}}}" for label, value in self.labels)


def _by(label: str, values: Iterable[str], name: str, description: str) -> tuple[Family, ...]:
    """Return a counter with one series for each value of a label."""
    return tuple(Family(name, description, labels=((label, value),)) for value in values)


MODEL_FAMILIES = (
    Family(
        "triton_router_snapshot_errors_total",
        "Snapshots of what was learned that could not be read or written",
    ),
    Family(
        "triton_router_decision_log_dropped_total",
        "Decisions that the decision log should have and does not",
    ),
    Family(
        "triton_router_settings_followed_total",
        "Edits of router.yaml that the model followed while it served",
    ),
    Family(
        "triton_router_settings_refused_total",
        "Edits of router.yaml that were not valid, or that a serving model cannot follow",
    ),
    Family(
        "triton_router_instances",
        "Instances of the routed model on this host that share load and what they learn, this one included",
        kind="GAUGE",
    ),
    Family(
        "triton_router_settings_problem",
        "1 while router.yaml says something that the model does not follow",
        kind="GAUGE",
    ),
    Family(
        "triton_router_target_processes_died_total",
        "Processes of targets that died while the server held their model for ready",
    ),
    Family("triton_router_retries_total", "Attempts at another target after one that failed or was given up"),
    Family("triton_router_retries_helped_total", "Those of them that answered the client"),
    Family("triton_router_hedges_total", "Attempts at a second target while the first was at work"),
    Family("triton_router_hedges_won_total", "Those of them that answered the client"),
    *_by(
        "why",
        ("budget", "hedge_share", "no_target", "attempts"),
        "triton_router_retries_denied_total",
        "Attempts that were wanted and not made",
    ),
    Family("triton_router_overdue_total", "Attempts that were given up because they took too long"),
    *_by(
        "at",
        ("router", "target"),
        "triton_router_deadline_errors_total",
        "Requests that were not answered within their time, by where they were then",
    ),
    *_by(
        "why",
        ("full", "displaced", "late"),
        "triton_router_refused_total",
        "Requests refused because there was too much to do",
    ),
    Family("triton_router_under_way", "Requests taken and not yet answered", kind="GAUGE"),
    Family("triton_router_waiting", "Those of them that wait for a worker or for a target's slot", kind="GAUGE"),
    Family("triton_router_abandoned", "Attempts under way whose requests have been answered", kind="GAUGE"),
)
"""Every metric of a routed model; docs/metrics.md describes each."""

MERGING_FAMILIES = (
    Family("triton_router_merged_calls_total", "Calls that carried several requests to the target"),
    Family("triton_router_merged_requests_total", "Requests that those calls carried"),
    Family("triton_router_split_calls_total", "Those calls that failed, so that their requests went out apart"),
)
"""Every metric of a target that takes merged calls; docs/metrics.md describes each."""
