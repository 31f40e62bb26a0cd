"""Takes 3 ms for each call, without using a core."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Identity, slowly."""

    def execute(self, requests):
        """Wait once for all requests, then answer each with its input."""
        time.sleep(0.003)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]) for request in requests
        ]
