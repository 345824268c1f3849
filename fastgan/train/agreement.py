"""What all ranks decide together, each time from integers that all of them have reduced.

A rank that left a step out, or stopped, on its own would leave the others waiting for it for ever.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor

from fastgan.dist import World, sum_integers
from fastgan.errors import DistributedError, TrainingError
from fastgan.parallel import Engine
from fastgan.schedule import Agreed, Plan
from fastgan.train.pace import Pace
from fastgan.train.step_statistics import Statistics

MAX_SKIPPED_IN_A_ROW = 10
# What fits into 63 bits.
_DIGEST_DIGITS = 15


class _Vote(NamedTuple):
    """A vote that started in step `step`.

    numbers: [3] int64, the largest over all ranks once `work` has ended: the number of a signal, the digest of the
        plan, and its negative.
    """

    step: int
    numbers: Tensor
    work: torch_dist.Work


class Agreement:
    """Whether an update may be made, and whether a signal ends the run.

    On several ranks, an update is skipped by all of them when the loss or the gradient is not finite on any. That takes
    no vote: `contagious` brings a bad loss into the sum of the gradients, from which all ranks find the same. A single
    process does not look, which would make a GPU wait in every update: `FiniteGuard` stops it one step later.

    Args:
        world: the ranks that make updates together.
        everybody: the ranks that vote; None for `world`.
        signal: number of the signal that this process has received, 0 for none.
        may_skip: whether updates are skipped; None where `world` has several ranks.
    """

    def __init__(
        self,
        world: World,
        *,
        everybody: World | None = None,
        signal: Callable[[], int] = lambda: 0,
        may_skip: bool | None = None,
    ) -> None:
        self.world, self.everybody = world, everybody or world
        self.may_skip = world.num_ranks > 1 if may_skip is None else may_skip
        self.num_skipped = 0
        self._signal = signal
        self._agreed_signal = 0
        self._skipped_in_a_row = 0
        self._underway: deque[_Vote] = deque()

    def skipped(self) -> dict[str, float]:
        """The number of updates skipped since the start of this process, to log; empty where none can be."""
        return {"skipped_updates": float(self.num_skipped)} if self.may_skip else {}

    @property
    def signal(self) -> int:
        """Largest signal number that any rank had received at the latest vote that is due; 0 for none."""
        return self._signal() if self.everybody.num_ranks == 1 else self._agreed_signal

    def begin_step(self, plan: Plan) -> None:
        """Starts the vote of `plan`, and ends the one that is due; all ranks call it together.

        Raises:
            DistributedError: on all ranks, when they follow different plans.
        """
        if plan.whole.vote is not None:
            digest = int(plan.digest[:_DIGEST_DIGITS], 16)
            numbers = torch.tensor([self._signal(), digest, -digest])
            work = torch_dist.all_reduce(numbers, op=torch_dist.ReduceOp.MAX, group=self.everybody.group, async_op=True)
            assert work is not None
            self._underway.append(_Vote(plan.step, numbers, work))
        while self._underway and self._underway[0].step <= plan.step - plan.whole.vote_lag:
            vote = self._underway.popleft()
            vote.work.wait()
            self._agreed_signal, digest, negative = vote.numbers.tolist()
            if digest != -negative:
                remedy = "give all machines the same version of fastgan and the same checkpoint"
                raise DistributedError(f"rank {self.everybody.rank} and others plan different steps; {remedy}")

    def settle(self) -> None:
        """Waits for votes under way; they still count only when their time has come."""
        for vote in self._underway:
            vote.work.wait()

    def contagious(self, loss: Tensor) -> Tensor:
        """`loss`; where it is not finite, all of its gradient is not either, and with it the sum over all ranks."""
        return loss * (1 + 0 * loss.detach()) if self.may_skip else loss

    def agree(self, plan: Plan, statistics: Statistics, pace: Pace | None) -> Agreed:
        """What the schedule decides from after the step of `plan`; all ranks call it together.

        Args:
            statistics: of the step's updates.
            pace: of this rank; None where shares do not follow it.
        """
        batch_images = plan.num_images // max(1, plan.count("discriminator"))
        counts = statistics.count("sign_statistic", num_images=batch_images)
        mine = [0] * plan.num_ranks
        if pace is not None:
            mine[plan.rank] = pace.microseconds(plan)
        sign_sum, num_judged, *microseconds = sum_integers(self.world, [*counts, *mine])
        measured = tuple(microseconds) if pace is not None else ()
        return Agreed(sign_sum=sign_sum, num_judged=num_judged, rank_microseconds=measured)

    def may_step(self, *engines: Engine) -> bool:
        """Whether all ranks make the updates that `engines` have accumulated, all of them; they call it together.

        Raises:
            TrainingError: on all ranks, when too many updates in a row could not be made.
        """
        if not self.may_skip:
            return True
        # Every rank has the norm of the same sum.
        is_bad = not torch.stack([engine.gradient_norm() for engine in engines]).isfinite().all().item()
        self.num_skipped += is_bad
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if is_bad else 0
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{self._skipped_in_a_row} updates in a row had a loss or gradient that was not finite: training "
                "diverged; start again from an earlier checkpoint with lower optimizer.discriminator.learning_rate and "
                "optimizer.generator.learning_rate, or with a penalty such as r1"
            )
        return not is_bad
