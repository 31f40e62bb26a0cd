"""Samples on disk: named inputs and the fp32 parent's outputs, one ``.npz`` file each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_router.tensor_work import work_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    # Any element type: what a model takes is known when its file has been read.
    Array = NDArray[Any]
    Tensors = dict[str, Array]

_INPUT, _OUTPUT, _TEXT = "input:", "output:", "text:"


@dataclass(frozen=True, slots=True)
class Sample:
    """One call of the model.

    Attributes:
        inputs: By name, full shapes.
        outputs: What the fp32 parent answered, by name.
    """

    inputs: Tensors
    outputs: Tensors

    @property
    def work(self) -> int:
        """Return the work of the largest input tensor: the abscissa of a latency model."""
        return max((work_of(value) for value in self.inputs.values()), default=0)


def save(path: Path, sample: Sample) -> None:
    """Write a sample."""
    arrays = {_INPUT + name: value for name, value in sample.inputs.items()}
    arrays |= {_OUTPUT + name: value for name, value in sample.outputs.items()}
    arrays = dict(_packed(key, value) for key, value in arrays.items())
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: str | Path) -> Sample:
    """Read a sample; nothing in it is unpickled."""
    with np.load(path, allow_pickle=False) as file:
        found = dict(_unpacked(key, file[key]) for key in file.files)
    return Sample(
        inputs={key.removeprefix(_INPUT): value for key, value in found.items() if key.startswith(_INPUT)},
        outputs={key.removeprefix(_OUTPUT): value for key, value in found.items() if key.startswith(_OUTPUT)},
    )


def _packed(key: str, value: Array) -> tuple[str, Array]:
    """Return text as the bytes of a JSON document: numpy would pickle an array of objects."""
    if value.dtype != np.object_:
        return key, value
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in value.ravel()]
    document = json.dumps({"shape": value.shape, "texts": texts}).encode()
    return _TEXT + key, np.frombuffer(document, np.uint8)


def _unpacked(key: str, value: Array) -> tuple[str, Array]:
    if not key.startswith(_TEXT):
        return key, value
    document = json.loads(value.tobytes())
    return key.removeprefix(_TEXT), np.array(document["texts"], np.object_).reshape(document["shape"])
