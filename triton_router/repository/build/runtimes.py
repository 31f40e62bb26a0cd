"""Open a built file with the runtime that will serve it, as a callable on named arrays. Child processes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from triton_router.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triton_router.repository.build.job import IoSpec
    from triton_router.repository.build.samples import Tensors

    Run = Callable[[Tensors], Tensors]


def open_onnx(path: Path, *, cuda: bool = False) -> Run:
    """Open an ONNX file on the processor or, if ``cuda``, on the GPU and nowhere else.

    ONNX Runtime falls back to the processor without a word: with ``cuda`` the fallback is switched off, and the
    providers that the session really has are read back.

    Raises:
        BuildError: It cannot be opened there.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    wanted = "CPUExecutionProvider"
    if cuda:
        wanted = "CUDAExecutionProvider"
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise BuildError(
            f"ONNX Runtime cannot open {path.name}: {str(error).splitlines()[0]}",
            hint="leave this target out with --targets, or export the model for another opset",
        ) from error
    if wanted not in session.get_providers():
        raise BuildError(
            f"ONNX Runtime fell back to {', '.join(session.get_providers())}; {wanted} was asked for",
            hint="install onnxruntime-gpu and a matching CUDA, or leave the GPU out of --hardware",
        )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        try:
            results: Any = session.run(names, inputs)
        except Exception as error:  # the same
            raise RuntimeError(str(error)) from error
        return dict(zip(names, results, strict=True))

    return run


def open_pt2(path: Path, io: IoSpec, device: str = "cpu") -> Run:
    """Open an exported program that this project wrote or the user vouched for."""
    import torch

    from triton_router.repository.build.torch_program import Program

    inputs, outputs = ([spec.name for spec in specs] for specs in (io.inputs, io.outputs))
    return Program(torch.export.load(path), inputs, outputs, device)
