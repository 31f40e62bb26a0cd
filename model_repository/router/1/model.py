"""The router as a model of Triton's Python backend, which reads only the name ``TritonPythonModel``."""

from triton_router.serving.router_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
