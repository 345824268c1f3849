"""Parallel engines: how one network's update runs on one or many processes."""

from fastgan.parallel.choice import Demands, EngineChoice, check_stages, choose_engine
from fastgan.parallel.engine import Engine, MakeOptimizer
from fastgan.parallel.make import make_engine
from fastgan.parallel.single import SingleEngine

__all__ = [
    "Demands",
    "Engine",
    "EngineChoice",
    "MakeOptimizer",
    "SingleEngine",
    "check_stages",
    "choose_engine",
    "make_engine",
]
