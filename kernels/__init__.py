"""Triton kernels, installed as `fastgan.kernels`.

Always import `fastgan.kernels`: the bare name `kernels` belongs to another distribution.
"""
