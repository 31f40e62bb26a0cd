"""Which targets can stand in for a routed model."""

from __future__ import annotations

import pytest

from triton_router.repository.compatibility import incompatibilities
from triton_router.repository.model_config import parse

IN = 'input { name: "x" data_type: TYPE_FP32 dims: [ %s ] }'
OUT = 'output { name: "y" data_type: TYPE_FP32 dims: [ %s ] }'
OTHER_IN = IN.replace('"x"', '"z"')
OTHER_OUT = OUT.replace('"y"', '"z"')
ROUTED = f"max_batch_size: 8 {IN % '-1'} {OUT % '2'}"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"max_batch_size: 8 {IN % '-1'} {OUT % '2'}", []),
        (f"max_batch_size: 16 {IN % '-1'} {OUT % '2'}", []),
        (f"max_batch_size: 0 {IN % '-1, -1'} {OUT % '-1, 2'}", []),
        (f"max_batch_size: 8 {IN % '-1'} {OUT % '2'} output {{ name: 'more' data_type: TYPE_BOOL dims: [1] }}", []),
        ("max_batch_size: 8", []),
        (f"max_batch_size: 4 {IN % '-1'} {OUT % '2'}", ["batches of at most 4"]),
        (f"max_batch_size: 8 {IN % '16'} {OUT % '2'}", ["takes shape [-1, 16]"]),
        (f"max_batch_size: 8 {IN % '-1, 3'} {OUT % '2'}", ["takes shape [-1, -1, 3]"]),
        (f"max_batch_size: 8 {IN % '-1'} {OUT % '3'}", ["output 'y' has shape [-1, 3]"]),
        (f"max_batch_size: 8 {IN.replace('FP32', 'FP16') % '-1'} {OUT % '2'}", ["is TYPE_FP16"]),
        (f"max_batch_size: 8 {OTHER_IN % '-1'} {OUT % '2'}", ["no input 'x'", "needs an input 'z'"]),
        (f"max_batch_size: 8 {IN % '-1'} {OTHER_OUT % '2'}", ["no output 'y'"]),
    ],
)
def test_a_target_must_answer_whatever_the_routed_model_accepts(target: str, expected: list[str]) -> None:
    """Batches, shapes, datatypes, inputs and outputs; more outputs and larger batches do no harm."""
    found = incompatibilities(parse(ROUTED, source="routed"), parse(target, source="target"))
    assert len(found) == len(expected), found
    assert all(part in text for part, text in zip(expected, found, strict=True)), found


def test_an_optional_input_must_be_optional_at_the_target() -> None:
    """A request without it would fail there; the other way round is fine."""
    optional = parse(ROUTED.replace("dims: [ -1 ]", "dims: [ -1 ] optional: true"), source="optional")
    required = parse(ROUTED, source="required")
    assert incompatibilities(optional, required) == ["input 'x' is required, the routed model makes it optional"]
    assert incompatibilities(required, optional) == []
