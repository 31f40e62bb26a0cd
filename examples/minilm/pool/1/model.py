"""Turns the vectors of a sentence's tokens into the sentence's embedding."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

TINY = np.float32(1e-9)
"""Keeps a row without any token from dividing by zero."""


class TritonPythonModel:
    """Last step of the pipeline."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Average over the tokens that are not padding, then scale to length one: dot products are cosines."""
        responses: list[pb_utils.InferenceResponse] = []
        for request in requests:
            hidden = pb_utils.get_input_tensor_by_name(request, "hidden").as_numpy()
            mask = pb_utils.get_input_tensor_by_name(request, "mask").as_numpy()
            weights = mask.astype(np.float32)[:, :, None]
            mean = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), TINY)
            embedding = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), TINY)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("embedding", embedding)]))
        return responses
