"""What a schedule would take in worlds that are not here: the scheduler's own plans, with a model of their costs."""

from fastgan.simulate.compare import alone, efficiency
from fastgan.simulate.cost import CostModel, Part, parts_from_passes
from fastgan.simulate.fabric import Fabric, Links
from fastgan.simulate.noise import Noise
from fastgan.simulate.record import parts_from_record
from fastgan.simulate.roles import best_roles
from fastgan.simulate.run import Simulated, simulate
from fastgan.simulate.trace import chrome_trace
from fastgan.simulate.unit import unit_model

__all__ = [
    "CostModel",
    "Fabric",
    "Links",
    "Noise",
    "Part",
    "Simulated",
    "alone",
    "best_roles",
    "chrome_trace",
    "efficiency",
    "parts_from_passes",
    "parts_from_record",
    "simulate",
    "unit_model",
]
