"""Adds up each sequence's numbers."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """An accumulator per correlation id."""

    def initialize(self, args):
        """Begin with nothing."""
        self._sums = {}

    def execute(self, requests):
        """Add each request's number to its sequence's sum."""
        responses = []
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sequence = int(tensors["CORRID"].flat[0])
            before = 0 if tensors["START"].flat[0] else self._sums[sequence]
            self._sums[sequence] = before + int(tensors["X"].flat[0])
            total = np.array([[self._sums[sequence]]], np.int32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SUM", total)]))
        return responses
