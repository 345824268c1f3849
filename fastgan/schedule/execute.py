"""An executor of programs in simulated time, which also shows where they would wait for each other for ever.

Every rank has a stream of computation, which runs its program in order, and a stream of communication, which runs the
collectives it has started one after the other. A collective begins when all its members have started it and their
streams of communication are free, and ends at the same time for all. With `is_blocking` a rank that has started a
collective waits right there: whatever ends then ends under every weaker rule, too.

Since every rank waits for one collective at a time, the order in which collectives that are ready are taken does not
change what happens: one execution speaks for all interleavings.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastgan.schedule.plan import Collective, Ticket
from fastgan.schedule.program import Action, Compute, Start, Wait

# Seconds that an action takes on a rank; for a collective the rank is the lowest of its members.
Cost = Callable[[int, Compute | Collective], float]


@dataclass(frozen=True)
class Span:
    """What a rank did from `begin` to `end`, in seconds; a collective takes place on its stream of communication."""

    rank: int
    what: Compute | Collective
    begin: float
    end: float


@dataclass
class Execution:
    """What happened, and where each rank that could not go on is stuck: a deadlock unless `stuck` is empty."""

    spans: list[Span] = field(default_factory=list)
    stuck: dict[int, Action] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    """When each rank's computation has ended."""


def no_time(rank: int, what: Compute | Collective) -> float:
    """Everything takes no time: only the order is of interest."""
    del rank, what
    return 0.0


def execute(programs: Sequence[Sequence[Action]], cost: Cost = no_time, *, is_blocking: bool = False) -> Execution:
    """Runs the program of every rank as far as it goes."""
    return _Executor(programs, cost, is_blocking=is_blocking).run()


class _Executor:
    def __init__(self, programs: Sequence[Sequence[Action]], cost: Cost, *, is_blocking: bool) -> None:
        self.programs, self.cost, self.is_blocking = programs, cost, is_blocking
        self.places = [0] * len(programs)
        self.clocks = [0.0] * len(programs)
        self.channels = [0.0] * len(programs)
        # What each rank has started that has not taken place yet, with the time, and where its program last did so.
        self.started: list[deque[tuple[Collective, float]]] = [deque() for _ in programs]
        self.joined_at = [-1] * len(programs)
        self.ends: dict[Ticket, float] = {}
        self.spans: list[Span] = []

    def run(self) -> Execution:
        ready = deque(range(len(self.programs)))
        while ready:
            rank = ready.popleft()
            self._compute(rank)
            if self.started[rank] and self._communicate(collective := self.started[rank][0][0]):
                ready.extend(collective.group)
        return Execution(self.spans, self._stuck(), self.clocks)

    def _compute(self, rank: int) -> None:
        """Runs the rank's program until it has to wait."""
        actions = self.programs[rank]
        while self.places[rank] < len(actions):
            action = actions[self.places[rank]]
            if isinstance(action, Compute):
                begin = self.clocks[rank]
                self.clocks[rank] = begin + self.cost(rank, action)
                self.spans.append(Span(rank, action, begin, self.clocks[rank]))
            else:
                if isinstance(action, Start) and self.joined_at[rank] < self.places[rank]:
                    self.started[rank].append((action.collective, self.clocks[rank]))
                    self.joined_at[rank] = self.places[rank]
                if isinstance(action, Wait) or self.is_blocking:
                    if action.collective.ticket not in self.ends:
                        return
                    self.clocks[rank] = max(self.clocks[rank], self.ends[action.collective.ticket])
            self.places[rank] += 1

    def _communicate(self, collective: Collective) -> bool:
        """Lets the collective take place if it is what all of its members do next."""
        heads = [self.started[rank][0] if self.started[rank] else None for rank in collective.group]
        if any(head is None or head[0] != collective for head in heads):
            return False
        times = [head[1] for head in heads if head is not None]
        begin = max(*times, *(self.channels[rank] for rank in collective.group))
        end = begin + self.cost(collective.group.start, collective)
        for rank in collective.group:
            self.started[rank].popleft()
            self.channels[rank] = end
            self.spans.append(Span(rank, collective, begin, end))
        self.ends[collective.ticket] = end
        return True

    def _stuck(self) -> dict[int, Action]:
        found: dict[int, Action] = {}
        for rank, actions in enumerate(self.programs):
            if self.places[rank] < len(actions):
                found[rank] = actions[self.places[rank]]
            elif self.started[rank]:
                # Nobody awaits it, but it must take place all the same.
                found[rank] = Wait(self.started[rank][0][0], frozenset(), frozenset())
        return found
