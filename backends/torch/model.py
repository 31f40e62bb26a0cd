from triton_router.serving.backends.torch import TorchModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
