"""The skeleton of a backend that executes models: grouping, merging, error classes and requested outputs.

A backend brings a `Session`: something that opens a model file and runs a dict of arrays. Everything that has to
be right for every backend is here, once: requests that can run together do, one bad request fails alone, every
request is answered, and an error says whose it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from triton_router.errors import InvalidInputError, TritonRouterError, mapping_of
from triton_router.serving.backends.context import context_of
from triton_router.serving.rows import batch_rows, groups, joined, separated
from triton_router.serving.target_errors import INVALID_ARGUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from triton_router.serving.backends.context import ModelContext

    Tensors = dict[str, NDArray[np.generic]]

STUB_MODULE = "triton_python_backend_utils"
"""Exists only inside a stub process, so it is imported when a model is initialised."""


class Session(Protocol):
    """An opened model."""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run one batch and return the wanted outputs by name.

        Raises:
            InvalidInputError: The inputs do not fit the model; any other exception is the model's own failure.
        """
        ...


class ExecutingModel:
    """Base of the ``TritonPythonModel`` of an executing backend; a subclass names how to open a session."""

    open_session: ClassVar[Callable[[ModelContext, Callable[[str], None]], Session]]
    """Opens the model's file; the second argument logs a warning."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model. What cannot be served raises here, so that the model never becomes ready."""
        stub: Any = importlib.import_module(STUB_MODULE)
        self._stub = stub
        try:
            self._context = context_of(args)
            self._session = type(self).open_session(self._context, stub.Logger.log_warn)
        except TritonRouterError as error:
            # Python's own text of the exception class would only be in the way of the message.
            raise stub.TritonModelException(str(error)) from error
        self._outputs = [output.name for output in self._context.outputs]
        self._merges = self._context.merges

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, in order."""
        tensors: list[Tensors] = [
            {tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests
        ]
        answers: list[Tensors | Exception] = [{} for _ in requests]
        for members in groups(tensors, self._context.max_batch_size if self._merges else 0):
            wanted = [self._wanted(requests[index]) for index in members]
            results = self._run_group([tensors[index] for index in members], wanted)
            for index, result in zip(members, results, strict=True):
                answers[index] = result
        return [
            self._response(answer, self._wanted(request)) for answer, request in zip(answers, requests, strict=True)
        ]

    def finalize(self) -> None:
        """Let go of the model."""
        del self._session

    def _wanted(self, request: Any) -> list[str]:
        """Return the outputs a request asks for, in the config's order; all of them when it names none."""
        asked = set(request.requested_output_names())
        return [name for name in self._outputs if name in asked] if asked else self._outputs

    def _run_group(
        self, requests: Sequence[Tensors], wanted: Sequence[Sequence[str]]
    ) -> list[Tensors] | list[Tensors | Exception]:
        if len(requests) > 1:
            merged = self._run_merged(requests, wanted)
            if merged is not None:
                return merged
        return [self._run_one(inputs, names) for inputs, names in zip(requests, wanted, strict=True)]

    def _run_merged(self, requests: Sequence[Tensors], wanted: Sequence[Sequence[str]]) -> list[Tensors] | None:
        """Run a group as one batch; None if it failed as a whole, which says nothing about its members."""
        union = [name for name in self._outputs if any(name in names for names in wanted)]
        result = self._run_one(joined(requests), union)
        if isinstance(result, Exception):
            return None
        parts = separated(result, [batch_rows(inputs) or 0 for inputs in requests])
        if parts is None:
            self._merges = False
            self._stub.Logger.log_warn(
                f"model {self._context.name!r} has an output without the batch as its first dimension: "
                "requests are no longer merged; set max_batch_size: 0 or correct the model"
            )
        return parts

    def _run_one(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors | Exception:
        try:
            return self._session.run(inputs, outputs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to its request, not to the server
            return error

    def _response(self, answer: Tensors | Exception, wanted: Sequence[str]) -> Any:
        stub = self._stub
        if isinstance(answer, Exception):
            name = mapping_of(answer).triton if isinstance(answer, TritonRouterError) else "INTERNAL"
            message = f"model {self._context.name!r}: {str(answer) or type(answer).__name__}"
            if name == "INVALID_ARG":  # through a routed model only the message arrives
                message = f"{INVALID_ARGUMENT} {message}"
            error = stub.TritonError(message, getattr(stub.TritonError, name))
            return stub.InferenceResponse(output_tensors=[], error=error)
        return stub.InferenceResponse([stub.Tensor(name, answer[name]) for name in wanted])


def strings_to_text(name: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Decode a BYTES tensor for a library whose strings are text.

    Raises:
        InvalidInputError: An element is not UTF-8.
    """
    try:
        flat = [item if isinstance(item, str) else bytes(item).decode("utf-8") for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"input {name!r} holds bytes that are not UTF-8: {error}", hint="send UTF-8 text to this model"
        ) from error
    return _objects(flat, array.shape)


def text_to_strings(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Encode an array of text as a BYTES tensor."""
    return _objects([str(item).encode("utf-8") for item in array.ravel()], array.shape)


def _objects(items: Sequence[object], shape: tuple[int, ...]) -> NDArray[np.generic]:
    result = np.empty(len(items), dtype=np.object_)
    result[:] = items
    return result.reshape(shape)
