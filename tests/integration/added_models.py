"""Small models that the tests of ``add`` compile: factories here, ONNX files by `write_mlp` and `write_cnn`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def encoder() -> object:
    """Return a text encoder of two layers with dynamic batch and sequence."""
    import torch

    from triton_router.analysis.torch_source import TorchSource

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(100, 32)
            self.layers = torch.nn.ModuleList(Layer() for _ in range(2))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.words(ids)
            bias = (1.0 - mask[:, None, :].to(hidden.dtype)) * -1e4
            for layer in self.layers:
                hidden = layer(hidden, bias)
            return hidden

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = torch.nn.Linear(32, 96)
            self.out = torch.nn.Linear(32, 32)
            self.norm = torch.nn.LayerNorm(32)

        def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            query, key, value = self.qkv(hidden).chunk(3, dim=-1)
            weights = torch.softmax(query @ key.transpose(1, 2) / 32**0.5 + bias, dim=-1)
            return self.norm(hidden + self.out(weights @ value))

    torch.manual_seed(0)
    mask = torch.ones(4, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    axes = {0: "batch", 1: "sequence"}
    return TorchSource(
        module=Encoder(),
        example_inputs={"ids": torch.randint(1, 100, (4, 6)), "mask": mask},
        dynamic_axes={"ids": axes, "mask": axes},
        output_names=("hidden",),
        bounds={"batch": (1, 16), "sequence": (2, 32)},
    )


def branching() -> object:
    """Return a model whose branch depends on the whole batch."""
    import torch

    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x * 2.0, lambda x: x - 3.0, (x,))

    torch.manual_seed(0)
    return Branching(), (torch.randn(4, 8),)


def lstm() -> object:
    """Return a recurrent model with two outputs in a dict."""
    import torch

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.LSTM(8, 16, batch_first=True)

        def forward(self, series: torch.Tensor) -> dict[str, torch.Tensor]:
            states, _ = self.cell(series)
            return {"states": states, "last": states[:, -1]}

    torch.manual_seed(0)
    return Recurrent(), {"series": torch.randn(4, 5, 8)}


class Answer(dict):  # type: ignore[type-arg]
    """A result of a class of its own, as transformers return it."""


def catch_all() -> object:
    """Return a model that takes any keywords, and inputs in another order than it reads them."""
    import torch

    class CatchAll(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 4)

        def forward(self, **tensors: torch.Tensor) -> Answer:
            return Answer(score=self.layer(tensors["left"]) - tensors["right"], twice=tensors["left"] * 2)

    torch.manual_seed(0)
    return CatchAll(), {"right": torch.randn(4, 4), "left": torch.randn(4, 8)}


def write_mlp(path: Path, *, seed: int = 0, outputs: int = 4) -> None:
    """Write an ONNX file of two layers with a dynamic batch."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((8, 32)).astype(np.float32),
        "w2": rng.standard_normal((32, outputs)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w2"], ["y"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def write_cnn(path: Path) -> None:
    """Write an ONNX file of two convolutions with a dynamic batch."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5,
        "w2": rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 8,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3]),
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["scores"]),
        ],
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def write_small(path: Path, *, kind: str, shape: list[int | str]) -> None:
    """Write an ONNX file that answers with its one input."""
    from onnx import TensorProto, helper, save

    value = [helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "small", value[:1], value[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def write_steep(path: Path) -> None:
    """Write an ONNX file that cannot stand quantisation: it exponentiates a sum of huge and tiny numbers."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.eye(8, dtype=np.float32) * np.array([1e4, 1, 1, 1, 1, 1, 1, 1], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Slice", ["a", "one", "eight", "axis"], ["b"]),
            helper.make_node("Mul", ["b", "gain"], ["c"]),
            helper.make_node("Sin", ["c"], ["y"]),
        ],
        "steep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([8], np.int64), "eight"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(np.array([1000.0], np.float32), "gain"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def write_program(path: Path) -> None:
    """Write a ``.pt2`` of one linear layer."""
    import torch

    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=32)
    program = torch.export.export(torch.nn.Linear(8, 3), (torch.randn(4, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def write_nested_program(path: Path) -> None:
    """Write a ``.pt2`` that takes a dict and a keyword, and returns a dict with a tuple in it."""
    import torch

    class Nested(torch.nn.Module):
        def forward(
            self, pair: dict[str, torch.Tensor], *, scale: torch.Tensor
        ) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
            low, high = pair["low"], pair["high"]
            return {"span": (high - low) * scale, "ends": (low * scale, high * scale)}

    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    pair = {"low": torch.zeros(2, 3), "high": torch.ones(2, 3)}
    program = torch.export.export(
        Nested(),
        (pair,),
        {"scale": torch.ones(2, 1)},
        dynamic_shapes={"pair": {"low": batch, "high": batch}, "scale": batch},
    )
    torch.export.save(program, path)


def write_keyword_program(path: Path) -> None:
    """Write a ``.pt2`` that takes keywords, not in ``forward``'s order, and returns a dict."""
    import torch

    class Keywords(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"quotient": left / right, "difference": left - right}

    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(
        Keywords(),
        (),
        {"right": torch.ones(2, 3) * 2, "left": torch.ones(2, 3)},
        dynamic_shapes={"right": batch, "left": batch},
    )
    torch.export.save(program, path)


if __name__ == "__main__":
    import sys

    write_program(Path(sys.argv[1]))
