"""The part of Triton's Python backend API (``triton_python_backend_utils``) that this project uses, as types.

The module itself exists only inside a stub process, and its request classes only once a model is initialised:
everything here therefore takes it as an argument (`initialize` imports it) instead of importing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

SEQUENCE_START = 1
"""``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START``, fixed by Triton's C API."""
SEQUENCE_END = 2
"""``TRITONSERVER_REQUEST_FLAG_SEQUENCE_END``."""


class Tensor(Protocol):
    """A named tensor in shared memory."""

    def name(self) -> str:
        """Return its name."""
        ...

    def shape(self) -> Sequence[int]:
        """Return its shape, batch dimension included."""
        ...

    def is_cpu(self) -> bool:
        """Whether it lies in the host's memory."""
        ...

    def as_numpy(self) -> NDArray[Any]:
        """Return it as an array. Raises where there is none: on a GPU, or of type BF16."""
        ...


class StubError(Protocol):
    """A ``TritonError``."""

    def message(self) -> str:
        """Return its text."""
        ...

    def code(self) -> int:
        """Return its code; on servers before 25.04 always INTERNAL when it came by BLS."""
        ...


class Response(Protocol):
    """An ``InferenceResponse``."""

    def has_error(self) -> bool:
        """Whether it is an error."""
        ...

    def error(self) -> StubError:
        """Return the error."""
        ...

    def output_tensors(self) -> Sequence[Tensor]:
        """Return the outputs, in shared memory."""
        ...


class ResponseSender(Protocol):
    """Sends the response, or the responses, of one request."""

    def send(self, response: Response | None = None, flags: int = 0) -> None:
        """Send one response; ``flags`` says whether it is the last."""
        ...


class Request(Protocol):
    """An ``InferenceRequest`` that Triton handed to ``execute``."""

    def inputs(self) -> Sequence[Tensor]:
        """Return the inputs that were sent."""
        ...

    def requested_output_names(self) -> Iterable[str]:
        """Return the outputs that are wanted; all of them when the client named none."""
        ...

    def request_id(self) -> str:
        """Return the client's id."""
        ...

    def correlation_id(self) -> int | str:
        """Return the sequence, 0 or "" outside one."""
        ...

    def flags(self) -> int:
        """Return sequence start and end."""
        ...

    def timeout(self) -> int:
        """Return microseconds, 0 for none."""
        ...

    def parameters(self) -> str:
        """Return the parameters as JSON."""
        ...

    def trace(self) -> object:
        """Return the trace to hang child spans on."""
        ...

    def is_cancelled(self) -> bool:
        """Whether the client gave up: a round trip; never after the final response."""
        ...

    def get_response_sender(self) -> ResponseSender:
        """Return its sender."""
        ...


class BlsRequest(Protocol):
    """An ``InferenceRequest`` made here, for a sibling."""

    def exec(self, decoupled: bool = False) -> Any:
        """Run it: one response, or with ``decoupled`` an iterator of them. Releases the GIL while waiting."""
        ...


class StubModule(Protocol):
    """``triton_python_backend_utils``."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL: int
    TritonError: Any
    InferenceRequest: Any
    InferenceResponse: Any
    Tensor: Any
    MetricFamily: Any
    Logger: Any

    @staticmethod
    def get_model_dir() -> str:
        """Return the directory of the model's version."""
        ...
