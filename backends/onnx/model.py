from triton_router.serving.backends.onnx import OnnxModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
