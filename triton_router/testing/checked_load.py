"""Bounded load whose every answer is checked: what did clients see, and did each get what was its own?"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Self

from triton_router.testing.questions import (
    FailedAnswerError,
    GrpcClient,
    HttpClient,
    Question,
    WrongAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from triton_router.testing.questions import Client

_NUMBERS = count(1)
"""No two questions of a process are alike."""

_DIGITS = re.compile(r"\d+(\.\d+)?")
_MOST_EXAMPLES = 10
_ROWS = (1, 1, 1, 2)


@dataclass(frozen=True, slots=True)
class Habits:
    """What clients do. A load ends by itself after ``seconds`` and after ``questions``.

    Attributes:
        clients: Clients over HTTP, each with one question at a time.
        grpc_clients: Likewise over gRPC.
        patience_s: After so long a client gives up on an answer; such answers are counted as missing.
        leaves_within_s: Clients leave at random after at most so long instead, which is nobody's failure; 0 for never.
        rate: Questions per second whatever the answers, by as many clients as are free; 0 for one after the other.
        pause_s: A client's pause after an answer.
        pause_after_error_s: Likewise after an error, so that errors at once do not become a busy loop.
        columns: Size of a question's rows; only 4 is right.
        parameters: Request parameters of every question.
        seconds: Longest time to ask for.
        questions: Most questions.
        seed: Of all that is drawn.
    """

    clients: int = 12
    grpc_clients: int = 4
    patience_s: float = 20.0
    leaves_within_s: float = 0.0
    rate: float = 0.0
    pause_s: float = 0.0
    pause_after_error_s: float = 0.02
    columns: int = 4
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seconds: float = 60.0
    questions: int = 1_000_000
    seed: int = 0


@dataclass(slots=True)
class Seen:
    """What clients saw so far.

    Attributes:
        asked: Questions begun.
        answered: Right answers.
        not_numbers: Answers of NaN, which count as answered.
        failures: Error answers by message, numbers replaced.
        failed_at: When they came, in monotonic seconds, at most 100,000 of them.
        missing: Questions without an answer for as long as a client waits.
        wrong: Answers that were another's, or malformed; the first ten in words.
        wrong_count: All of them.
        left: Clients that left on purpose.
        not_asked: Questions that no client was free to ask.
        latencies_ms: Of right answers.
        worst_ms: The longest of any answer, errors included.
    """

    asked: int = 0
    answered: int = 0
    not_numbers: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    failed_at: list[float] = field(default_factory=list[float])
    missing: int = 0
    wrong: list[str] = field(default_factory=list[str])
    wrong_count: int = 0
    left: int = 0
    not_asked: int = 0
    latencies_ms: list[float] = field(default_factory=list[float])
    worst_ms: float = 0.0

    @property
    def failed(self) -> int:
        """Error answers."""
        return self.failures.total()

    @property
    def accounted(self) -> int:
        """Questions whose end is known: each has exactly one, so this is ``asked`` when nothing is under way."""
        return self.answered + self.failed + self.missing + self.wrong_count + self.left

    def quantile_ms(self, q: float) -> float:
        """Return the latency that a share ``q`` of the right answers did not exceed; 0 if there is none."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    def line(self) -> str:
        """Return the figures on one line."""
        text = f"{self.answered} answers, {self.failed} failures, {self.missing} missing, {self.wrong_count} wrong"
        text += f", p50 {self.quantile_ms(0.5):.1f} ms, p99 {self.quantile_ms(0.99):.1f} ms"
        text += f", worst {self.worst_ms:.0f} ms"
        return f"{text}, {self.left} left" if self.left else text


@lru_cache(maxsize=1)
def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the one loop of all loads of this process: gRPC's clients do not get along with several."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loads", daemon=True).start()
    return loop


class CheckedLoad:
    """Asks in another thread from ``with`` on, until its block ends or its bounds are reached.

    Args:
        http_url: ``host:port``.
        grpc_url: ``host:port``.
        model: The routed model.
        habits: What its clients do.
    """

    def __init__(self, http_url: str, grpc_url: str, model: str, habits: Habits) -> None:
        self.seen = Seen()
        self._habits = habits
        self._urls = http_url, grpc_url
        self._model = model
        self._rng = Random(habits.seed)  # noqa: S311 - a reproducible draw, not a secret
        self._ending = threading.Event()
        self._end = 0.0
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        self._end = time.monotonic() + self._habits.seconds
        work = self._paced() if self._habits.rate else self._closed()
        self._running = asyncio.run_coroutine_threadsafe(work, _event_loop())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Seen:
        """Ask nothing more, and wait for the answers under way.

        Raises:
            TimeoutError: A client is still at it after its patience must have ended.
            ExceptionGroup: The load itself broke.
        """
        self._ending.set()
        return self.wait(self._habits.patience_s + 10)

    def wait(self, timeout: float | None = None) -> Seen:
        """Wait for the load's own end. Errors as `stop`."""
        if self._running is not None:
            patience = self._habits.seconds + self._habits.patience_s + 10 if timeout is None else timeout
            try:
                self._running.result(patience)
            except TimeoutError as error:
                raise TimeoutError(f"clients of {self._model} do not end: {self.seen.line()}") from error
        return self.seen

    @property
    def _asks_on(self) -> bool:
        return not self._ending.is_set() and time.monotonic() < self._end and self.seen.asked < self._habits.questions

    def _clients(self) -> list[Client]:
        http_url, grpc_url = self._urls
        http: list[Client] = [HttpClient(http_url, self._model) for _ in range(self._habits.clients)]
        return http + [GrpcClient(grpc_url, self._model) for _ in range(self._habits.grpc_clients)]

    async def _closed(self) -> None:
        async with asyncio.TaskGroup() as group:
            for client in self._clients():
                group.create_task(self._one_after_the_other(client))

    async def _one_after_the_other(self, client: Client) -> None:
        try:
            while self._asks_on:
                well = await self._ask(client)
                await asyncio.sleep(self._habits.pause_s if well else self._habits.pause_after_error_s)
        finally:
            await client.close()

    async def _paced(self) -> None:
        clients = self._clients()
        free = list(clients)

        async def one(client: Client) -> None:
            await self._ask(client)
            free.append(client)

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            due = 0
            while self._asks_on:
                while due < (time.monotonic() - started) * self._habits.rate:
                    due += 1
                    if free:
                        group.create_task(one(free.pop()))
                    else:
                        self.seen.not_asked += 1
                await asyncio.sleep(0.002)
        for client in clients:
            await client.close()

    async def _ask(self, client: Client) -> bool:
        seen = self.seen
        rows = self._rng.choice(_ROWS)
        question = Question(next(_NUMBERS), rows, self._habits.columns, self._habits.parameters)
        leaves = self._habits.leaves_within_s
        patience_s = self._rng.uniform(0, leaves) if leaves else self._habits.patience_s
        seen.asked += 1
        begun = time.monotonic()
        try:
            async with asyncio.timeout(patience_s):
                is_number = await client.ask(question)
        except TimeoutError:
            if leaves:
                seen.left += 1
            else:
                seen.missing += 1
        except WrongAnswerError as error:
            seen.wrong_count += 1
            seen.wrong += [str(error)][: _MOST_EXAMPLES - len(seen.wrong)]
        except (FailedAnswerError, OSError) as error:
            self._note_failure(error)
        else:
            elapsed_ms = (time.monotonic() - begun) * 1e3
            seen.answered += 1
            seen.not_numbers += not is_number
            seen.latencies_ms.append(elapsed_ms)
            seen.worst_ms = max(seen.worst_ms, elapsed_ms)
            return True
        seen.worst_ms = max(seen.worst_ms, (time.monotonic() - begun) * 1e3)
        return False

    def _note_failure(self, error: Exception) -> None:
        self.seen.failures[_DIGITS.sub("N", f"{error}".splitlines()[0][:200])] += 1
        if len(self.seen.failed_at) < 100_000:
            self.seen.failed_at.append(time.monotonic())
