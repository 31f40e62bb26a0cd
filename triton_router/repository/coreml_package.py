"""How a Core ML package is called: names, types and batch sizes inside it, and the way there and back.

The one definition for those who make a package, check it and serve it. It travels inside the package, in its
user-defined metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from triton_router.errors import InvalidInputError, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.generic]]
    Predict = Callable[[Tensors], Tensors]

METADATA_KEY = "triton_router"
"""Key in the package's user-defined metadata."""

BOUNDARY_TYPES: dict[str, type[np.generic]] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float32,
    **dict.fromkeys(("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), np.int32),
}
"""KServe v2 type to the type at the package's boundary; the others (BYTES, BF16) have none."""

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Package:
    """What a caller has to know of a package.

    Attributes:
        inputs: The name that clients use, to the name inside the package.
        outputs: The same for outputs.
        batches: Numbers of rows that the package takes in one call, ascending; empty if any, or if dimension 0
            is not a batch.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    batches: tuple[int, ...] = ()

    def to_metadata(self) -> str:
        """Return the text that is stored in the package."""
        return json.dumps(
            {"inputs": self.inputs, "outputs": self.outputs, "batches": list(self.batches)}, sort_keys=True
        )

    @classmethod
    def from_metadata(cls, text: str) -> Self:
        """Read the text that is stored in a package.

        Raises:
            ModelFileError: It is not what `to_metadata` writes.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            return cls(dict(found["inputs"]), dict(found["outputs"]), tuple(int(size) for size in found["batches"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"the metadata {METADATA_KEY!r} of the Core ML package cannot be read: {error!r}",
                hint="add the model again with 'triton-router add', or remove the key from the package",
            ) from error

    def call(self, predict: Predict, inputs: Tensors) -> Tensors:
        """Run the package on tensors of any type and batch size that the model's contract allows.

        Rows are cut into pieces that the package takes, and a piece between two sizes is filled up with copies of
        its last row, which is valid input; what they answer is dropped.

        Args:
            predict: Runs the package on features that it takes, once.
            inputs: By the names that clients use.

        Returns:
            Outputs by the names that clients use, in the package's types. An output that ``predict`` leaves out
            is left out.

        Raises:
            InvalidInputError: An integer does not fit into 32 bits.
        """
        features = {self.inputs[name]: boundary(name, value) for name, value in inputs.items()}
        if not self.batches:
            return self._named(predict(features))
        rows = len(next(iter(features.values())))
        parts: list[Tensors] = []
        for start in range(0, rows, self.batches[-1]):
            count = min(rows - start, self.batches[-1])
            size = next(batch for batch in self.batches if batch >= count)
            answer = predict({name: _filled(value[start : start + count], size) for name, value in features.items()})
            parts.append({name: value[:count] for name, value in answer.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts[1:] else parts[0]
        return self._named(joined)

    def _named(self, answer: Tensors) -> Tensors:
        return {name: answer[feature] for name, feature in self.outputs.items() if feature in answer}


def boundary(name: str, value: NDArray[Any]) -> NDArray[np.generic]:
    """Return an input in a type that Core ML takes.

    Raises:
        InvalidInputError: An integer does not fit into 32 bits.
    """
    kind, size = value.dtype.kind, value.dtype.itemsize
    if kind == "f":
        return value if size <= 4 else value.astype(np.float32)
    if (kind, size) == ("i", 4):
        return value
    if size >= 4 and value.size and (int(value.min()) < _INT32.min or int(value.max()) > _INT32.max):
        raise InvalidInputError(
            f"input {name!r} holds integers beyond 32 bits, which Core ML cannot take",
            hint=f"send values between {_INT32.min} and {_INT32.max}, or route such requests to another target",
        )
    return value.astype(np.int32)


def _filled(value: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    """Repeat the last row until there are ``rows``."""
    missing = rows - len(value)
    return np.concatenate([value, np.repeat(value[-1:], missing, axis=0)]) if missing else value
