"""Row by row: Y is sqrt(X) + N, times the request parameter "times"; T is S backwards."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Takes 3 ms for a call, whatever is in it."""

    def execute(self, requests):
        """Answer each request by itself."""
        time.sleep(0.003)
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        rows = next(iter(tensors.values())).shape()[0]
        parameters = json.loads(request.parameters() or "{}")
        x = tensors["X"].as_numpy() if "X" in tensors else np.zeros((rows, 1), np.float32)
        if (x < 0).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"negative value {x.min():g}"))
        y = np.sqrt(x)
        if "N" in tensors:
            y = y + tensors["N"].as_numpy().astype(np.float32)
        y = y * np.float32(parameters.get("times", 1))
        text = tensors["S"].as_numpy() if "S" in tensors else np.full((rows, 1), b"", np.object_)
        backwards = np.empty_like(text)
        backwards.flat = [bytes(item)[::-1] for item in text.flat]
        wanted = request.requested_output_names()
        outputs = {"Y": y.astype(np.float32), "T": backwards}
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in outputs.items() if name in wanted]
        )
