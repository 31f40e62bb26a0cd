"""The router that everybody writes first: a synchronous BLS call per request. Kept to be measured against."""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Calls the model named by the ``target`` parameter, one request after another."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.target = config["parameters"]["target"]["string_value"]

    def execute(self, requests):
        responses = []
        for request in requests:
            response = pb_utils.InferenceRequest(
                model_name=self.target,
                requested_output_names=list(request.requested_output_names()),
                inputs=request.inputs(),
            ).exec()
            if response.has_error():
                responses.append(pb_utils.InferenceResponse(error=response.error()))
            else:
                responses.append(pb_utils.InferenceResponse(output_tensors=response.output_tensors()))
        return responses
