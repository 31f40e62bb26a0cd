"""The router as a Python-based Triton backend: a routed model says ``backend: "router"``."""

from triton_router.serving.router_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
