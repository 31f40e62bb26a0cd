"""Y is the sum over all rows, as one row."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Sums."""

    def execute(self, requests):
        """Answer each request with its sum."""
        time.sleep(0.003)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("Y", request.inputs()[0].as_numpy().sum(dtype=np.float32).reshape(1, 1))]
            )
            for request in requests
        ]
