"""Who is compared with whom, as settings say and where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from triton_router.config.parity_of import Comparing, Pair, comparing_of
from triton_router.config.router_config import RouterConfig


def comparing(*targets: str, **settings: Any) -> Comparing:
    """Return it for targets written as ``name:variant@backend``."""
    listed: list[dict[str, str]] = []
    for target in targets:
        name, _, rest = target.partition(":")
        variant, _, backend = rest.partition("@")
        listed.append({"name": name, "model": name, "variant": variant, "backend": backend or "cpu"})
    return comparing_of(RouterConfig.model_validate({"targets": listed, **settings}))


@pytest.mark.parametrize(
    ("targets", "reference", "guarded"),
    [
        (["a:onnx", "b:onnx-int8"], "a", ("b",)),
        (["b:onnx-int8", "a:onnx"], "a", ("b",)),
        (["g:onnx@gpu", "a:onnx", "b:onnx-fp16@gpu"], "a", ("g", "b")),
        (["g:onnx@gpu", "b:onnx-fp16@gpu"], "g", ("b",)),
        (["a:pt2", "c:coreml@neural_engine"], "a", ("c",)),
        (["a:onnx", "b:pt2"], "", ()),
        (["a:", "b:"], "", ()),
        (["a:onnx"], "", ()),
    ],
)
def test_the_defaults_guard_what_is_quantised_or_elsewhere(
    targets: list[str], reference: str, guarded: tuple[str, ...]
) -> None:
    """The reference is the first that is not quantised, on the CPU if there is one; where nobody differs it is off."""
    found = comparing(*targets)
    assert (found.reference, found.guarded, found.why_off) == (reference, guarded, "")


def test_without_a_reference_it_says_why_it_is_off() -> None:
    """Where every variant is quantised, somebody has to say which is right."""
    found = comparing("a:int8", "b:fp16")
    assert not found.guarded
    assert "parity.reference" in found.why_off
    assert comparing("a:int8", "b:fp16", parity={"reference": "b"}).guarded == ("a",)
    assert not comparing("a:int8", "b:fp16", parity={"share": 0}).why_off


@pytest.mark.parametrize("settings", [{"streaming": True}, {"retry": {"idempotent": False}}, {"parity": {"share": 0}}])
def test_what_must_not_be_executed_twice_is_not_compared(settings: dict[str, Any]) -> None:
    """Nor is a stream, nor anything where the share is nothing."""
    assert not comparing("a:onnx", "b:int8", **settings).guarded


def test_a_named_reference_and_named_targets_are_what_was_asked_for() -> None:
    """Even where they would not have been guarded by themselves; the reference is never judged by itself."""
    found = comparing("a:onnx", "b:onnx", "c:int8", parity={"reference": "b", "targets": ["a", "b"]})
    assert (found.reference, found.guarded) == ("b", ("a",))


def test_newcomers_are_no_reference() -> None:
    """Neither a canary nor a shadow is right by default; the canary is judged by a stable target."""
    found = comparing("new:onnx", "s:onnx", "old:onnx", rollout={"id": "r", "canary": ["new"]}, shadow={"target": "s"})
    assert (found.canary, found.stable, found.shadow) == (("new",), "old", "s")
    found = comparing("new:onnx", "q:int8", "old:onnx", rollout={"id": "r", "canary": ["new"]})
    assert (found.reference, found.guarded, found.stable) == ("old", ("q",), "old")


def test_a_canary_that_is_meant_to_differ_is_not_compared() -> None:
    """``gate.max_mismatch: 1`` says so."""
    rollout = {"id": "r", "canary": ["new"], "gate": {"max_mismatch": 1}}
    assert comparing("new:onnx", "old:onnx", rollout=rollout).canary == ()


def test_a_pair_is_allowed_what_its_less_precise_half_takes() -> None:
    """Unless somebody has set a bound; outputs that count in part or not at all are the same for all."""
    found = comparing("a:onnx", "b:onnx-int8", "g:onnx@gpu")
    assert found.tolerance(Pair("b", "a")).agreement == 0.8
    assert found.tolerance(Pair("g", "a")).relative == 0.05
    set_by_hand = {"relative": 0.25, "argmax": ["scores"], "ignore": ["debug"]}
    found = comparing("a:onnx", "b:onnx-int8", parity={"tolerance": set_by_hand})
    tolerance = found.tolerance(Pair("b", "a"))
    assert (tolerance.relative, tolerance.cosine) == (0.25, 0.9)
    assert (tolerance.argmax, tolerance.ignore) == ({"scores"}, {"debug"})
