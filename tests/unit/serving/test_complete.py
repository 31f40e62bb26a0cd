"""What a routed model takes and gives follows from its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triton_router.config.router_config import RouterConfig
from triton_router.errors import ConfigError, NotFoundError
from triton_router.serving.complete import (
    Signature,
    TensorSpec,
    common_signature,
    complete_config,
    refuse_decoupled,
    signature_of_targets,
)

if TYPE_CHECKING:
    from pathlib import Path

F = "TYPE_FP32"


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec], max_batch_size: int = 8) -> Signature:
    return Signature(tuple(inputs), tuple(outputs), max_batch_size)


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


TENSORS = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
"""


def add(repository: Path, name: str, config: str, *targets: str, more: str = "") -> None:
    """Write a model; with targets, a routed one."""
    (repository / name).mkdir()
    (repository / name / "config.pbtxt").write_text(config)
    if targets:
        lines = [f"  - {{name: t{index}, model: {target}}}" for index, target in enumerate(targets)]
        (repository / name / "router.yaml").write_text("\n".join(["targets:", *lines, more, ""]))


def routes(*models: str, streaming: bool = False) -> RouterConfig:
    """Return the settings of a routed model."""
    targets = [{"name": f"t{index}", "model": model} for index, model in enumerate(models)]
    return RouterConfig.model_validate({"targets": targets, "streaming": streaming})


def test_a_routed_target_that_declares_nothing_is_completed_from_its_own_targets(tmp_path: Path) -> None:
    """Routers behind routers need no tensors written down; what one does declare stands."""
    add(tmp_path, "leaf", TENSORS)
    add(tmp_path, "inner", 'backend: "router"', "leaf")
    add(tmp_path, "partly", 'backend: "router" output { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }', "inner")
    assert signature_of_targets(tmp_path, routes("inner", "leaf")) == signature([X], [Y])
    assert signature_of_targets(tmp_path, routes("partly")) == signature([X], [TensorSpec("Y", F, (4,))])


def test_many_ways_to_one_target_are_walked_once(tmp_path: Path) -> None:
    """A lattice of routers does not double its work with every layer."""
    add(tmp_path, "m0a", TENSORS)
    add(tmp_path, "m0b", TENSORS)
    for layer in range(1, 24):
        for side in "ab":
            add(tmp_path, f"m{layer}{side}", 'backend: "router"', f"m{layer - 1}a", f"m{layer - 1}b")
    assert signature_of_targets(tmp_path, routes("m23a", "m23b")) == signature([X], [Y])


def test_a_target_that_declares_nothing_and_routes_nothing_is_named(tmp_path: Path) -> None:
    """Nothing can be taken from it, nor from one that is not there."""
    add(tmp_path, "bare", 'backend: "python"')
    with pytest.raises(ConfigError, match="'bare' declares no inputs") as caught:
        signature_of_targets(tmp_path, routes("bare"))
    assert "config.pbtxt" in caught.value.hint
    with pytest.raises(NotFoundError, match="'absent' is not in"):
        signature_of_targets(tmp_path, routes("absent"))


@pytest.mark.parametrize(
    ("config", "more"),
    [(TENSORS + "model_transaction_policy { decoupled: true }", ""), (TENSORS, "streaming: true")],
    ids=["declared", "a streaming router"],
)
def test_a_decoupled_target_needs_a_streaming_router(tmp_path: Path, config: str, more: str) -> None:
    """A unary routed model is refused with what to do; a streaming one takes the same target."""
    add(tmp_path, "once", TENSORS)
    add(tmp_path, "often", config, *(["once"] if more else []), more=more)
    with pytest.raises(ConfigError, match=r"'t1' \('often'\) is decoupled") as caught:
        refuse_decoupled(tmp_path, routes("once", "often"))
    assert "streaming: true" in caught.value.hint
    refuse_decoupled(tmp_path, routes("once", "often", streaming=True))


def test_what_cannot_be_read_is_not_called_decoupled(tmp_path: Path) -> None:
    """A target from another repository, without a configuration, or with a broken one."""
    add(tmp_path, "broken", "nonsense: {")
    (tmp_path / "bare").mkdir()
    refuse_decoupled(tmp_path, routes("absent", "broken", "bare"))


class Declared:
    """A configuration in which everything is written down, so that nothing is added."""

    def as_dict(self) -> dict[str, object]:
        """Return it as the stub does."""
        return {"input": [{}], "output": [{}], "max_batch_size": 0}


def test_a_routed_model_that_leads_back_to_itself_does_not_load(tmp_path: Path) -> None:
    """Even where the launcher has not looked, and whatever is declared; one that does not is left as it is."""
    add(tmp_path, "loopa", TENSORS, "loopb")
    add(tmp_path, "loopb", TENSORS, "loopa")
    add(tmp_path, "leaf", TENSORS)
    add(tmp_path, "sound", TENSORS, "leaf")
    with pytest.raises(ConfigError, match="loopa -> loopb -> loopa"):
        complete_config(Declared(), tmp_path / "loopa")
    declared = Declared()
    assert complete_config(declared, tmp_path / "sound") is declared
