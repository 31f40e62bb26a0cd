"""Scales each row to a root mean square of one, all rows that Triton's dynamic batcher brings at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import triton_python_backend_utils as pb_utils

EPSILON = np.float32(1e-6)
"""Keeps a row of zeros a row of zeros."""


class TritonPythonModel:
    """The busy hour's target: one computation for a whole batch of requests."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Join the rows of all requests (Triton batches equal shapes only), compute once, part them."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        x = np.concatenate(inputs)
        y = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + EPSILON)
        bounds = [0, *np.cumsum([len(rows) for rows in inputs])]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", y[start:end])]) for start, end in pairwise(bounds)]
