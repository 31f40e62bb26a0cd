"""Whatever models answer: comparing never fails, equal answers agree, and what is told is finite JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from triton_router.parity.answer import MAX_ELEMENTS, compared, kept
from triton_router.parity.input_summary import in_words, summary
from triton_router.parity.tolerance import TOLERANCES

TYPES = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_]
VALUES: Any = st.one_of(
    st.sampled_from(TYPES).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))),
    st.lists(st.binary(max_size=8), max_size=5).map(lambda texts: np.array(texts, np.object_)),
)
ANSWERS: Any = st.dictionaries(st.sampled_from(["y", "z", "attention_mask"]), VALUES, max_size=3)
TOLERANCE: Any = st.sampled_from(list(TOLERANCES.values())).flatmap(
    lambda tolerance: st.sets(st.sampled_from(["y", "z"])).map(
        lambda names: tolerance.of_outputs(argmax=frozenset(names), ignore=frozenset())
    )
)


@given(ANSWERS, ANSWERS, TOLERANCE)
def test_an_answer_agrees_with_itself(inputs: Any, outputs: Any, tolerance: Any) -> None:
    """NaN, infinities, empty and scalar outputs included; and within a bounded size."""
    answer = kept(inputs, outputs, tolerance)
    assert compared(answer, kept(inputs, outputs, tolerance), tolerance).exceeds(tolerance) == ""
    assert all(value.size <= 2 * MAX_ELEMENTS for value in answer.outputs.values())


@given(ANSWERS, ANSWERS, ANSWERS, TOLERANCE)
def test_any_two_answers_can_be_compared(inputs: Any, one: Any, other: Any, tolerance: Any) -> None:
    """Whatever their names, types and shapes; if they differ in these, that is a divergence."""
    left, right = kept(inputs, one, tolerance), kept(inputs, other, tolerance)
    found = compared(left, right, tolerance)
    if left.layout != right.layout:
        assert found.exceeds(tolerance)
    assert found.cosine <= 1.0
    assert 0.0 <= found.agreement <= 1.0


@given(ANSWERS)
def test_inputs_are_told_in_finite_numbers_on_one_line(inputs: Any) -> None:
    """Whatever a client sends."""
    json.dumps(summary(inputs), allow_nan=False)
    assert "\n" not in in_words(inputs)
