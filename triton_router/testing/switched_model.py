"""A target that behaves as a file says, for tests of bad days: whoever holds the switch decides, never the request.

Y is 2 X + 1, so that an answer shows which request it belongs to. ``config.pbtxt`` names the file (parameter
``switch``) and the time that a well-behaved answer takes (``service_ms``). The file holds one line:

| line                  | what each request gets                                                   |
|-----------------------|--------------------------------------------------------------------------|
| nothing, or ``ok``    | its answer                                                               |
| ``sleep:S``           | its answer, S seconds late                                               |
| ``nan:S``             | S seconds late, NaN instead of the answer, as of numbers that overflowed |
| ``hang``              | nothing until the line changes, two minutes at most; then its answer     |
| ``error:CODE:text``   | a TritonError                                                            |
| ``errors:SHARE``      | a TritonError, for this share of the requests                            |
| ``wrong:SHARE``       | an answer that is 1 too large, likewise                                  |
| ``above:X``           | an answer that is 1 too large, where the first of its values is above X  |
| ``noise:SHARE``       | its answer, off by this share of it                                      |
| ``raise:text``        | an exception of the model                                                |
| ``memory``            | the exception of an allocation that no machine can make                  |
| ``crash``             | nothing: the process kills itself                                        |

It runs in Triton's stub process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_LONGEST_HANG_S = 120.0
_LOOK_EVERY_S = 0.005


class TritonPythonModel:
    """Does as its switch says."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find the switch."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._stub: Any = import_module("triton_python_backend_utils")
        self._switch = Path(parameters["switch"]["string_value"])
        self._rng = random.Random(1)  # noqa: S311 - a reproducible draw, not a secret
        self._service_s = float(parameters["service_ms"]["string_value"]) / 1e3

    def execute(self, requests: Iterable[Any]) -> list[Any]:
        """Answer, or fail, each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        how, _, detail = self._line().partition(":")
        time.sleep(self._service_s)
        if how == "error":
            code, _, message = detail.partition(":")
            error = self._stub.TritonError(message, getattr(self._stub.TritonError, code))
            return self._stub.InferenceResponse([], error=error)
        if how == "errors" and self._rng.random() < float(detail):
            return self._stub.InferenceResponse([], error=self._stub.TritonError("an injected error"))
        if how == "raise":
            raise RuntimeError(detail)
        if how == "memory":
            np.ones(1 << 46)
        if how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if how in {"sleep", "nan"}:
            time.sleep(float(detail))
        if how == "hang":
            self._hang()
        answer = self._altered(request.inputs()[0].as_numpy() * 2 + 1, how, detail)
        return self._stub.InferenceResponse([self._stub.Tensor("Y", answer)])

    def _altered(self, answer: NDArray[Any], how: str, detail: str) -> NDArray[Any]:
        if how == "nan":
            return np.full_like(answer, np.nan)
        if how == "noise":
            return answer * (1 + float(detail))
        is_wrong = how == "wrong" and self._rng.random() < float(detail)
        return answer + 1 if is_wrong or (how == "above" and answer.flat[0] > float(detail)) else answer

    def _hang(self) -> None:
        end = time.monotonic() + _LONGEST_HANG_S
        while self._line() == "hang" and time.monotonic() < end:
            time.sleep(_LOOK_EVERY_S)

    def _line(self) -> str:
        try:
            return self._switch.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
