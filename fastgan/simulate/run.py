"""Simulates a schedule in a world of any size: the programs of its plans, on vectors of ranks.

The rules are those of `fastgan.schedule.execute`, which it equals rank by rank in small worlds.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastgan.errors import ConfigError
from fastgan.schedule import Action, Collective, Compute, Network, Policy, Span, Start, Step, Ticket, Wait, overlap
from fastgan.simulate.cost import CostModel, Seconds
from fastgan.simulate.history import History
from fastgan.simulate.noise import Noise

# Spans are kept of so many first steps, for pictures.
NUM_TRACED_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What came out.

    step_seconds: [steps], from the end of one step on the last rank to the end of the next; the first and the last
        have only one neighbour to overlap with.
    images_per_second: real images shown to the discriminator, in all steps but the first and the last.
    idle_share: of each role's ranks, the part of the time in which they did not compute.
    segments: neighbouring ranks that do the same.
    spans: what the first rank of each segment did in the first steps.
    mean_staleness, max_staleness: how many versions old the weights of the other network were that updates read.
    """

    num_ranks: int
    step_seconds: Seconds
    images_per_second: float
    idle_share: dict[str, float]
    mean_staleness: float
    max_staleness: int
    segments: list[range] = field(repr=False)
    spans: list[Span] = field(repr=False)


def simulate(
    policy: Policy, cost: CostModel, *, num_steps: int = 20, overlapped: bool = True, noise: Noise | None = None
) -> Simulated:
    """Runs `num_steps` steps of the policy's plans.

    Args:
        overlapped: whether waits are put off until they are needed, `fastgan.schedule.overlap`.
    Raises:
        ConfigError: if there are fewer than three steps, or the model does not know a part, or by it none takes time.
    """
    if num_steps < 3:
        raise ConfigError(f"steps={num_steps} must be at least 3: the first and the last are not counted; give 20")
    history = History(policy, cost, noise or Noise(), num_steps=num_steps)
    executor = _Executor(history, [overlap(actions) if overlapped else actions for actions in history.programs])
    with np.errstate(over="ignore", invalid="ignore"):
        executor.run()
    ends = np.maximum.accumulate(executor.step_ends)
    if not (np.isfinite(ends[-1]) and ends[-2] > ends[0]):
        raise ConfigError(f"{num_steps} steps end after {ends[-1]:g} s, which no steps do; give other times of passes")
    num_images = sum(step.num_images for step in history.steps[1:-1])
    staleness = list(_staleness(history.steps))
    return Simulated(
        num_ranks=policy.num_ranks,
        step_seconds=np.diff(ends, prepend=0.0),
        images_per_second=num_images / float(ends[-2] - ends[0]),
        idle_share=_idle_shares(history, executor),
        mean_staleness=sum(staleness) / len(staleness),
        max_staleness=max(staleness),
        segments=history.segments,
        spans=executor.spans,
    )


class _Executor:
    """Streams of computation and of communication, [R] for each segment."""

    def __init__(self, history: History, programs: Sequence[Sequence[Action]]) -> None:
        self.history, self.programs, self.segments = history, programs, history.segments
        self.places = [0] * len(programs)
        self.clocks = [np.zeros(len(segment)) for segment in self.segments]
        self.channels = [np.zeros(len(segment)) for segment in self.segments]
        self.busy = [np.zeros(len(segment)) for segment in self.segments]
        self.started: list[deque[tuple[Collective, Seconds]]] = [deque() for _ in programs]
        self.ends: dict[Ticket, float] = {}
        self.learned: dict[Network, Compute] = {}
        self.step_ends = np.zeros(len(history.steps))
        self.spans: list[Span] = []

    def run(self) -> None:
        ready = deque(range(len(self.programs)))
        while ready:
            place = ready.popleft()
            self._compute(place)
            if self.started[place]:
                ready.extend(self._communicate(self.started[place][0][0]))
        stuck = [self.segments[i] for i, actions in enumerate(self.programs) if self.places[i] < len(actions)]
        assert not stuck, f"the schedule waits for ever on ranks {stuck}"

    def _compute(self, place: int) -> None:
        """Runs the segment's program until it has to wait."""
        actions = self.programs[place]
        while self.places[place] < len(actions):
            match actions[self.places[place]]:
                case Compute() as action:
                    self._work(place, action)
                case Start(collective=collective):
                    self.started[place].append((collective, self.clocks[place]))
                case Wait(collective=collective):
                    if collective.ticket not in self.ends:
                        return
                    self.clocks[place] = np.maximum(self.clocks[place], self.ends[collective.ticket])
            self.places[place] += 1

    def _work(self, place: int, action: Compute) -> None:
        seconds = self.history.compute_seconds(action, self.segments[place])
        begin, self.clocks[place] = self.clocks[place], self.clocks[place] + seconds
        self.busy[place] += seconds
        if action.kind == "learn":
            self.learned |= {update.network: action for update in action.updates}
        step = self.history.step_of(action)
        self.step_ends[step] = max(self.step_ends[step], self.clocks[place].max())
        self._trace(place, action, begin, self.clocks[place], step)

    def _communicate(self, collective: Collective) -> list[int]:
        """Lets the collective take place if it is what all of its members do next; the places that may go on."""
        members = [i for i, segment in enumerate(self.segments) if segment.start in collective.group]
        assert sum(len(self.segments[i]) for i in members) == len(collective.group)
        if not all(self.started[i] and self.started[i][0][0] == collective for i in members):
            return []
        begin = max(float(np.maximum(self.started[i].popleft()[1], self.channels[i]).max()) for i in members)
        learn = self.learned[collective.networks[0]] if collective.kind == "gradient" else None
        end = begin + self.history.collective_seconds(collective, learn)
        for i in members:
            self.channels[i] = np.full(len(self.segments[i]), end)
            self._trace(i, collective, np.array([begin]), np.array([end]), collective.ticket.step)
        self.ends[collective.ticket] = end
        return members

    def _trace(self, place: int, what: Compute | Collective, begin: Seconds, end: Seconds, step: int) -> None:
        """Keeps what the segment's first rank does, of all others the same is known."""
        if step < NUM_TRACED_STEPS:
            self.spans.append(Span(self.segments[place].start, what, float(begin[0]), float(end[0])))


def _staleness(steps: Sequence[Step]) -> Iterator[int]:
    """By how many versions each read lags behind what the step began with, or has made before it on the same ranks."""
    for step in steps:
        now = {"discriminator": step.state.discriminator_updates, "generator": step.state.generator_updates}
        for update in step.updates:
            other = "generator" if update.network == "discriminator" else "discriminator"
            yield now[other] - update.reads
            if not step.is_joint and len({u.group for u in step.updates}) == 1:
                now[update.network] = update.version


def _idle_shares(history: History, executor: _Executor) -> dict[str, float]:
    """Of the ranks of each group, by the networks that they update."""
    elapsed = max(float(clock.max()) for clock in executor.clocks)
    busy = np.concatenate(executor.busy)
    shares: dict[str, float] = {}
    for group in history.policy.groups:
        networks = {update.network for step in history.steps for update in step.updates if update.group == group}
        name = networks.pop() if len(networks) == 1 else "both"
        shares[name] = 1 - float(busy[group.start : group.stop].mean()) / elapsed
    return shares
