"""Executes ``model.mlpackage`` through Core ML, on a Mac's Neural Engine, GPU or CPU.

Which of them may be used is the config's parameter ``compute_units``: ``ALL``, ``CPU_AND_NE`` (the default: these
targets stand for the Neural Engine, and the GPU is another target's), ``CPU_AND_GPU`` or ``CPU_ONLY``. Core ML
places each operator itself and falls back to the CPU without a word, so its plan is read back when the model is
opened and a warning says how much of the work is not where it was wanted.

Core ML exists on macOS only. What touches it (`_open`, `_placement`) follows the documentation of coremltools 9 and
has not been run by this project's tests, which have no Mac; casting, padding and renaming are
`triton_router.repository.coreml_package`, and are tested.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from triton_router.errors import ConfigError, UnsupportedError
from triton_router.repository.coreml_package import METADATA_KEY, Package
from triton_router.serving.backends.base import ExecutingModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from triton_router.serving.backends.context import ModelContext

    Tensors = dict[str, NDArray[np.generic]]

FILE = "model.mlpackage"
COMPUTE_UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
DEFAULT_COMPUTE_UNITS = "CPU_AND_NE"

MIN_PLANNED_SHARE = 0.5
"""Below this share of the estimated work on the wanted device, the target does not do what its name says."""


class Model(Protocol):
    """What is used of ``coremltools.models.MLModel``."""

    @property
    def user_defined_metadata(self) -> Mapping[str, str]:
        """Return what the package's maker stored in it."""
        ...

    def predict(self, data: Tensors, /) -> Tensors:
        """Run the package once."""
        ...


class CoremlSession:
    """One opened package.

    Args:
        context: The model.
        warn: Logs a line.
        model: An opened package; by default the model's file is opened.

    Raises:
        UnsupportedError: This is not macOS, or coremltools is not installed.
        ConfigError: ``config.pbtxt`` and the package disagree, or ``compute_units`` is not valid.
    """

    def __init__(self, context: ModelContext, warn: Callable[[str], None], model: Model | None = None) -> None:
        units = compute_units(context)
        self._model = _open(context, units, warn) if model is None else model
        self._package = _package(context, self._model)
        self._dtypes = {output.name: output.dtype for output in context.outputs}

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run one batch; the package's types are cast to those that the config declares."""
        answer = self._package.call(self._model.predict, inputs)
        return {name: answer[name].astype(self._dtypes[name], copy=False) for name in outputs}


class CoremlModel(ExecutingModel):
    """The ``TritonPythonModel`` of the ``coreml`` backend."""

    open_session = CoremlSession


def compute_units(context: ModelContext) -> str:
    """Return the devices that Core ML may use for this model.

    Raises:
        ConfigError: The parameter has another value than Core ML's names.
    """
    units = context.parameters.get("compute_units", DEFAULT_COMPUTE_UNITS)
    if units not in COMPUTE_UNITS:
        raise ConfigError(
            f"parameter compute_units of model {context.name!r} is {units!r}",
            hint="use one of " + ", ".join(COMPUTE_UNITS),
        )
    return units


def planned_share(work: Sequence[tuple[float, bool]]) -> float:
    """Return the share of the work that is planned for the wanted device.

    Args:
        work: For each operator its estimated share of the cost, and whether it is planned for that device.
    """
    total = sum(weight for weight, _ in work)
    return sum(weight for weight, wanted in work if wanted) / total if total > 0 else 0.0


def _package(context: ModelContext, model: Model) -> Package:
    """Return how the package is called; one that this project did not make has the config's names and any batch."""
    text = model.user_defined_metadata.get(METADATA_KEY)
    if text is None:
        inputs = {item.name: item.name for item in context.inputs}
        return Package(inputs, {item.name: item.name for item in context.outputs})
    package = Package.from_metadata(text)
    for role, declared, known in (
        ("input", context.inputs, package.inputs),
        ("output", context.outputs, package.outputs),
    ):
        for item in declared:
            if item.name not in known:
                raise ConfigError(
                    f"config.pbtxt of {context.name!r} declares {role} {item.name!r}; "
                    f"the package has {', '.join(known)}",
                    hint="correct config.pbtxt, or add the model again with 'triton-router add'",
                )
    return package


def _open(context: ModelContext, units: str, warn: Callable[[str], None]) -> Model:
    """Load the package. Not run by the tests beyond the refusals."""
    if sys.platform != "darwin":
        raise UnsupportedError(
            f"Core ML runs on macOS only; model {context.name!r} cannot be served on {sys.platform}",
            hint="serve this repository on a Mac, or remove the target from router.yaml",
        )
    try:
        import coremltools as ct
    except ImportError as error:
        raise UnsupportedError(
            f"coremltools is not installed: {error}", hint="pip install 'triton-router[coreml]'"
        ) from error
    model: Any = ct.models.MLModel(str(context.file(FILE)), compute_units=ct.ComputeUnit[units])
    share = _placement(ct, model, units)
    if share < MIN_PLANNED_SHARE:
        warn(
            f"model {context.name!r}: Core ML plans only {share:.0%} of the work for the wanted device "
            f"(compute_units {units}); the rest runs elsewhere"
        )
    return model


def _placement(ct: Any, model: Any, units: str) -> float:
    """Return the share of the work that Core ML plans for the accelerator; 1 if none was asked for. Not run here."""
    from coremltools.models import compute_device
    from coremltools.models.compute_plan import MLComputePlan

    if units in {"ALL", "CPU_ONLY"}:
        return 1.0
    gpu = units == "CPU_AND_GPU"
    wanted = compute_device.MLGPUComputeDevice if gpu else compute_device.MLNeuralEngineComputeDevice
    plan: Any = MLComputePlan.load_from_path(model.get_compiled_model_path(), compute_units=ct.ComputeUnit[units])
    work: list[tuple[float, bool]] = []
    for operation in plan.model_structure.program.functions["main"].block.operations:
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if cost is not None and usage is not None:  # constants have neither
            work.append((cost.weight, isinstance(usage.preferred_compute_device, wanted)))
    return planned_share(work)
