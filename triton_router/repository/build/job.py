"""What a build step is given and what it hands back: the one interface of every builder.

A builder is a function ``build(payload: dict) -> dict`` that runs in a child process. Its payload is
`BuildJob.to_json`, its answer `BuildResult.to_json`. It writes files only under ``job.staging``, and raises
`triton_router.errors.TritonRouterError` when it cannot go on for a reason that a user can act on. A variant
that this model or machine cannot have is not an error: the builder answers `BuildResult.not_available` with
the reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

BatchVerdict = Literal["independent", "quantisation", "dependent", "untested"]
"""What merging requests does to an answer.

Nothing; a change within quantisation error; a real change; or it was not tried."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output with its full shape, the batch dimension included.

    Attributes:
        name: Name that clients use.
        datatype: KServe v2 name (``FP32``, ``INT64``).
        shape: Sizes; -1 where dynamic.
        axes: For each dimension the name of its symbol (``batch``), empty where the size is fixed.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild a spec from `dataclasses.asdict`, possibly after a trip through JSON."""
        return cls(str(value["name"]), str(value["datatype"]), tuple(value["shape"]), tuple(value["axes"]))


@dataclass(frozen=True, slots=True)
class IoSpec:
    """Inputs and outputs in the order in which the model takes and returns them.

    Attributes:
        bounds: Smallest and largest size of a symbol in ``axes``, both included.
        batch_axis: The symbol that is dimension 0 of every input and output; empty if not batched.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    batch_axis: str = ""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild a spec from `dataclasses.asdict`, possibly after a trip through JSON."""
        return cls(
            inputs=tuple(TensorSpec.from_json(item) for item in value["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in value["outputs"]),
            bounds={name: (int(low), int(high)) for name, (low, high) in value["bounds"].items()},
            batch_axis=str(value["batch_axis"]),
        )


@dataclass(frozen=True, slots=True)
class BuildJob:
    """One variant to be built.

    Attributes:
        model: Name of the routed model.
        target: Suffix of the target (``onnx-int8-cpu``).
        staging: Existing empty directory that becomes the target's version directory.
        version: Version that is being built.
        source_kind: ``onnx``, ``pt2`` or ``factory``.
        source: The file, or ``package.module:factory``.
        onnx: The fp32 ONNX file that other variants are made from; empty until there is one.
        program: A file of ``torch.export.save`` holding the fp32 program; empty for an ONNX source. It is
            either made by this project's own child process or has the SHA-256 that the user gave.
        references: Files of `triton_router.repository.build.samples`: inputs and the fp32 parent's outputs.
        io: The contract that every target keeps: names, types, shapes.
        max_batch_size: Largest batch that Triton may send; 0 if the model is not batched.
        options: What only some builders read, for instance ``quantisation: dynamic | static``.
    """

    model: str
    target: str
    staging: str
    version: int
    source_kind: str
    source: str
    onnx: str
    program: str
    references: tuple[str, ...]
    io: IoSpec
    max_batch_size: int = 0
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """Return the payload of a child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild the job inside the child process."""
        known: dict[str, Any] = dict(value)
        known["references"] = tuple(known["references"])
        known["io"] = IoSpec.from_json(known["io"])
        return cls(**known)

    def path(self, name: str) -> Path:
        """Return where the target's file ``name`` is to be written."""
        return Path(self.staging) / name


@dataclass(frozen=True, slots=True)
class Checks:
    """How a built variant compares with its fp32 parent.

    Attributes:
        passed: It may be installed.
        max_abs_error: Largest absolute difference over all outputs and samples.
        rms_error: Root mean square of the difference as a share of the parent's output's, the largest over all
            outputs and samples: 0.01 is one per cent.
        cosine: Smallest cosine similarity between an output and the parent's, over all samples.
        batch: What merging requests does to the answers.
        latency: One row per size: ``batch`` (rows), ``work`` (elements of the largest input tensor, batch
            included), ``latency_ms`` (the least of several runs: what the variant can do unloaded).
        detail: In words, what was compared, or why it failed, or what could not be checked here.
    """

    passed: bool
    max_abs_error: float = 0.0
    rms_error: float = 0.0
    cosine: float = 1.0
    batch: BatchVerdict = "untested"
    latency: tuple[dict[str, float], ...] = ()
    detail: str = ""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild the checks from `dataclasses.asdict`, possibly after a trip through JSON."""
        known: dict[str, Any] = dict(value)
        known["latency"] = tuple(known["latency"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a builder made.

    Attributes:
        files: Paths relative to the job's staging directory; a directory such as ``model.mlpackage`` is one
            entry.
        checks: The comparison with the parent, if the builder makes it itself (Core ML); else None, and the
            caller checks the file with its real runtime.
        tools: Versions of what built it (``{"torch": "2.13.0"}``).
        notes: Sentences for the user, for instance which operators were not checked.
        unavailable: Why this variant cannot be had for this model or machine; empty when it was built.
    """

    files: tuple[str, ...] = ()
    checks: Checks | None = None
    tools: dict[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    unavailable: str = ""

    @classmethod
    def not_available(cls, reason: str, *, tools: dict[str, str] | None = None) -> Self:
        """Return the answer for a variant that cannot be had, with the reason in words."""
        return cls(unavailable=reason, tools=tools or {})

    def to_json(self) -> dict[str, Any]:
        """Return the answer of a child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild the answer in the parent process."""
        return cls(
            files=tuple(value["files"]),
            checks=Checks.from_json(value["checks"]) if value["checks"] else None,
            tools=dict(value["tools"]),
            notes=tuple(value["notes"]),
            unavailable=str(value["unavailable"]),
        )
