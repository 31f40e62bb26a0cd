"""Answers after 20 ms, or fails in the way that its configuration says."""

import json
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Y is X and Z is 2 X."""

    def initialize(self, args):
        """Read how to behave: ok, error, hang, fewer, or held until there is a certain file."""
        how = json.loads(args["model_config"])["parameters"]["how"]["string_value"]
        self._how, _, gate = how.partition(":")
        self._gate = Path(gate)

    def execute(self, requests):
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if self._how == "error":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("out of memory"))
        while self._how == "held" and not self._gate.exists():
            time.sleep(0.005)
        time.sleep(1.0 if self._how == "hang" else 0.02)
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        outputs = [pb_utils.Tensor("Y", x), pb_utils.Tensor("Z", 2 * x)]
        return pb_utils.InferenceResponse(outputs[:1] if self._how == "fewer" else outputs)
