"""Answers with what it saw, as JSON."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """A mirror."""

    def execute(self, requests):
        """Describe each request."""
        responses = []
        for request in requests:
            seen = {
                "id": request.request_id(),
                "correlation_id": request.correlation_id(),
                "flags": request.flags(),
                "timeout": request.timeout(),
                "parameters": json.loads(request.parameters() or "{}"),
                "outputs": sorted(request.requested_output_names()),
            }
            text = json.dumps(seen, sort_keys=True).encode()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SEEN", np.array([text], dtype=np.object_))]))
        return responses
