"""The analysis as the entry of a child process: JSON in, JSON out."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from triton_router.analysis.source import ModelSource
from triton_router.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from triton_router.analysis.report import AnalysisReport


def analyse(payload: Mapping[str, object]) -> dict[str, object]:
    """Analyse one model.

    Args:
        payload: ``source`` (`ModelSource.to_json`), ``name``, and optionally ``domains`` (operator domains
            that are taken besides the known ones) and ``sizes`` (dynamic dimensions by symbol).

    Returns:
        `AnalysisReport.to_json`.

    Raises:
        TritonRouterError: The model is refused.
    """
    source = ModelSource.from_json(cast("Mapping[str, object]", payload["source"]))
    sizes = {key: int(str(size)) for key, size in cast("Mapping[str, object]", payload.get("sizes") or {}).items()}
    domains = [str(domain) for domain in cast("list[object]", payload.get("domains") or [])]
    return _analyse(source, str(payload["name"]), domains, sizes).to_json()


def _analyse(source: ModelSource, name: str, domains: list[str], sizes: Mapping[str, int]) -> AnalysisReport:
    # Each kind brings heavy libraries of its own; only the ones that are needed are loaded.
    if source.kind == "onnx":
        from triton_router.analysis.onnx_characteristics import analyse_onnx
        from triton_router.analysis.onnx_model import OnnxLimits

        limits = OnnxLimits(domains=OnnxLimits().domains | set(domains))
        return analyse_onnx(_path(source), name=name, limits=limits, sha256=source.sha256, sizes=sizes)
    from triton_router.analysis.torch_characteristics import analyse_torch
    from triton_router.analysis.torch_source import load_exported, load_factory

    content = (source.sha256, source.bytes)
    model = load_factory(source.reference) if source.kind == "factory" else load_exported(_path(source), source.sha256)
    return analyse_torch(model, name=name, content=content, sizes=sizes)


def _path(source: ModelSource) -> Path:
    if source.path is None:
        raise ModelFileError(f"{source.reference} has no file", hint="give MODEL.onnx or MODEL.pt2")
    return source.path
