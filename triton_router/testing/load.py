"""A light closed-loop load generator: how fast does a model answer when N clients each wait for their answer?

Requests are encoded beforehand and travel over plain keep-alive sockets in one thread, so that the generator takes
little of the machine it measures. The load is bounded in count and in time.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import tritonclient.http as triton

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

_NUMPY_TO_KSERVE = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "int32": "INT32",
    "object": "BYTES",
    "float16": "FP16",
}
_RECEIVE_BYTES = 1 << 20


@dataclass(slots=True)
class LoadResult:
    """What one run of load saw.

    Attributes:
        seconds: Time from the first request to the last answer.
        latencies_ms: One per answered request that was no error, in milliseconds.
        errors: Bodies of error responses, at most ten of them.
        failed: Number of error responses.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list[float])
    errors: list[str] = field(default_factory=list[str])
    failed: int = 0

    @property
    def throughput(self) -> float:
        """Good answers per second."""
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0

    def quantile_ms(self, q: float) -> float:
        """Return the latency that a share ``q`` of the requests did not exceed; NaN if none was answered."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def encode(url: str, model: str, inputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return a whole HTTP inference request for ``model`` at ``url`` (``host:port``)."""
    tensors: list[triton.InferInput] = []
    for name, value in inputs.items():
        tensor = triton.InferInput(name, list(value.shape), _NUMPY_TO_KSERVE[value.dtype.name])
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    body, json_size = triton.InferenceServerClient.generate_request_body(tensors)
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {url}\r\nContent-Length: {len(body)}\r\n"
    if json_size is not None:
        head += f"Inference-Header-Content-Length: {json_size}\r\n"
    return head.encode() + b"\r\n" + body


def closed_loop(  # noqa: PLR0913 - what a load is
    url: str,
    requests: Sequence[bytes],
    *,
    clients: int,
    count: int,
    seconds: float,
    seed: int = 0,
    in_turn: bool = False,
) -> LoadResult:
    """Keep ``clients`` requests in flight until ``count`` were sent or ``seconds`` have passed.

    Args:
        url: ``host:port``.
        requests: Encoded requests; each client draws from them at random, unless they are to be sent in turn.
        clients: Connections, each with one request in flight.
        count: Most requests to send.
        seconds: Longest time to send for. Answers under way are awaited, 30 s at most.
        seed: Of the draw.
        in_turn: Whether requests are sent one after the other, from the first again after the last.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    draw = cycle(requests).__next__ if in_turn else lambda: rng.choice(requests)
    result = LoadResult()
    sent = 0
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        deadline = started + seconds
        connections = [_Connection(url) for _ in range(min(clients, count))]
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(draw())
            sent += 1
        waiting = len(connections)
        while waiting:
            events = selector.select(timeout=30)
            if not events:
                raise TimeoutError(f"no answer for 30 s with {waiting} requests in flight")
            for key, _ in events:
                connection: _Connection = key.data
                if not connection.receive(result):
                    continue
                if sent < count and time.perf_counter() < deadline:
                    connection.send(draw())
                    sent += 1
                else:
                    waiting -= 1
                    selector.unregister(connection.socket)
                    connection.socket.close()
        result.seconds = time.perf_counter() - started
    return result


class _Connection:
    """One client: a socket with at most one request in flight."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._expected = 0
        self._sent_at = 0.0

    def send(self, request: bytes) -> None:
        self._received.clear()
        self._expected = 0
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self, result: LoadResult) -> bool:
        """Read what has come; return whether the response is whole, and count it then."""
        chunk = self.socket.recv(_RECEIVE_BYTES)
        if not chunk:
            raise ConnectionError("the server closed a connection in mid-response")
        self._received += chunk
        if not self._expected:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._expected = end + 4 + _content_length(bytes(self._received[:end]))
        if len(self._received) < self._expected:
            return False
        if self._received.startswith(b"HTTP/1.1 200"):
            result.latencies_ms.append((time.perf_counter() - self._sent_at) * 1e3)
        else:
            result.failed += 1
            if len(result.errors) < 10:
                result.errors.append(self._received.decode(errors="replace"))
        return True


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("the response has no Content-Length")
