"""What a target's error message says of the error's code.

Up to server 25.03 every error that comes back from a BLS call carries the code INTERNAL and only its message
survives. The sentences below are Triton's own (server 2.51's, `infer_request.cc` and the schedulers), those of this
project's backends, and those of a target that is a routed model itself; they get their code back, so that a routed
error has the class of a direct one. Only whole sentences count: a target's own words may resemble
them. An error of a target's own that had another code is INTERNAL on those servers; from 25.04 on a code other
than INTERNAL is taken as it comes.
"""

from __future__ import annotations

import re

INVALID_ARGUMENT = "[invalid-argument]"
"""Begins what a backend of this project says of a request that its model cannot take."""

_PREFIX = re.compile(r"Model [^\n]{1,255}? - Error when running inference: ")
"""What BLS puts before an error that comes at once: that of a request the server did not give to the model."""

_REQUEST = r"(?:in ensemble '[^']*', )?(?:\[request id: [^\]]*\] )?"
_OVERLOADED = rf"{_REQUEST}\[overloaded\] \[retry-after-ms=\d{{1,9}}\] .*"
_DEADLINE_EXCEEDED = rf"{_REQUEST}\[deadline-exceeded\] .*"
_STOPPING = rf"{_REQUEST}Server is stopping, scheduler for model has stopped accepting new inference requests"
_SENTENCES: tuple[tuple[str, str], ...] = (
    ("UNAVAILABLE", rf"{_REQUEST}Exceeds maximum queue size"),
    ("UNAVAILABLE", rf"{_REQUEST}Request timeout expired"),
    ("UNAVAILABLE", rf"{_REQUEST}timeout of the corresponding sequence has been expired"),
    ("UNAVAILABLE", _STOPPING),
    ("UNAVAILABLE", _OVERLOADED),
    ("UNAVAILABLE", _DEADLINE_EXCEEDED),
    (
        "UNAVAILABLE",
        r"(?:Failed for execute the inference request\. )?[Mm]odel '[^']*'(?: version -?\d+)? is not ready\.?",
    ),
    ("NOT_FOUND", r"Request for unknown model: '[^']*'.*"),
    ("CANCELLED", rf"{_REQUEST}[Rr]equest (?:is |was )?cancelled\.?"),
    ("UNSUPPORTED", r"Model \S+ is using the decoupled\..*"),
    (
        "INVALID_ARG",
        _REQUEST
        + r"(?:unexpected (?:shape for input|inference input|inference output|explicit tensor data|total byte size"
        r"|number of string elements|input '[^']*' in request header)"
        r"|expected (?:\d+ inputs?|number of inputs between \d+ and \d+) but got"
        r"|expected \d+ (?:buffers|string elements) for inference input"
        r"|incomplete string length indicator for inference input|All input dimensions should be specified for input"
        r"|inference (?:input|request) (?:'|batch-size)|input byte size mismatch"
        r"|input '[^']*' (?:batch size does not match|has no shape but model requires batch dimension)).*",
    ),
    # Of the sequence batcher, which names no request. A correlation id may be any text.
    ("INVALID_ARG", rf"{_REQUEST}inference request to model '[^']*' must specify .*"),
    ("INVALID_ARG", rf"{_REQUEST}inference request for sequence .* to model '[^']*' must specify the START flag .*"),
    ("INVALID_ARG", r"\[ONNXRuntimeError\] : 2 : INVALID_ARGUMENT : .*"),
    ("INVALID_ARG", rf"{re.escape(INVALID_ARGUMENT)} model '[^']*': .*"),
)
_PATTERNS = tuple((code, re.compile(sentence, re.DOTALL)) for code, sentence in _SENTENCES)

_OF_THE_TARGET = re.compile(
    r"(?:Failed for execute the inference request\. )?[Mm]odel '[^']*'(?: version -?\d+)? is not ready\.?"
    r"|Request for unknown model: '[^']*'.*"
    r"|(?:Failed to process the request\(s\) for model instance '[^']*', message: )?"
    rf"Stub process '[^']*' is not healthy\.?|{_STOPPING}|{_OVERLOADED}",
    re.DOTALL,
)

_EXPIRED = re.compile(rf"{_REQUEST}Request timeout expired", re.DOTALL)
_FULL = re.compile(_OVERLOADED, re.DOTALL)
_LATE = re.compile(_DEADLINE_EXCEEDED, re.DOTALL)

_BATCH_LIMIT = re.compile(rf"{_REQUEST}inference request batch-size must be <= (\d{{1,9}}) for .*", re.DOTALL)


def own_words(message: str) -> str:
    """Return a target's error as who calls the target directly reads it."""
    prefix = _PREFIX.match(message)
    return message[prefix.end() :] if prefix else message


def batch_limit(message: str) -> int | None:
    """Return the most rows that the target takes in a call, where its error says so; else None."""
    found = _BATCH_LIMIT.fullmatch(own_words(message))
    return int(found[1]) if found else None


def has_expired(message: str) -> bool:
    """Whether an error says that a request was in the target's queue for longer than it or the queue allows."""
    return _EXPIRED.fullmatch(own_words(message)) is not None


def is_overloaded(message: str) -> bool:
    """Whether an error is the refusal of a routed model that has too much to do."""
    return _FULL.fullmatch(own_words(message)) is not None


def is_late(message: str) -> bool:
    """Whether an error says that a routed model found no answer within a request's time, or its own."""
    return _LATE.fullmatch(own_words(message)) is not None


def is_of_the_target(message: str) -> bool:
    """Whether an error says that the target answers nobody now, whatever it is asked."""
    return _OF_THE_TARGET.fullmatch(own_words(message)) is not None


def code_of(message: str) -> str:
    """Return the name of the Triton error code that a message belongs to; ``INTERNAL`` if it gives no sign."""
    words = own_words(message)
    for code, pattern in _PATTERNS:
        if pattern.fullmatch(words):
            return code
    return "INTERNAL"
