"""Parallel engines: how one network's update runs on one or many processes."""

from fastgan.parallel.engine import Engine
from fastgan.parallel.single import SingleEngine

__all__ = ["Engine", "SingleEngine"]
