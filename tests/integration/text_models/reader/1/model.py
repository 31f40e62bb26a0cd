"""Takes as long as its texts are, and says who it is."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Sleeps FIXED_MS for each call, and BYTE_US for each byte of text."""

    def initialize(self, args):
        """Read how fast it is."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._fixed_ms = float(parameters["FIXED_MS"]["string_value"])
        self._byte_us = float(parameters["BYTE_US"]["string_value"])
        self._name = args["model_name"].encode()

    def execute(self, requests):
        """Answer one after the other."""
        responses = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            time.sleep(self._fixed_ms / 1e3 + self._byte_us / 1e6 * sum(map(len, texts.flat)))
            reader = np.full((len(texts), 1), self._name, np.object_)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("READER", reader)]))
        return responses
