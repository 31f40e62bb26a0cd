"""The error tree and its one table."""

from __future__ import annotations

import pytest

from triton_router.errors import ERROR_TABLE, TritonRouterError, mapping_of
from triton_router.testing.fake_stub import TritonError


def tree(kind: type[TritonRouterError]) -> list[type[TritonRouterError]]:
    return [kind, *[leaf for child in kind.__subclasses__() for leaf in tree(child)]]


@pytest.mark.parametrize("kind", tree(TritonRouterError))
def test_every_error_has_a_row(kind: type[TritonRouterError]) -> None:
    """Each class of the tree stands in the table with a code that Triton has and a failing exit status."""
    assert kind in ERROR_TABLE
    assert hasattr(TritonError, ERROR_TABLE[kind].triton)
    assert ERROR_TABLE[kind].http >= 400
    assert ERROR_TABLE[kind].exit_code > 0


def test_a_class_without_a_row_takes_its_parents() -> None:
    """A subclass defined elsewhere is mapped as its nearest ancestor."""
    parent = ERROR_TABLE[TritonRouterError]
    child = type("Other", (TritonRouterError,), {})
    try:
        assert mapping_of(child("x")) == parent
    finally:
        del child


def test_hints_are_part_of_the_text() -> None:
    """str() of an error says what to do."""
    assert str(TritonRouterError("it broke", hint="mend it")) == "it broke (hint: mend it)"
