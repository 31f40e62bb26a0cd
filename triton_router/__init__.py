"""Triton Router: for every request, the sibling model that serves it best."""

__version__ = "0.1.0"
