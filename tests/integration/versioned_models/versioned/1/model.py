"""Version 1: Y is X."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request by itself."""

    def execute(self, requests):
        """Return Y."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]) for x in inputs]
