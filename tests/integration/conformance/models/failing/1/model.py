"""Fails on demand: a TritonError of a given code, an exception, a missing output, a slow answer."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Does as it is told."""

    def execute(self, requests):
        """Answer, or fail, each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        how, _, detail = request.inputs()[0].as_numpy()[0][0].decode().partition(":")
        one = np.ones((1, 1), np.float32)
        if how == "error":
            code, _, message = detail.partition(":")
            error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
            return pb_utils.InferenceResponse([], error=error)
        if how == "raise":
            raise RuntimeError(detail)
        if how == "sleep":
            time.sleep(float(detail))
        if how == "missing":
            return pb_utils.InferenceResponse([pb_utils.Tensor("Y", one)])
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", one), pb_utils.Tensor("Z", one)])
