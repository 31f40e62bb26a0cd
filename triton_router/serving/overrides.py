"""What one request asks of the router itself, by request parameters or headers.

| parameter               | header                    | value                                              |
|-------------------------|---------------------------|----------------------------------------------------|
| `router_goal`           | `x-router-goal`           | latency, throughput, power or balanced             |
| `router_max_latency_ms` | `x-router-max-latency-ms` | milliseconds, above 0, a day at most               |
| `router_backends`       | `x-router-backends`       | backends that may serve it, separated by commas    |
| `router_key`            | `x-router-key`            | what keeps a caller in one arm; 128 characters     |
| `router_explain`        | `x-router-explain`        | true, to be told why; needs response parameters    |
| `router_priority`       | `x-priority`              | -100 to 100, larger is more urgent; 0 by default   |

`x-router-priority` is another name for `x-priority`. Headers arrive as parameters where the server forwards them; their
case does not matter. A parameter wins over a header. Both go on to the target as any other does, numbers with a point
as text.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from triton_router.errors import RequestError
from triton_router.routing.types import Backend, OptimizationGoal, backend_named
from triton_router.serving.parameters import parameters_in, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEADER_PATTERN = "x-(router-(goal|max-latency-ms|backends|key|explain|priority)|priority)"
"""The headers that a server has to forward, as a regular expression for whole names."""

OWN_PREFIX = "router_"
"""Of the parameters that are meant for the router itself."""
_HEADER_PREFIX = "x-router-"
_PRIORITY_HEADER = "x-priority"
MAX_PRIORITY = 100
_EMPTY = len("{}")
_MAX_TEXT = 128
_DAY_MS = 86_400_000.0
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")


class Overrides(NamedTuple):
    """What one request asks for; the defaults ask for nothing."""

    goal: OptimizationGoal = OptimizationGoal.BALANCED
    max_latency_ms: float = 0.0
    backends: frozenset[Backend] | None = None
    key: str = ""
    explain: bool = False
    priority: int = 0


_NOTHING = Overrides()


def overrides(text: str) -> Overrides | None:
    """Return what a request's parameters ask of the router; None for nothing.

    Args:
        text: The parameters as Triton gives them: a JSON object.

    Raises:
        RequestError: A value of one of these parameters is not one.
    """
    # Parsing costs more than all the rest; requests that say nothing to the router do not pay for it.
    if len(text) <= _EMPTY or not ("router" in (lowered := text.lower()) or _PRIORITY_HEADER in lowered):
        return None
    wish = overrides_of(parameters_in(text))
    return None if wish == _NOTHING else wish


def overrides_of(parameters: Mapping[str, object]) -> Overrides:
    """Return what parameters ask of the router. Errors as `overrides`."""
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        name = _name(key)
        if name in _READ and (name not in found or key.startswith(OWN_PREFIX)):
            found[name] = _READ[name](f"request parameter '{shown(key)}'", value)
    return Overrides(**found)


def _name(key: str) -> str:
    """Return the field of `Overrides` that a parameter may stand for; "" for none."""
    if key.startswith(OWN_PREFIX):
        return key.removeprefix(OWN_PREFIX)
    lowered = key.lower()
    if lowered == _PRIORITY_HEADER:
        return "priority"
    return lowered.removeprefix(_HEADER_PREFIX).replace("-", "_") if lowered.startswith(_HEADER_PREFIX) else ""


def _goal(key: str, value: object) -> OptimizationGoal:
    name = _text(key, value).lower()
    try:
        return OptimizationGoal(name)
    except ValueError:
        raise _refusal(key, value, f"one of {', '.join(OptimizationGoal)}") from None


def latency_bound(key: str, value: object) -> float:
    """Return a latency bound in milliseconds; ``key`` names it in the `RequestError` that a wrong one raises."""
    try:
        bound = float(_text(key, value))
    except ValueError:
        bound = 0.0
    if not (isfinite(bound) and 0.0 < bound <= _DAY_MS):
        raise _refusal(key, value, f"milliseconds, more than 0 and at most {_DAY_MS:.0f}, such as 20")
    return bound


def backends(key: str, value: object) -> frozenset[Backend]:
    """Return backends separated by commas; ``key`` names them in the `RequestError` that wrong ones raise."""
    names = [name.strip().lower() for name in _text(key, value).split(",")]
    try:
        return frozenset(backend_named(name) for name in names)
    except ValueError:
        raise _refusal(key, value, f"some of {', '.join(Backend)}, separated by commas") from None


def caller(key: str, value: object) -> str:
    """Return what names a caller; ``key`` names it in the `RequestError` that a wrong one raises."""
    text = _text(key, value)
    if not text:
        raise _refusal(key, value, "what names the caller, such as a user's id")
    return text


def _explain(key: str, value: object) -> bool:
    word = _text(key, value).lower()
    if word not in (*_YES, *_NO):
        raise _refusal(key, value, "true or false")
    return word in _YES


def _priority(key: str, value: object) -> int:
    text = _text(key, value)
    try:
        priority = int(text)
    except ValueError:
        priority = MAX_PRIORITY + 1
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise _refusal(key, value, f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, larger is more urgent")
    return priority


def _text(key: str, value: object) -> str:
    """Return a value as text: HTTP and gRPC have numbers and booleans, headers have text alone."""
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        return value.strip()
    if isinstance(value, bool | int | float):
        return str(value)
    raise _refusal(key, value, f"text of at most {_MAX_TEXT} characters, or a number")


def _refusal(key: str, value: object, wanted: str) -> RequestError:
    return RequestError(f"{key} cannot be '{shown(value)}'", hint=f"pass {wanted}")


_READ: Mapping[str, Callable[[str, object], object]] = {
    "goal": _goal,
    "max_latency_ms": latency_bound,
    "backends": backends,
    "key": caller,
    "explain": _explain,
    "priority": _priority,
}
