"""A stand-in for ``triton_python_backend_utils``, for unit tests of what surrounds it. It never stands in the product.

It behaves as the real module as far as the router can tell, and it is strict where the real one crashes the server:
asking a request that has been answered raises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FakeTensor:
    """A tensor: with values, or one of which only name and shape matter, as of BF16, which has no array."""

    tensor_name: str = "X"
    tensor_shape: tuple[int, ...] = (1, 16)
    array: NDArray[Any] | None = None
    on_cpu: bool = True

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> FakeTensor:
        """Return a tensor with values."""
        return cls(name, array.shape, array)

    def is_cpu(self) -> bool:
        """Whether it lies in the host's memory."""
        return self.on_cpu

    def as_numpy(self) -> NDArray[Any]:
        """Return its values."""
        if self.array is None:
            raise RuntimeError("Tensor dtype is BF16 and cannot be converted to NumPy")
        return self.array

    def name(self) -> str:
        """Return its name."""
        return self.tensor_name

    def shape(self) -> list[int]:
        """Return its shape."""
        return list(self.tensor_shape)


class TritonError:
    """An error with a code."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        """Return its text."""
        return self._message

    def code(self) -> int:
        """Return its code."""
        return self._code


class InferenceResponse:
    """Outputs, or an error."""

    def __init__(self, output_tensors: Sequence[FakeTensor] = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def has_error(self) -> bool:
        """Whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError:
        """Return the error."""
        if self._error is None:
            raise AssertionError("asked a good response for its error")
        return self._error

    def output_tensors(self) -> list[FakeTensor]:
        """Return the outputs."""
        return self._tensors


@dataclass
class FakeRequest:
    """A client's request; ``answers`` collects what it was sent, with the flags, ``complaints`` broken rules."""

    tensors: tuple[FakeTensor, ...] = (FakeTensor(),)
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    correlation: int | str = 0
    sequence_flags: int = 0
    cancelled: bool = False
    outputs: frozenset[str] = frozenset({"Y"})
    timeout_us: int = 0
    answers: list[tuple[Any, int]] = field(default_factory=list[tuple[Any, int]])
    done: Event = field(default_factory=Event)
    complaints: list[str] = field(default_factory=list[str])
    _lock: Any = field(default_factory=Lock)

    def inputs(self) -> list[FakeTensor]:
        """Return its tensors."""
        self._ask()
        return list(self.tensors)

    def requested_output_names(self) -> set[str]:
        """Return the wanted outputs."""
        self._ask()
        return set(self.outputs)

    def request_id(self) -> str:
        """Return its id."""
        self._ask()
        return "id"

    def correlation_id(self) -> int | str:
        """Return its sequence."""
        self._ask()
        return self.correlation

    def flags(self) -> int:
        """Return start and end of a sequence."""
        self._ask()
        return self.sequence_flags

    def timeout(self) -> int:
        """Return Triton's timeout in microseconds."""
        self._ask()
        return self.timeout_us

    def parameters(self) -> str:
        """Return the parameters as JSON."""
        self._ask()
        return json.dumps(self.params)

    def trace(self) -> object:
        """Return nothing to trace."""
        self._ask()
        return None

    def is_cancelled(self) -> bool:
        """Whether the client left; the real one crashes when asked after the last response."""
        self._ask()
        return self.cancelled

    def _ask(self) -> None:
        if self.done.is_set():
            self._complain("asked a request after its final response, which crashes a real server")

    def _complain(self, what: str) -> None:
        # Kept too, because the router catches whatever a request raises.
        self.complaints.append(what)
        raise AssertionError(what)

    def get_response_sender(self) -> FakeRequest:
        """Return itself: it sends its own responses."""
        return self

    def send(self, response: Any = None, flags: int = 0) -> None:
        """Collect a response; there is one last one."""
        with self._lock:
            if self.done.is_set():
                self._complain("a response after the final one")
            self.answers.append((response, flags))
            if flags:
                self.done.set()


class FakeStub:
    """The module. ``serve`` plays the targets: it gets the keyword arguments of each BLS request.

    Args:
        serve: Returns one response, or for a decoupled call several.
    """

    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    TritonError = TritonError
    InferenceResponse = InferenceResponse
    Tensor = FakeTensor.of

    def __init__(self, serve: Callable[[dict[str, Any]], Any]) -> None:
        self._serve = serve
        self.metrics: dict[tuple[str, tuple[tuple[str, str], ...]], FakeMetric] = {}
        stub = self

        class MetricFamily:
            """A family whose metrics the stub keeps."""

            COUNTER, GAUGE = "counter", "gauge"

            def __init__(self, name: str, description: str, kind: str) -> None:
                self.name, self.description, self.kind = name, description, kind

            def Metric(self, labels: dict[str, str]) -> FakeMetric:  # noqa: N802 - Triton's name
                """Return the metric with these labels."""
                return stub.metrics.setdefault((self.name, tuple(sorted(labels.items()))), FakeMetric())

        self.MetricFamily = MetricFamily

    def InferenceRequest(self, **arguments: Any) -> FakeBls:  # noqa: N802 - Triton's name
        """Return a request for a sibling."""
        return FakeBls(self._serve, arguments)


@dataclass
class FakeBls:
    """A BLS request; it may be executed once."""

    serve: Callable[[dict[str, Any]], Any]
    arguments: dict[str, Any]
    executed: bool = False

    def exec(self, decoupled: bool = False) -> Any:
        """Serve it."""
        if self.executed:
            raise AssertionError("a BLS request executed twice crashes a real server")
        self.executed = True
        answer: Any = self.serve(self.arguments)
        responses: Iterable[Any] = answer
        return iter(responses) if decoupled else answer


@dataclass
class FakeMetric:
    """A number."""

    value: float = 0.0

    def increment(self, by: float) -> None:
        """Add."""
        if by < 0:
            raise AssertionError("a counter never falls")
        self.value += by

    def set(self, to: float) -> None:
        """Replace."""
        self.value = to
