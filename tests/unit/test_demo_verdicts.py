"""What the demo calls right, wrong, and best."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from examples.minilm.demo.cost import Cost, best_fixed
from examples.minilm.demo.sentences import QUERIES, SENTENCES, TOPICS
from examples.minilm.demo.similarity import Agreement


@pytest.mark.parametrize(("smallest", "right"), [(0.95, True), (1.0, True), (0.949, False), (math.nan, False)])
def test_embeddings_below_the_limit_are_wrong(smallest: float, right: bool) -> None:
    """The one sentence that agrees least decides, and a NaN is wrong."""
    assert Agreement("routed", smallest, 1.0, 0.95).right is right


def test_the_best_fixed_choice_is_a_target() -> None:
    """However fast the routed model is, what it is measured against is a fixed choice."""
    costs = [Cost("routed", [[1.0]]), Cost("pt2-cpu", [[9.0]]), Cost("onnx-cpu", [[4.0]])]
    assert best_fixed(costs).way == "onnx-cpu"


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which the machine was busy for both does not move the ratio."""
    routed = Cost("routed", [[2.0, 2.0], [200.0], [2.0]])
    fixed = Cost("onnx-cpu", [[1.0, 1.0], [100.0], [1.0]])
    assert routed.ratio_to(fixed) == pytest.approx(2.0)


def test_every_question_has_a_topic_with_sentences() -> None:
    """Sentences are distinct, and each topic is asked about once."""
    assert max(Counter(SENTENCES).values()) == 1
    assert {topic for _, topic in QUERIES} == set(TOPICS)
