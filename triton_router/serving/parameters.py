"""A request's parameters, as a client that may be anybody sent them: of bounded size, or refused by name."""

from __future__ import annotations

import json
from typing import cast

from triton_router.config.printable import shortened
from triton_router.errors import RequestError

MAX_CHARACTERS = 1 << 20
"""Of all parameters of a request together, as JSON. A megabyte is parsed in some milliseconds, in which nothing else
of the routed model happens."""
_LONGEST_SHOWN = 128


def parameters_in(text: str) -> dict[str, object]:
    """Return a request's parameters; none if there are none.

    Args:
        text: As Triton gives them: a JSON object.

    Raises:
        RequestError: They are too many, or not what Triton gives.
    """
    if len(text) > MAX_CHARACTERS:
        raise RequestError(
            f"the request's parameters have {len(text)} characters; a routed model takes {MAX_CHARACTERS} at most",
            hint="send large values as input tensors, or call the target model directly",
        )
    try:
        parameters: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"the request's parameters cannot be read: {shown(error)}", hint="parameters must be valid UTF-8"
        ) from error
    return cast("dict[str, object]", parameters) if isinstance(parameters, dict) else {}


def shown(value: object) -> str:
    """Return what a client sent, or a complaint about it, for a message: printable and short."""
    return shortened(str(value), _LONGEST_SHOWN)
