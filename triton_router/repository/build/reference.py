"""Run the fp32 parent on samples of several sizes and keep what it answers: every variant is held against this."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_router.errors import ModelFileError
from triton_router.repository.build import sampling
from triton_router.repository.build.batching import batch_difference, verdict
from triton_router.repository.build.job import BatchVerdict, IoSpec
from triton_router.repository.build.samples import Sample, load, save
from triton_router.repository.sandbox_child import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.repository.build.samples import Tensors

    Run = Callable[[Tensors], Tensors]

SEED = 20240
"""Samples are drawn anew for each version, and are the same each time."""


@dataclass(frozen=True, slots=True)
class ParentJob:
    """What the step that runs the parent is given.

    Attributes:
        source_kind: ``onnx``, ``pt2`` or ``factory``.
        source: The file, or ``package.module:factory``.
        sha256: Digest that a ``.pt2`` must have.
        work: Directory for the step's files.
        example_inputs: An ``.npz`` file with one array per input; empty if there is none.
        allowed_domains: Operator domains that an ONNX file may use beside ONNX's own.
    """

    source_kind: str
    source: str
    sha256: str
    work: str
    example_inputs: str = ""
    allowed_domains: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the payload of the child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ParentJob:
        """Rebuild the job inside the child process."""
        known: dict[str, Any] = dict(value)
        known["allowed_domains"] = tuple(known["allowed_domains"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Parent:
    """What is known after the parent has run.

    Attributes:
        io: Names, types and shapes that every target keeps.
        references: Files of samples.
        fingerprint: SHA-256 that says whether two sources are the same model.
        batch: What merging requests does to the parent's answers.
        onnx: The checked fp32 ONNX file; empty for a torch source.
        program: The exported program; empty for an ONNX source.
        symbols: Readable names of the symbols in the exported program.
        tools: Versions of what ran it.
        notes: Sentences for the user.
    """

    io: IoSpec
    references: tuple[str, ...]
    fingerprint: str
    batch: BatchVerdict = "untested"
    onnx: str = ""
    program: str = ""
    symbols: dict[str, str] = field(default_factory=dict[str, str])
    tools: dict[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Parent:
        """Rebuild it in the parent process."""
        known: dict[str, Any] = dict(value)
        known["io"] = IoSpec.from_json(known["io"])
        for name in ("references", "notes"):
            known[name] = tuple(known[name])
        return cls(**known)


def read_examples(path: str, io: IoSpec) -> Tensors:
    """Read the user's example inputs and check them against the model.

    Raises:
        ModelFileError: An input is missing, or has another type or rank.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as example inputs: {error}",
            hint="write it with numpy.savez(FILE, input_name=array, ...)",
        ) from error
    for spec in io.inputs:
        if spec.name not in found:
            raise ModelFileError(
                f"{path} has no array for input {spec.name!r}; it has {', '.join(found) or 'none'}",
                hint="give one array per input, under the input's name",
            )
        value = found[spec.name]
        if spec.datatype == "BYTES" and value.dtype.kind in "US":
            value = found[spec.name] = (
                np.char.decode(value).astype(object) if value.dtype.kind == "S" else value.astype(object)
            )
        if value.dtype != sampling.NUMPY_TYPES.get(spec.datatype) or value.ndim != len(spec.shape):
            raise ModelFileError(
                f"input {spec.name!r} in {path} is {value.dtype}{list(value.shape)}; "
                f"the model takes {spec.datatype}{list(spec.shape)}",
                hint="give arrays of the model's types and ranks, the batch dimension included",
            )
    return {spec.name: found[spec.name] for spec in io.inputs}


def with_batch_axis(io: IoSpec) -> IoSpec:
    """Return ``io`` with ``batch_axis`` set if one symbol leads every input and output."""
    leading = {spec.axes[0] if spec.axes else "" for spec in (*io.inputs, *io.outputs)}
    axis = leading.pop() if len(leading) == 1 else ""
    return replace(io, batch_axis=axis)


def write_samples(run: Run, io: IoSpec, examples: Tensors, folder: Path) -> tuple[str, ...]:
    """Run the parent at each size and write inputs and outputs.

    A size other than the examples' own that the model refuses is left out: its shapes are narrower than declared.

    Raises:
        ModelFileError: It runs at no size.
    """
    rng = np.random.default_rng(SEED)
    written: list[str] = []
    failures: list[str] = []
    combinations = sampling.sizes(io, sampling.example_sizes(io, examples))
    for index, wanted in enumerate(combinations):
        report_progress(f"running the parent, sample {index + 1} of {len(combinations)}")
        inputs = sampling.resized(io, examples, wanted, rng)
        try:
            outputs = run(inputs)
        except (RuntimeError, ValueError) as error:
            failures.append(f"{wanted}: {str(error).splitlines()[0]}")
            continue
        path = folder / f"sample-{index}.npz"
        save(path, Sample(inputs, outputs))
        written.append(str(path))
    if not written:
        raise ModelFileError(
            f"the model runs at none of the sizes that were tried; first failure at {failures[0]}",
            hint="give real inputs with --example-inputs FILE.npz",
        )
    return tuple(written)


def judge_batching(run: Run, io: IoSpec, references: tuple[str, ...]) -> BatchVerdict:
    """Return what merging requests does to the parent's answers."""
    if not io.batch_axis:
        return "untested"
    report_progress("merging requests")
    return verdict(batch_difference(run, [load(path) for path in references]), "fp32", "untested")
