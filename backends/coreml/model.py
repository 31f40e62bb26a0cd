from triton_router.serving.backends.coreml import CoremlModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
