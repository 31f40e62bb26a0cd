"""Writes a model repository for the executing backends; run as a program, so that torch stays out of the tests.

python executing_models.py DIRECTORY
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

CONFIG = """backend: "{backend}"
max_batch_size: 8
{tensors}
{more}
instance_group {{ kind: KIND_CPU count: 1 }}
"""
BATCHING = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 2000000 }"
LOOKUP = """input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "rows" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "seen" data_type: TYPE_INT64 dims: [ 1 ] }"""
ECHO = """input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "same" data_type: TYPE_STRING dims: [ 1 ] }"""
SCALE = """input { name: "scale" data_type: TYPE_FP32 dims: [ 1 ] }
input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "mean" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "seen" data_type: TYPE_INT64 dims: [ 1 ] }"""


def main(repository: Path) -> None:
    """Write every model that the tests load or fail to load."""
    lookup, echo = onnx_lookup(), onnx_echo()
    model(repository, "lookup", "onnx", LOOKUP, BATCHING, {"model.onnx": lookup})
    model(repository, "lookup-native-name", "onnxruntime", LOOKUP, "", {"model.onnx": lookup})
    model(repository, "echo", "onnx", ECHO, "", {"model.onnx": echo})
    model(repository, "corrupt", "onnx", ECHO, "", {"model.onnx": lookup[: len(lookup) // 2]})
    model(repository, "wrong-type", "onnx", LOOKUP.replace("INT64", "INT32", 1), "", {"model.onnx": lookup})
    model(repository, "wrong-name", "onnx", LOOKUP.replace('"rows"', '"columns"'), "", {"model.onnx": lookup})
    threads = 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }'
    model(repository, "wrong-threads", "onnx", LOOKUP, threads, {"model.onnx": lookup})
    accelerator = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }'
    model(repository, "absent-provider", "onnx", LOOKUP, accelerator, {"model.onnx": lookup})
    program = torch_program()
    model(repository, "program", "torch", SCALE, BATCHING, {"model.pt2": program}, listed=program)
    model(repository, "tampered", "torch", SCALE, "", {"model.pt2": program + b" "}, listed=program)
    model(repository, "unlisted", "torch", SCALE, "", {"model.pt2": program})
    cuda = 'parameters { key: "device" value { string_value: "cuda" } }'
    model(repository, "absent-device", "torch", SCALE, cuda, {"model.pt2": program}, listed=program)


def model(  # noqa: PLR0913, PLR0917 - a line of the table above
    repository: Path, name: str, backend: str, tensors: str, more: str, files: dict[str, bytes], listed: bytes = b""
) -> None:
    """Write one model; ``listed`` are the bytes whose SHA-256 its manifest gives."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG.format(backend=backend, tensors=tensors, more=more))
    for file, content in files.items():
        (version / file).write_bytes(content)
        if listed:
            entry = {"sha256": hashlib.sha256(listed).hexdigest(), "bytes": len(listed)}
            manifest = {"schema": 1, "target": name, "versions": {"1": {"files": {file: entry}}}}
            (version.parent / "manifest.json").write_text(json.dumps(manifest))


def onnx_lookup() -> bytes:
    """Four rows of two numbers, looked up by id; ``seen`` tells each row the size of the batch it ran in."""
    from onnx import TensorProto
    from onnx import helper as h

    constants = [
        h.make_tensor("table", TensorProto.FLOAT, [4, 2], [float(i) for i in range(8)]),
        h.make_tensor("one", TensorProto.INT64, [1], [1]),
        h.make_tensor("zero", TensorProto.INT64, [1], [0]),
    ]
    nodes = [
        h.make_node("Gather", ["table", "ids"], ["rows"]),
        h.make_node("Shape", ["ids"], ["shape"]),
        h.make_node("Gather", ["shape", "zero"], ["batch"]),
        h.make_node("Concat", ["batch", "one"], ["wanted"], axis=0),
        h.make_node("Expand", ["batch", "wanted"], ["seen"]),
    ]
    outputs = [("rows", TensorProto.FLOAT, ["b", "n", 2]), ("seen", TensorProto.INT64, ["b", 1])]
    return _graph(nodes, [("ids", TensorProto.INT64, ["b", "n"])], outputs, constants)


def onnx_echo() -> bytes:
    """Text in, the same text out."""
    from onnx import TensorProto
    from onnx import helper as h

    return _graph(
        [h.make_node("Identity", ["text"], ["same"])],
        [("text", TensorProto.STRING, ["b", 1])],
        [("same", TensorProto.STRING, ["b", 1])],
        [],
    )


def _graph(nodes: list, inputs: list, outputs: list, constants: list) -> bytes:
    from onnx import helper as h

    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info(*item) for item in inputs],
        [h.make_tensor_value_info(*item) for item in outputs],
        constants,
    )
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString()


def torch_program() -> bytes:
    """The mean of looked-up rows times a scale, and the size of the batch it ran in."""
    import io

    import torch

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding.from_pretrained(torch.arange(8.0).reshape(4, 2))

        def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            size = torch.full((ids.shape[0], 1), ids.shape[0], dtype=torch.int64)
            return self.table(ids).mean(1) * scale, size

    batch, length = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("length", min=1, max=16)
    example = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 1))
    program = torch.export.export(Program().eval(), example, dynamic_shapes=({0: batch, 1: length}, {0: batch}))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
