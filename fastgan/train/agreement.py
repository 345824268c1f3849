"""What all ranks decide together, each time from integers that all of them have reduced.

A rank that left a step out, or stopped, on its own would leave the others waiting for it for ever.
"""

from collections.abc import Callable

from fastgan.dist import World, max_integers, sum_integers
from fastgan.errors import TrainingError
from fastgan.parallel import Engine
from fastgan.schedule import Agreed, Plan
from fastgan.train.pace import Pace
from fastgan.train.step_statistics import Statistics

MAX_SKIPPED_IN_A_ROW = 10


class Agreement:
    """Whether an update may be made, and whether a signal ends the run.

    On several ranks, an update is skipped by all of them when the loss or the gradient is not finite on any. A single
    process does not ask, which would make a GPU wait in every update: `FiniteGuard` stops it one step later.

    Args:
        world: the ranks that decide.
        signal: number of the signal that this process has received, 0 for none.
    """

    def __init__(self, world: World, *, signal: Callable[[], int] = lambda: 0) -> None:
        self.world = world
        self.num_skipped = 0
        self._signal = signal
        self._agreed_signal = 0
        self._skipped_in_a_row = 0

    def skipped(self) -> dict[str, float]:
        """The number of updates skipped since the start of this process, to log; empty where none can be."""
        return {"skipped_updates": float(self.num_skipped)} if self.world.num_ranks > 1 else {}

    @property
    def signal(self) -> int:
        """Largest signal number that any rank had received at the latest update; 0 for none."""
        return self._signal() if self.world.num_ranks == 1 else self._agreed_signal

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

    def may_step(self, parts: Statistics, *engines: Engine) -> bool:
        """Whether all ranks make the updates that `engines` have accumulated, all of them; they call it together.

        Args:
            parts: losses and what else this rank's part of the updates reports.
        Raises:
            TrainingError: on all ranks, when too many updates in a row could not be made.
        """
        if self.world.num_ranks == 1:
            return True
        norms = [engine.gradient_norm() for engine in engines]
        is_bad = not bool(sum(norms, parts.total()).isfinite().item())
        any_bad, self._agreed_signal = max_integers(self.world, [is_bad, self._signal()])
        self.num_skipped += any_bad
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if any_bad else 0
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{self._skipped_in_a_row} updates in a row had a loss or gradient that was not finite: training "
                "diverged; start again from an earlier checkpoint with lower optimizer.discriminator.learning_rate and "
                "optimizer.generator.learning_rate, or with a penalty such as r1"
            )
        return not any_bad
