"""What a routed model takes and gives follows from its targets."""

from __future__ import annotations

import pytest

from triton_router.errors import ConfigError
from triton_router.serving.complete import Signature, TensorSpec, common_signature

F = "TYPE_FP32"


def signature(
    inputs: list[TensorSpec], outputs: list[TensorSpec], max_batch_size: int = 8, *, decoupled: bool = False
) -> Signature:
    return Signature(tuple(inputs), tuple(outputs), max_batch_size, decoupled)


X = TensorSpec("X", F, (-1,))
Y = TensorSpec("Y", F, (-1,))


def test_the_smallest_batch_and_the_common_outputs() -> None:
    """Two targets that batch differently and give different outputs: what both can do remains."""
    common = common_signature({"a": signature([X], [Y, TensorSpec("Z", F, (4,))], 8), "b": signature([X], [Y], 4)})
    assert common == signature([X], [Y], 4)


def test_the_stricter_input_and_the_wider_output() -> None:
    """A fixed dimension at one target binds requests; answers may be as either gives them."""
    fixed_in, fixed_out = TensorSpec("X", F, (16,)), TensorSpec("Y", F, (16,))
    common = common_signature({"a": signature([X], [Y]), "b": signature([fixed_in], [fixed_out])})
    assert common == signature([fixed_in], [Y])


def test_an_input_is_optional_only_if_it_is_for_all() -> None:
    """An input that one target needs is needed."""
    optional = TensorSpec("X", F, (-1,), optional=True)
    assert common_signature({"a": signature([optional], [Y]), "b": signature([X], [Y])}).inputs == (X,)
    assert common_signature({"a": signature([optional], [Y]), "b": signature([optional], [Y])}).inputs == (optional,)


def test_a_target_that_does_not_batch_spells_the_rows_out() -> None:
    """With one target of max_batch_size 0, the routed model takes whole shapes."""
    whole = signature([TensorSpec("X", F, (-1, -1))], [TensorSpec("Y", F, (-1, -1))], 0)
    assert common_signature({"a": signature([X], [Y], 8), "b": whole}) == whole


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (signature([TensorSpec("Q", F, (-1,))], [Y]), "take different inputs"),
        (signature([TensorSpec("X", "TYPE_INT64", (-1,))], [Y]), "TYPE_INT64"),
        (signature([TensorSpec("X", F, (-1, -1))], [Y]), "agree on data types and ranks"),
        (signature([X], [TensorSpec("Q", F, (-1,))]), "no output in common"),
    ],
)
def test_targets_that_cannot_share_a_name_are_refused(other: Signature, problem: str) -> None:
    """Different inputs, types or ranks: an error that says which and what to do."""
    with pytest.raises(ConfigError) as caught:
        common_signature({"a": signature([X], [Y]), "b": other})
    assert problem in str(caught.value)


def test_contradicting_fixed_shapes_are_refused() -> None:
    """No request could suit both."""
    with pytest.raises(ConfigError, match="no request could suit both"):
        common_signature(
            {
                "a": signature([TensorSpec("X", F, (16,))], [Y]),
                "b": signature([TensorSpec("X", F, (32,))], [Y]),
            }
        )
