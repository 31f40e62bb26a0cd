"""Requests that each carry their own input, and clients that say whether the answer is that request's."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Mapping

_messages: Any = import_module("tritonclient.grpc.service_pb2")  # which has no types
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class FailedAnswerError(Exception):
    """The server answered with an error, whose message this has."""


class WrongAnswerError(Exception):
    """The answer is not that of the request."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a routed model over targets of `triton_router.testing.switched_model`.

    Attributes:
        number: Unlike that of any other; it is in the input and in the id.
        rows: Size of its batch.
        columns: Size of a row; only 4 is right.
        parameters: Request parameters.
    """

    number: int
    rows: int = 1
    columns: int = 4
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def id(self) -> str:
        """Id of the request."""
        return f"q{self.number}"

    @property
    def values(self) -> list[float]:
        """Input, row by row: whole numbers, which doubles hold exactly."""
        return [float(self.number * 64 + place) for place in range(self.rows * self.columns)]

    def check(self, answer: bytes, request_id: str) -> bool:
        """Return whether the answer is a number.

        Raises:
            WrongAnswerError: It is not the answer to this.
        """
        expected = [2 * value + 1 for value in self.values]
        if request_id != self.id:
            raise WrongAnswerError(f"{self.id} got the answer to {request_id}")
        if len(answer) != 8 * len(expected):
            raise WrongAnswerError(f"{self.id} got {len(answer)} bytes, not {8 * len(expected)}")
        got = list(struct.unpack(f"<{len(expected)}d", answer))
        if all(value != value for value in got):  # noqa: PLR0124 - NaN
            return False
        if got != expected:
            raise WrongAnswerError(f"{self.id} got {got}, not {expected}")
        return True


class Client(Protocol):
    """Has at most one question under way."""

    async def ask(self, question: Question) -> bool:
        """Return whether the answer is a number. Cancelling it leaves the server alone with the question.

        Raises:
            FailedAnswerError: The server answered with an error.
            WrongAnswerError: The answer is that to another question.
            OSError: The connection broke.
        """
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class HttpClient:
    """KServe v2 over one kept connection, in binary. Being cancelled closes the connection."""

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, question: Question) -> bool:
        """See `Client`."""
        try:
            status, header, body = await self._exchange(self._encoded(question))
        except BaseException:
            await self.close()
            raise
        if status != 200:
            raise FailedAnswerError(_error_text(status, body))
        answer = json.loads(body[: header or len(body)])
        return question.check(body[header:] if header else b"", answer.get("id", ""))

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None

    def _encoded(self, question: Question) -> bytes:
        data = struct.pack(f"<{len(question.values)}d", *question.values)
        tensor = {
            "name": "X",
            "shape": [question.rows, question.columns],
            "datatype": "FP64",
            "parameters": {"binary_data_size": len(data)},
        }
        parameters = {"binary_data_output": True, **question.parameters}
        text = json.dumps({"id": question.id, "inputs": [tensor], "parameters": parameters}).encode()
        head = (
            f"POST /v2/models/{self._model}/infer HTTP/1.1\r\nHost: {self._url}\r\n"
            f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + len(data)}\r\n\r\n"
        )
        return head.encode() + text + data

    async def _exchange(self, request: bytes) -> tuple[int, int, bytes]:
        if self._connection is None:
            host, _, port = self._url.rpartition(":")
            self._connection = await asyncio.open_connection(host, int(port))
        reader, writer = self._connection
        writer.write(request)
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the server closed the connection") from error
        return int(first.split()[1]), int(headers.get("inference-header-content-length", 0)), body


class GrpcClient:
    """KServe v2 over gRPC. Being cancelled cancels the call."""

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        # Channels to one address share a connection unless they are told not to.
        self._channel = grpc.aio.insecure_channel(url, options=[("grpc.use_local_subchannel_pool", 1)])
        self._infer = self._channel.unary_unary(
            _METHOD,
            request_serializer=_messages.ModelInferRequest.SerializeToString,
            response_deserializer=_messages.ModelInferResponse.FromString,
        )

    async def ask(self, question: Question) -> bool:
        """See `Client`."""
        request = _messages.ModelInferRequest(model_name=self._model, id=question.id)
        request.inputs.add(name="X", datatype="FP64", shape=[question.rows, question.columns])
        request.raw_input_contents.append(struct.pack(f"<{len(question.values)}d", *question.values))
        for key, value in question.parameters.items():
            setattr(request.parameters[key], _PARAMETER_FIELDS[type(value)], value)
        try:
            response = await self._infer(request)
        except grpc.aio.AioRpcError as error:
            raise FailedAnswerError(f"{error.code().name}: {error.details()}") from error
        return question.check(b"".join(response.raw_output_contents), response.id)

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


def _error_text(status: int, body: bytes) -> str:
    try:
        return f"{status}: {json.loads(body)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}: {body[:200]!r}"
