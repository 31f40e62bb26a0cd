"""Compares a saved ``.mlpackage`` with what its fp32 parent answered.

On macOS the package is loaded and run by Core ML itself (`coremltools.models.MLModel.predict`; written
against its documentation, and not run by this project's tests, which have no Mac).

Elsewhere ``predict`` does not exist. There the saved package is read back, and its program is evaluated
operator by operator: by coremltools' own constant folding (`Operation.value_inference`) where an operator has
it, by `triton_router.repository.build.coreml_ops` where not. That proves wiring, weights, shapes and the
rounding to float16 between operators. **It says nothing of the Neural Engine's own arithmetic or of which
device an operator runs on.** Operators that cannot be evaluated are named, and the comparison is then never
called full.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triton_router.errors import BuildError
from triton_router.parity.difference import Difference, difference
from triton_router.parity.tolerance import TOLERANCES
from triton_router.repository.build import samples
from triton_router.repository.build.job import Checks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triton_router.repository.build.job import BatchVerdict
    from triton_router.repository.build.samples import Tensors
    from triton_router.repository.coreml_package import Package

Verified = Literal["full", "partial", "none"]


@dataclass(slots=True)
class _Tally:
    """The comparison so far: the worst difference, and how many outputs could be compared."""

    difference: Difference = field(default_factory=Difference)
    compared: int = 0
    missing: int = 0
    failure: str = ""

    def add(self, expected: Tensors, answer: Tensors) -> None:
        """Compare the outputs of one sample; an answer is first cast to the parent's type, as a request's is."""
        for name, reference in expected.items():
            if name not in answer:
                self.missing += 1
                continue
            self.compared += 1
            found = difference({name: answer[name].astype(reference.dtype)}, {name: reference})
            self.difference = self.difference.worst(found)
            problem = found.exceeds(TOLERANCES["fp16"])
            if problem:
                self.failure = f"output {name!r}: {problem}"


def check(path: Path, package: Package, references: Sequence[str], *, batched: bool) -> Checks:
    """Compare the package at ``path`` with reference samples, called the way it is served.

    Args:
        path: A saved ``.mlpackage`` of an ML program.
        package: How it is called.
        references: Files of `triton_router.repository.build.samples`.
        batched: Dimension 0 of every tensor is the batch.

    Returns:
        ``passed`` if at least one output could be compared and all that could agree. ``detail`` starts with
        ``verified: full``, ``partial`` or ``none``.

    Raises:
        BuildError: The saved package cannot be read back.
    """
    runner = _Predictor(path) if sys.platform == "darwin" else _Evaluator(path)
    tally, alone = _Tally(), _Tally()
    for reference in references:
        sample = samples.load(reference)
        try:
            answer = package.call(runner.predict, sample.inputs)
            tally.add(sample.outputs, answer)
            if batched and len(next(iter(sample.inputs.values()))) > 1:
                # The last row by itself must answer as it did among the others.
                last = package.call(runner.predict, {name: value[-1:] for name, value in sample.inputs.items()})
                alone.add({name: value[-1:] for name, value in answer.items()}, last)
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            shapes = {name: list(value.shape) for name, value in sample.inputs.items()}
            tally.failure = f"the program does not run for {shapes}: {error}"
            break
    batch = "untested" if not alone.compared else "dependent" if alone.failure else "independent"
    return _verdict(tally, runner.unknown, batch, f"{runner.how}, {len(references)} samples")


def _verdict(tally: _Tally, unverified: set[str], batch: BatchVerdict, how: str) -> Checks:
    verified: Verified = "full" if tally.compared and not tally.missing else "partial" if tally.compared else "none"
    words = [f"verified: {verified}; {how}"]
    if tally.failure:
        words.append(tally.failure)
    if unverified:
        words.append(f"operators that cannot be evaluated here: {', '.join(sorted(unverified))}")
    return Checks(
        passed=tally.compared > 0 and not tally.failure,
        max_abs_error=tally.difference.absolute,
        rms_error=tally.difference.rms,
        cosine=tally.difference.cosine if tally.compared else 0.0,
        batch=batch,
        detail="; ".join(words),
    )


class _Predictor:  # pragma: no cover - macOS only, not run by the tests
    """Asks Core ML itself, on whichever device it chooses."""

    how = "run by Core ML"

    def __init__(self, path: Path) -> None:
        import coremltools as ct

        self.unknown: set[str] = set()
        self._model: Any = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.ALL)

    def predict(self, inputs: Tensors) -> Tensors:
        """Run the package once."""
        return {name: np.asarray(value) for name, value in self._model.predict(inputs).items()}


class _Evaluator:
    """Evaluates the saved program operator by operator.

    Attributes:
        unknown: Operators that could not be evaluated so far.
    """

    how = "evaluated operator by operator (wiring, weights, shapes; not the Neural Engine's arithmetic)"

    def __init__(self, path: Path) -> None:
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load

        self.unknown: set[str] = set()
        try:
            model = ct.models.MLModel(str(path), skip_model_load=True)
            spec = model.get_spec()
            program = load(spec, spec.specificationVersion, str(model.weights_dir))
        except (AssertionError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise BuildError(
                f"the saved Core ML package cannot be read back: {error}", hint="report this with the model"
            ) from error
        self._function: Any = program.functions["main"]

    def predict(self, inputs: Tensors) -> Tensors:
        """Give every variable its value for these inputs; return the outputs that have one.

        ``_sym_type`` and ``_sym_val`` are coremltools' own slots for a variable's type and value, read by its
        public properties, which have no setters.
        """
        from coremltools.converters.mil.mil import types

        function = self._function
        for name, var in function.inputs.items():
            _assign(var, types.tensor(var.dtype, inputs[name].shape), inputs[name])
        # What overflows shows as not finite in the comparison; some type inference asks for the enclosing function.
        with np.errstate(all="ignore"), function:
            for op in function.operations:
                self._step(op)
        return {var.name: np.asarray(var.val) for var in function.outputs if var.val is not None}

    def _step(self, op: Any) -> None:
        if op.op_type == "const" or op.op_type.startswith("constexpr_"):
            return
        if all(var.val is not None for var in op.get_flattened_inputs()):
            if not op.blocks and _evaluate_operator(op):
                return
            self.unknown.add(op.op_type)
        for var in op.outputs:
            var._sym_val = None  # noqa: SLF001 - see predict


def _evaluate_operator(op: Any) -> bool:
    """Compute an operator's outputs from its inputs' values; False if nothing here can."""
    import torch
    from coremltools.converters.mil.mil import mil_list, types

    from triton_router.repository.build import coreml_ops

    kinds = op.type_inference()
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    try:
        known = coreml_ops.EVALUATORS.get(op.op_type)
        values = known(op) if known else op.value_inference()
    except (NotImplementedError, coreml_ops.NotEvaluatedError):
        return False
    values = values if isinstance(values, (tuple, list)) else (values,)
    if any(value is None for value in values):
        return False
    for var, kind, value in zip(op.outputs, kinds, values, strict=True):
        if isinstance(value, torch.Tensor):
            # By the value's own shape: the type of a `select` between scalars forgets its condition's.
            array = value.numpy().astype(types.nptype_from_builtin(var.dtype))
            _assign(var, types.tensor(var.dtype, array.shape), array)
        else:
            _assign(var, kind, value.ls if isinstance(value, mil_list) else value)
    return True


def _assign(var: Any, kind: Any, value: Any) -> None:
    typed = kind()
    typed.val = value
    var._sym_type, var._sym_val = kind, typed  # noqa: SLF001 - see _Evaluator.predict
