"""Manifests of a stable and a canary release of a Triton, and of how traffic is split between them.

Everything here makes text out of data, or text out of text: no clock, network, processes or files.
"""
