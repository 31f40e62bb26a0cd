"""Real models for ``scripts/bench learning``: a sentence encoder, a small CNN and a tiny MLP, each in several variants.

A variant is a function of (batch, length) that runs one request and returns nothing; ONNX Runtime and torch both use
every core, as they do when a server runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import onnxruntime
    import torch

    Run = Callable[[int, int], object]

_OPSET = 20


class Family(NamedTuple):
    """Variants that answer the same requests.

    Attributes:
        elements: Elements of the largest input in one row, at length 1.
        lengths: Sequence lengths that requests have; (1,) for fixed shapes.
        rounds: How many requests are timed per (batch, length), variant and load.
    """

    name: str
    variants: dict[str, Run]
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    elements: int
    rounds: int


def build(scratch: Path) -> list[Family]:
    """Compile every model into ``scratch``, unless it is there, and load it."""
    import torch

    torch.manual_seed(0)
    return [_transformer(scratch), _cnn(scratch), _mlp(scratch)]


def _transformer(scratch: Path) -> Family:
    import numpy as np
    import torch

    from examples.minilm.model import factory

    source = factory()
    module = source.module.eval()
    ids, mask = (source.example_inputs[name] for name in ("input_ids", "attention_mask"))
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=256)
    axes = {0: batch, 1: length}
    plain = _exported(scratch / "minilm.onnx", module, (ids, mask), (axes, axes), ("input_ids", "attention_mask"))
    small = scratch / "minilm-int8.onnx"
    if not small.exists():
        _quantised(plain, small)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1000, 20_000, (64, 256))

    def feed(batch: int, length: int) -> dict[str, np.ndarray]:
        return {
            "input_ids": tokens[:batch, :length].copy(),
            "attention_mask": np.ones((batch, length), np.int64),
        }

    def torch_run(batch: int, length: int) -> object:
        values = feed(batch, length)
        with torch.inference_mode():
            return module(torch.from_numpy(values["input_ids"]), torch.from_numpy(values["attention_mask"]))

    variants: dict[str, Run] = {
        "onnx": _onnx_run(plain, feed),
        "onnx-int8": _onnx_run(small, feed),
        "torch": torch_run,
    }
    return Family("transformer", variants, (1, 2, 4, 8), (16, 32, 64, 128), 1, 14)


def _cnn(scratch: Path) -> Family:
    import torch
    from torch import nn

    module = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 100),
    ).eval()
    return _fixed(scratch, "cnn", module, torch.randn(64, 3, 64, 64), 3 * 64 * 64, 40)


def _mlp(scratch: Path) -> Family:
    import torch
    from torch import nn

    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    return _fixed(scratch, "mlp", module, torch.randn(64, 64), 64, 60)


def _fixed(scratch: Path, name: str, module: torch.nn.Module, rows: torch.Tensor, elements: int, rounds: int) -> Family:
    import torch

    batch = torch.export.Dim("batch", min=1, max=64)
    path = _exported(scratch / f"{name}.onnx", module, (rows[:4],), ({0: batch},), ("x",))

    def feed(batch: int, _length: int) -> dict[str, np.ndarray]:
        return {"x": rows[:batch].numpy().copy()}

    def torch_run(batch: int, _length: int) -> object:
        with torch.inference_mode():
            return module(rows[:batch].clone())

    return Family(
        name, {"onnx": _onnx_run(path, feed), "torch": torch_run}, (1, 2, 4, 8, 16, 32), (1,), elements, rounds
    )


def _exported(
    path: Path,
    module: torch.nn.Module,
    args: tuple[torch.Tensor, ...],
    shapes: tuple[object, ...],
    names: tuple[str, ...],
) -> Path:
    import torch

    if not path.exists():
        program = torch.onnx.export(module, args, dynamo=True, dynamic_shapes=shapes, input_names=names, verbose=False)
        program.save(str(path), external_data=False)
    return path


def _quantised(plain: Path, small: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = small.with_suffix(".prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(str(prepared), str(small), weight_type=QuantType.QInt8)


def _onnx_run(path: Path, feed: Callable[[int, int], dict[str, np.ndarray]]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # As this project's backend runs it: idle threads that spin take the core from whoever else is being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def run(batch: int, length: int) -> object:
        return session.run(None, feed(batch, length))

    return run
