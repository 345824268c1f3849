"""Who does what at which step, as plain values: printable, serialisable, and testable without a GPU.

A policy is a pure planner. `plan(state, rank)` says which updates a rank makes in one step, and on which samples;
`advance(state)` is the state after that step. Plain Python: neither torch nor numpy is imported here.
"""

from fastgan.schedule.alternate import Alternate
from fastgan.schedule.plan import DuePenalty, LazyPenalty, MicroBatch, Network, Plan, Update
from fastgan.schedule.state import ScheduleState

__all__ = ["Alternate", "DuePenalty", "LazyPenalty", "MicroBatch", "Network", "Plan", "ScheduleState", "Update"]
