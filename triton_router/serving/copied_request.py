"""A copy of what a client asked, complete before the request is answered: nothing may be asked of that afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from triton_router.serving.stub import Request

MAX_BYTES = 1 << 20
"""Inputs of a request that may be copied: a larger copy would be felt by the request itself."""
MAX_STRINGS = 64
"""Likewise elements of a BYTES tensor, each of which costs a microsecond."""


class CopiedRequest(NamedTuple):
    """What a request asks, without what is its client's alone (id, sequence, span).

    Attributes:
        inputs: Its inputs, in memory of their own.
        outputs: Names of the outputs that it wants.
        text: Its parameters as JSON.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    text: str

    def requested_output_names(self) -> Iterable[str]:
        """Return the outputs that it wants, as a request does."""
        return self.outputs

    def parameters(self) -> str:
        """Return its parameters, as a request does."""
        return self.text


def copied(request: Request) -> CopiedRequest | None:
    """Return a copy; None if the request's inputs are too large for one or not in this machine's memory.

    Raises whatever the stub does for an input without an array, such as BF16.
    """
    inputs = request.inputs()
    if not all(tensor.is_cpu() for tensor in inputs):
        return None
    arrays = {tensor.name(): tensor.as_numpy() for tensor in inputs}
    if any(array.dtype == object and array.size > MAX_STRINGS for array in arrays.values()):
        return None
    if sum(map(_bytes, arrays.values())) > MAX_BYTES:
        return None
    own = {name: array.copy() for name, array in arrays.items()}
    return CopiedRequest(own, tuple(request.requested_output_names()), request.parameters())


def _bytes(array: NDArray[Any]) -> int:
    """Return what an array holds; one of strings holds but pointers itself."""
    return array.nbytes if array.dtype != object else sum(len(text) for text in array.reshape(-1))
