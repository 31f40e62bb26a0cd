"""Check that what a routed model leaves out of its config.pbtxt can be completed from its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import TritonRouterError
from triton_router.repository.dependencies import cycle_from
from triton_router.serving.complete import signature_of_targets
from triton_router.serving.launcher.preflight.finding import Finding, error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triton_router.serving.launcher.models import ServedModel


def completed(models: Mapping[str, ServedModel]) -> list[Finding]:
    """A routed model without inputs or outputs takes them from its targets when it loads; try that here.

    Models that another check refuses anyway are left to that one.
    """
    found: list[Finding] = []
    for model in models.values():
        config, router = model.config, model.router
        if config is None or router is None or (config.input and config.output):
            continue
        targets = [models.get(name) for name in model.targets]
        refused = any(target is None or target.problem is not None for target in targets)
        if refused or cycle_from(model.directory.parent, model.name):
            continue
        try:
            signature_of_targets(model.directory.parent, router)
        except TritonRouterError as problem:
            what = f"the inputs and outputs of routed model {model.name!r} cannot be taken from its targets"
            found.append(error(what, problem.message, problem.hint))
    return found
