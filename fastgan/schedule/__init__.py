"""Who does what at which step, as plain values: printable, serialisable, and testable without a GPU.

A policy is a pure planner. `plan(state, rank)` says which updates a rank makes in one step, and on which samples;
`advance(state, agreed)` is the state after that step. Plain Python: neither torch nor numpy is imported here.
"""

from fastgan.schedule.alternate import Alternate
from fastgan.schedule.balance import Balance
from fastgan.schedule.execute import Execution, Span, execute
from fastgan.schedule.joint import Joint
from fastgan.schedule.plan import (
    Collective,
    DuePenalty,
    Exchange,
    LazyPenalty,
    MicroBatch,
    Network,
    Plan,
    Step,
    Ticket,
    Update,
)
from fastgan.schedule.policy import Policy
from fastgan.schedule.program import Action, Compute, Start, Wait, overlap, program
from fastgan.schedule.show import schedule_table
from fastgan.schedule.split import Split
from fastgan.schedule.state import Agreed, ScheduleState

__all__ = [
    "Action",
    "Agreed",
    "Alternate",
    "Balance",
    "Collective",
    "Compute",
    "DuePenalty",
    "Exchange",
    "Execution",
    "Joint",
    "LazyPenalty",
    "MicroBatch",
    "Network",
    "Plan",
    "Policy",
    "ScheduleState",
    "Span",
    "Split",
    "Start",
    "Step",
    "Ticket",
    "Update",
    "Wait",
    "execute",
    "overlap",
    "program",
    "schedule_table",
]
