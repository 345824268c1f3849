"""What a schedule would take in worlds that are not here: the scheduler's own plans, with a model of their costs."""

from fastgan.simulate.compare import Gain, alone, efficiency, gain_of_split
from fastgan.simulate.cost import CostModel, Part, parts_from_passes
from fastgan.simulate.fabric import Fabric, Links
from fastgan.simulate.noise import Noise
from fastgan.simulate.record import parts_from_record, parts_from_times
from fastgan.simulate.roles import best_roles
from fastgan.simulate.run import Simulated, simulate
from fastgan.simulate.trace import chrome_trace
from fastgan.simulate.unit import unit_model

__all__ = [
    "CostModel",
    "Fabric",
    "Gain",
    "Links",
    "Noise",
    "Part",
    "Simulated",
    "alone",
    "best_roles",
    "chrome_trace",
    "efficiency",
    "gain_of_split",
    "parts_from_passes",
    "parts_from_record",
    "parts_from_times",
    "simulate",
    "unit_model",
]
