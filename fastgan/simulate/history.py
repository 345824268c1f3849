"""The first steps of a schedule: what each rank does in them, and how long it computes."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from fastgan.schedule import Action, Agreed, Collective, Compute, Network, Policy, ScheduleState, Step, program
from fastgan.simulate.cost import CostModel, Seconds, Work
from fastgan.simulate.noise import Noise

KINDS = ("judge_real", "generate", "learn", "apply")


class History:
    """Plans of `num_steps` steps for segments: neighbouring ranks that do the same but for the number of their images.

    steps: what all ranks do in each step.
    segments: they cover all ranks; the group of every collective is a union of some.
    programs: of each segment, in the plain order.
    """

    def __init__(self, policy: Policy, cost: CostModel, noise: Noise, *, num_steps: int) -> None:
        self.policy, self.cost, self.noise = policy, cost, noise
        self.segments = list(_segments(policy))
        self.steps: list[Step] = []
        self.programs: list[list[Action]] = [[] for _ in self.segments]
        self._factors = noise.factors(policy.num_ranks)
        # Of every update: the step that it belongs to, and the work of its group.
        self._places: dict[tuple[Network, int], int] = {}
        self._works: dict[tuple[Network, int], Work] = {}
        state = ScheduleState()
        for _ in range(num_steps):
            state = self._extend(state)

    def step_of(self, action: Compute) -> int:
        """The number of the step that a computation belongs to."""
        update = action.updates[0]
        return self._places[update.network, update.version]

    def compute_seconds(self, action: Compute, segment: range) -> Seconds:
        """[R], how long each rank of the segment takes."""
        update = action.updates[0]
        key = (update.version, update.network == "generator", KINDS.index(action.kind))
        jitters = self.noise.jitters(self.policy.num_ranks, key)
        noise = (self._factors * jitters)[segment.start : segment.stop]
        return self.cost.compute_seconds(action, self._work(action, segment)) * noise

    def collective_seconds(self, collective: Collective, learn: Compute | None) -> float:
        """How long it takes once all have started it; `learn` made the gradient that it reduces."""
        if learn is None:
            return self.cost.collective_seconds(collective)
        backward = self.cost.backward_seconds(learn, self._work(learn, collective.group))
        return self.cost.collective_seconds(collective, float(backward.min()))

    def _extend(self, state: ScheduleState) -> ScheduleState:
        """Adds the step that follows `state`, and returns the state after it."""
        step = self.policy.step(state)
        self.steps.append(step)
        images = {group: np.array(self.policy.images_of_ranks(state, group)) for group in self.policy.groups}
        size = self.policy.micro_batch_images
        for update in step.updates:
            mine = images[update.group]
            key = update.network, update.version
            self._places[key] = len(self.steps) - 1
            self._works[key] = Work(mine, np.ones_like(mine) if size is None else mine // size)
        is_measured = self.policy.shares == "measured" and self.policy.listens(state)
        microseconds = np.zeros(self.policy.num_ranks)
        for place, segment in enumerate(self.segments):
            group = next(group for group in images if segment.start in group)
            # Ranks with one micro-batch keep its fakes, so the program is that of one with most.
            mine = images[group][segment.start - group.start : segment.stop - group.start]
            added = program(self.policy.plan(state, segment.start + int(mine.argmax())))
            self.programs[place] += added
            if is_measured:
                seconds = sum(self.compute_seconds(a, segment) for a in added if isinstance(a, Compute))
                microseconds[segment.start : segment.stop] = 1e6 * seconds
        measured = tuple(int(value) for value in microseconds) if is_measured else ()
        return self.policy.advance(state, Agreed(rank_microseconds=measured))

    def _work(self, action: Compute, ranks: range) -> Work:
        """The part of `ranks` in what their group does."""
        update = action.updates[0]
        first = update.group.start
        return Work(*(v[ranks.start - first : ranks.stop - first] for v in self._works[update.network, update.version]))


def _segments(policy: Policy) -> Iterator[range]:
    """Each group of ranks, with the ranks at its borders apart: they publish."""
    num_ranks = policy.num_ranks
    borders = {place for group in policy.groups[1:] for place in (group.start - 1, group.start, group.start + 1)}
    bounds = sorted({0, num_ranks} | {place for place in borders if 0 < place < num_ranks})
    return (range(first, end) for first, end in pairwise(bounds))
