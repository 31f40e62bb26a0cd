"""Negates one scalar for each row."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Rows without a dimension of their own."""

    def execute(self, requests):
        """Answer each request."""
        responses = []
        for request in requests:
            x = request.inputs()[0].as_numpy()
            if x.ndim != 1:
                raise ValueError(f"expected one scalar a row, got shape {x.shape}")
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.negative(x))]))
        return responses
