"""Takes the mean off each row."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """A preprocessing step."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request from its own rows."""
        responses: list[pb_utils.InferenceResponse] = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "values").as_numpy()
            centered = values - np.mean(values, axis=-1, keepdims=True)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("centered", centered)]))
        return responses
