"""What strangers write: values of every kind, and valid documents in which something was replaced."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from triton_router.errors import TritonRouterError

LONGEST_MESSAGE = 2_500
PROFILE = settings(max_examples=150, deadline=None, derandomize=True, database=None)
"""The same examples at every run: a failure is a change of the code, never of the draw."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.0, -0.0, 1e-320, 1e308, -1e308]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.integers(),
    st.floats(),
    st.sampled_from(["", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "a/b", "cpu", "latency", "on", "1e3", "~"]),
    st.sampled_from(["\x00", "\x1b[2J", "\x9b1m", "\ud800", "\udc80", "\u202e", "\U000e0041", "a" * 5_000, "\n\r\t"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def refused_well(error: TritonRouterError) -> None:
    """A refusal says what is wrong in a line that can be printed, and what to do."""
    assert error.hint
    assert 0 < len(error.message) <= LONGEST_MESSAGE
    assert error.message.isprintable(), error.message


@st.composite
def changed(draw: st.DrawFn, document: Any, keys: st.SearchStrategy[str] | None = None) -> Any:
    """Return a copy of a document with one to three of its values replaced, removed, renamed or doubled."""
    result = copy.deepcopy(document)
    names = st.text(max_size=6) if keys is None else keys
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(result))
        if not places:
            return draw(VALUES)
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "replace", "remove", "add", "double"]))
        if what == "replace":
            holder[key] = draw(VALUES)
        elif what == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(names)] = holder[key] if what == "double" else draw(VALUES)
        else:
            holder.append(holder[key] if what == "double" else draw(VALUES))
    return result


def _places(value: Any) -> Any:
    """Yield every mapping or list with each of its keys or indexes."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(inner):
            yield value, key
            yield from _places(item)
