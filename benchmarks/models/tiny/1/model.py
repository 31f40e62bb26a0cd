"""Gives back what it got."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Identity."""

    def execute(self, requests):
        """Answer each request with its input."""
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]) for request in requests
        ]
