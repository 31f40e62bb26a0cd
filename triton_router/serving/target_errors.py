"""What a target's error message says of the error's code.

Up to server 25.03 every error that comes back from a BLS call carries the code INTERNAL and only its message
survives. The patterns below recover the code of Triton's own messages and of this project's backends, so that a
routed error has the class of a direct one. A model of a user's own that raises another code is reported as
INTERNAL on those servers; from 25.04 on a code other than INTERNAL is taken as it comes.
"""

from __future__ import annotations

import re

_CODES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("NOT_FOUND", re.compile(r"unknown model|model '[^']*' (?:is )?not found|has no available versions")),
    ("UNAVAILABLE", re.compile(r"is not ready|not at ready state|Exceeds maximum queue size|queue is full")),
    (
        "INVALID_ARG",
        re.compile(
            r"\[request for model |unexpected (?:shape|inference|explicit tensor data|total byte size|datatype)"
            r"|expected \d+ inputs but got|inference (?:input|request) |Got invalid dimensions for input"
            r"|batch[- ]size must be|\[INVALID_ARG\]"
        ),
    ),
    ("CANCELLED", re.compile(r"[Rr]equest (?:was )?cancelled")),
    ("UNSUPPORTED", re.compile(r"doesn't support models with decoupled transaction policy")),
)
_BLS_PREFIX = re.compile(
    r"^Failed (?:to process|for execute|for processing) the request\(s\) for model (?:instance )?'[^']*', "
    r"(?:message|error): "
)


def code_of(message: str) -> str:
    """Return the name of the Triton error code that a message belongs to; ``INTERNAL`` if it gives no sign."""
    for code, pattern in _CODES:
        if pattern.search(message):
            return code
    return "INTERNAL"


def without_bls_prefix(message: str) -> str:
    """Return the target's own words: what a direct caller would have read."""
    return _BLS_PREFIX.sub("", message)
