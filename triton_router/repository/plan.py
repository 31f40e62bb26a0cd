"""Which variants of a model are made on this machine, which are served, and why: a pure function.

Every target of `TARGETS` gets a row, made or not, so that a user never has to guess why something is missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from triton_router.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triton_router.analysis.report import AnalysisReport

Action = Literal["build-and-serve", "build-and-keep", "skip"]
Hardware = Literal["cpu", "gpu", "ane", "mps"]

HARDWARE: tuple[Hardware, ...] = ("cpu", "gpu", "ane", "mps")
"""What a server can have: processor, CUDA GPU, Apple's Neural Engine, Apple's GPU."""

_ABSENT = {
    "gpu": "no CUDA GPU on this machine; add --hardware gpu if the server has one",
    "ane": "Apple's Neural Engine is reached on macOS only; the package is for a worker there",
    "mps": "Apple's GPU is reached on macOS only; add --hardware mps if the server runs there",
}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What can be used on this machine.

    Attributes:
        packages: Importable Python packages among those that builders need.
        hardware: What the server has, found or given by the user.
    """

    packages: frozenset[str]
    hardware: frozenset[str]


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """One row of the plan.

    Attributes:
        target: Suffix of the target's name.
        variant: How the model is compiled.
        backend: Router backend: ``cpu``, ``gpu``, ``neural_engine`` or ``metal_mps``.
        action: What happens to it.
        reason: Why, in plain words.
        quantisation: ``dynamic`` or ``static`` for int8, else empty.
    """

    target: str
    variant: str
    backend: str
    action: Action
    reason: str
    quantisation: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of target this project can make.

    Attributes:
        suffix: Appended to the model's name.
        variant: How the model is compiled.
        backend: Router backend.
        triton_backend: Name in ``config.pbtxt``.
        file: The model's file in a version directory.
        hardware: What serves it.
    """

    suffix: str
    variant: str
    backend: str
    triton_backend: str
    file: str
    hardware: Hardware


TARGETS: tuple[Target, ...] = (
    Target("onnx-cpu", "onnx", "cpu", "onnxruntime", "model.onnx", "cpu"),
    Target("onnx-int8-cpu", "onnx-int8", "cpu", "onnxruntime", "model.onnx", "cpu"),
    Target("onnx-gpu", "onnx", "gpu", "onnxruntime", "model.onnx", "gpu"),
    Target("onnx-fp16-gpu", "onnx-fp16", "gpu", "onnxruntime", "model.onnx", "gpu"),
    Target("pt2-cpu", "pt2", "cpu", "torch", "model.pt2", "cpu"),
    Target("pt2-gpu", "pt2", "gpu", "torch", "model.pt2", "gpu"),
    Target("pt2-mps", "pt2", "metal_mps", "torch", "model.pt2", "mps"),
    Target("coreml-ane", "coreml", "neural_engine", "coreml", "model.mlpackage", "ane"),
    Target("tensorrt-gpu", "tensorrt", "gpu", "tensorrt", "model.plan", "gpu"),
)
BY_SUFFIX = {target.suffix: target for target in TARGETS}


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether a target can be made at all, before hardware is considered."""

    reason: str
    possible: bool = True
    keep: bool = False
    """Worth making where it cannot be served: the file differs from every other target's."""
    quantisation: str = ""


def plan(
    report: AnalysisReport, kind: str, toolbox: Toolbox, only: Sequence[str] | None = None
) -> tuple[VariantPlan, ...]:
    """Decide for every target what happens to it.

    Args:
        report: The analysed model.
        kind: ``onnx``, ``pt2`` or ``factory``.
        toolbox: What this machine and the server have.
        only: Suffixes the user asked for; None means whatever is worth having.

    Raises:
        InvalidInputError: ``only`` names an unknown target.
    """
    unknown = [name for name in only or () if name not in BY_SUFFIX]
    if unknown:
        raise InvalidInputError(f"there is no target {unknown[0]!r}", hint="valid targets are " + ", ".join(BY_SUFFIX))
    return tuple(_row(target, report, kind, toolbox, only) for target in TARGETS)


def check_targets(only: Sequence[str] | None) -> None:
    """Refuse unknown suffixes.

    Raises:
        InvalidInputError: There is one.
    """
    unknown = [name for name in only or () if name not in BY_SUFFIX]
    if unknown:
        raise InvalidInputError(f"there is no target {unknown[0]!r}", hint="valid targets are " + ", ".join(BY_SUFFIX))


def _row(
    target: Target, report: AnalysisReport, kind: str, toolbox: Toolbox, only: Sequence[str] | None
) -> VariantPlan:
    def row(action: Action, reason: str, quantisation: str = "") -> VariantPlan:
        return VariantPlan(target.suffix, target.variant, target.backend, action, reason, quantisation)

    verdict = _MAKERS[target.variant](target, report, kind)
    obstacle = _obstacle(target, verdict, kind, toolbox, only)
    if obstacle:
        return row("skip", obstacle)
    if target.hardware in toolbox.hardware:
        return row("build-and-serve", verdict.reason, verdict.quantisation)
    absent = _ABSENT.get(target.hardware, "--hardware leaves the processor out")
    if verdict.keep or only is not None:
        return row("build-and-keep", f"kept, not served: {absent}", verdict.quantisation)
    return row("skip", absent)


def _obstacle(target: Target, verdict: _Verdict, kind: str, toolbox: Toolbox, only: Sequence[str] | None) -> str:
    """Return why a target cannot be made here, wherever it would be served; empty if it can."""
    if only is not None and target.suffix not in only:
        return "not among --targets"
    if not verdict.possible:
        return verdict.reason
    # Before the packages: without the GPU, installing its compiler would not help.
    if target.variant == "tensorrt" and target.hardware not in toolbox.hardware:
        return "a plan is built on the GPU that serves it: " + _ABSENT["gpu"]
    missing = [package for package in _needs(target, kind) if package not in toolbox.packages]
    return f"the Python package {missing[0]} is missing: {_install(missing[0])}" if missing else ""


def _onnx(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del report
    made = "the file as it is" if kind == "onnx" else "exported by torch"
    return _Verdict(f"{made}, in the precision it came in, for ONNX Runtime on the {_PLACES[target.hardware]}")


def _int8(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del target, kind
    if report.characteristics.is_quantized:
        return _Verdict("the model is quantised already", possible=False)
    matrices, convolutions, recurrent = (_count(report, names) for names in (_MATRIX, _CONVOLUTION, _RECURRENT))
    if convolutions or report.has_convolutions:
        return _Verdict(
            f"static QDQ U8S8 with calibration, because the model has {max(convolutions, 1)} Conv: "
            "convolutions get slower when quantised dynamically",
            quantisation="static",
        )
    if matrices + recurrent == 0:
        return _Verdict("the model has no MatMul, Gemm, Conv or LSTM that int8 would speed up", possible=False)
    found = f"{matrices} MatMul" if matrices else f"{recurrent} recurrent layers"
    return _Verdict(
        f"dynamic, because the model has {found} and no Conv: no calibration data is needed, and "
        "only convolutions get slower when quantised dynamically",
        quantisation="dynamic",
    )


def _fp16(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del target, kind
    if report.characteristics.is_quantized:
        return _Verdict("the model is quantised already", possible=False)
    if not any(name == "FP32" for name in report.parameter_types):
        return _Verdict("the model has no FP32 numbers to halve", possible=False)
    return _Verdict("half precision for the GPU's tensor cores; a processor gains nothing from it", keep=True)


def _pt2(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del report
    if kind == "onnx":
        return _Verdict("made from torch sources only; this is an ONNX file", possible=False)
    made = "the file as it is" if kind == "pt2" else "torch.export"
    return _Verdict(f"{made}, for torch on the {_PLACES[target.hardware]}")


def _coreml(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del target
    if kind == "onnx":
        return _Verdict("made from torch sources only; give the torch factory or .pt2 instead", possible=False)
    if report.characteristics.has_control_flow:
        return _Verdict("control flow (If, Loop, torch.cond) does not convert to Core ML", possible=False)
    if report.characteristics.is_quantized:
        return _Verdict("the model is quantised already; Core ML packages are made from fp32", possible=False)
    return _Verdict("ML program in fp16 for the Neural Engine", keep=True)


def _tensorrt(target: Target, report: AnalysisReport, kind: str) -> _Verdict:
    del target, kind
    if report.custom_domains:
        return _Verdict(f"TensorRT has no operators of {report.custom_domains[0]!r}", possible=False)
    return _Verdict("TensorRT plan in fp16 for the GPU it is built on")


_MAKERS: dict[str, Callable[[Target, AnalysisReport, str], _Verdict]] = {
    "onnx": _onnx,
    "onnx-int8": _int8,
    "onnx-fp16": _fp16,
    "pt2": _pt2,
    "coreml": _coreml,
    "tensorrt": _tensorrt,
}
_PLACES = {"cpu": "processor", "gpu": "GPU", "mps": "Apple GPU", "ane": "Neural Engine"}
_MATRIX = frozenset({"MatMul", "Gemm", "linear", "mm", "addmm", "bmm", "baddbmm", "matmul"})
_CONVOLUTION = frozenset({"Conv", "ConvTranspose", "convolution", "conv1d", "conv2d", "conv3d"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "lstm", "gru", "rnn_tanh", "rnn_relu"})


def _count(report: AnalysisReport, names: frozenset[str]) -> int:
    """Count operators by bare name: ``aten::mm``, ``aten.mm.default`` and ``MatMul`` alike."""
    return sum(
        count for operator, count in report.operators.items() if names & set(operator.replace("::", ".").split("."))
    )


_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "torch": "torch", "coremltools": "coreml"}


def _needs(target: Target, kind: str) -> list[str]:
    """Return the packages that making and checking the target takes."""
    exporting = ["torch", "onnxscript"] if kind != "onnx" else []
    return {
        "onnx": [*exporting, "onnx", "onnxruntime"],
        "onnx-int8": [*exporting, "onnx", "onnxruntime"],
        "onnx-fp16": [*exporting, "onnx", "onnxruntime"],
        "pt2": ["torch"],
        "coreml": ["coremltools"],
        "tensorrt": [*exporting, "onnx", "tensorrt"],
    }[target.variant]


def _install(package: str) -> str:
    return f"pip install 'triton-router[{_EXTRAS[package]}]'" if package in _EXTRAS else f"pip install {package}"
