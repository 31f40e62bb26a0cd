"""An A/B test of two routing policies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from triton_router.experiments.assignment import is_treated

if TYPE_CHECKING:
    from triton_router.routing.policies import Policy


class Arm(StrEnum):
    """The two sides of an experiment."""

    CONTROL = "control"
    TREATMENT = "treatment"


class Assignment(StrEnum):
    """What is assigned to an arm."""

    REQUEST = "request"
    """Each request: by the key that its caller stays with, else by itself."""
    MODEL = "model"
    """Each model as a whole."""


@dataclass(frozen=True, slots=True)
class Split:
    """One experiment.

    Attributes:
        fraction: Share of requests, or models, that get the treatment, 0 to 1.
        models: Globs of the models that take part; none for all.
        assignment: What is assigned.
    """

    experiment_id: str
    control: Policy
    treatment: Policy
    fraction: float
    models: tuple[str, ...] = ()
    assignment: Assignment = Assignment.REQUEST

    def covers(self, model: str) -> bool:
        """Return whether a model takes part."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def arm_of(self, model: str, key: str) -> Arm:
        """Return the arm of a request.

        Args:
            model: Whom it is for.
            key: What its caller stays with, or else an id of its own.
        """
        subject = model if self.assignment is Assignment.MODEL else key
        return Arm.TREATMENT if is_treated(self.experiment_id, subject, self.fraction) else Arm.CONTROL

    def policy_of(self, arm: Arm) -> Policy:
        """Return the policy of an arm."""
        return self.treatment if arm is Arm.TREATMENT else self.control
