# The part of the Python backend's API that the model.py files of this repository use. The module exists only in
# a stub process of Triton, so pyright has to be told.
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

class TritonModelException(Exception): ...  # noqa: N818 - Triton's own name

class TritonError:
    INVALID_ARG: ClassVar[int]
    def __init__(self, message: str, code: int = ...) -> None: ...

class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None: ...
    def as_numpy(self) -> NDArray[Any]: ...

class InferenceRequest: ...

class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = ..., error: TritonError | None = ...) -> None: ...

def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor: ...
