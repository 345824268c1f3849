"""One step of training: the only place that calls `backward`.

Shape legend: N samples of a micro-batch, Z latent size, C channels, H W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastgan import rng
from fastgan.data import Batch, Loader
from fastgan.dist import ALONE
from fastgan.nn import SpectrallyNormalized
from fastgan.objectives import PENALTIES, MakeImages
from fastgan.parallel import Engine
from fastgan.schedule import DuePenalty, MicroBatch, Network, Plan, Update
from fastgan.train.agreement import Agreement
from fastgan.train.config import FIRST_DISCRIMINATOR, EmaConfig
from fastgan.train.ema import ema_decay, update_ema
from fastgan.train.state import TrainState
from fastgan.train.step_statistics import Statistics
from fastgan.train.trace import NoTrace, Trace


class Inputs(NamedTuple):
    """What one micro-batch feeds to the networks.

    real: [N, C, H, W] float32 in [-1, 1]. labels: [N] int64 or None, of real and fake samples alike.
    latents: [N, Z] float32.
    """

    real: Tensor
    labels: Tensor | None
    latents: Tensor


class LatentsAlone(NamedTuple):
    """What one micro-batch feeds to a generator's update that reads neither real images nor labels."""

    latents: Tensor
    real: None = None
    labels: None = None


class Complete(Protocol):
    """The end of an update: agreement, optimizer step, and what follows it."""

    def __call__(self, *, into: Statistics) -> None:
        """Makes it; `into` gets what the update reports."""
        ...


class Pending(NamedTuple):
    """An update of `network` that has its gradients and lacks its optimizer step."""

    network: Network
    complete: Complete


class TrainStep:
    """Executes plans on a state: draws the inputs, runs the engines, follows with EMA and spectral norm.

    With `overlap`, an optimizer step waits until its network is needed, so that gradients travel in the meantime: the
    discriminator's while the generator makes images, the generator's while the discriminator judges real images. The
    computation is the same, in another order. Without it nothing is pending from one update to the next.

    Args:
        state: changed in place.
        loader: gives real samples by number.
        seed: of latents and interpolation weights.
        latent_dim: Z.
        ema: of the generator.
        device: of the networks.
        agreement: of the ranks on which updates are made.
        overlap: whether the engines were built for it.
        trace: is told what runs.
        num_drawn: discriminators drawn for each generator update; None: it is made against all.
        generator_reads_batch: whether generator updates read real images or their labels, which are loaded for them.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        loader: Loader,
        seed: int,
        latent_dim: int,
        ema: EmaConfig,
        device: torch.device | str,
        agreement: Agreement | None = None,
        overlap: bool = False,
        trace: Trace | NoTrace | None = None,
        num_drawn: int | None = None,
        generator_reads_batch: bool = True,
    ) -> None:
        self.state = state
        self.loader = loader
        self.seed = seed
        self.latent_dim = latent_dim
        self.ema = ema
        self.device = torch.device(device)
        self.agreement = agreement or Agreement(ALONE)
        self.overlap = overlap
        self.trace = trace or NoTrace()
        self.num_drawn = num_drawn
        self.generator_reads_batch = generator_reads_batch
        self._pending: Pending | None = None
        # Real samples of the latest discriminator update, which the generator's update may need once more.
        self._batches: dict[tuple[int, int], Batch] = {}
        # Latents of this step, which both updates read where they share the fakes.
        self._drawn: dict[tuple[int, int], NDArray[np.float32]] = {}

    def run(self, plan: Plan) -> Statistics:
        """Makes the plan's updates in order. The caller advances `state.schedule`.

        With overlap the last update still lacks its optimizer step, which the next call or `finish` makes.

        Returns:
            Statistics of the updates that were finished.
        """
        assert not plan.whole.is_joint, "JointStep makes joint steps; `step_class` chooses"
        self._begin(plan)
        statistics = Statistics()
        # A generator forward whose images serve both networks; only kept from one update to the next.
        shared: Tensor | None = None
        for update in plan.updates:
            if update.network == "discriminator":
                shared = self._update_discriminator(update, statistics)
            else:
                self._update_generator(update, statistics, shared=shared, plan=plan)
                shared = None
            if not self.overlap:
                self.finish(statistics)
        return statistics

    def _begin(self, plan: Plan) -> None:
        """What comes before the updates."""
        self._batches.clear()
        self._drawn.clear()
        self.agreement.begin_step(plan)

    def meet(self, statistics: Statistics) -> None:
        """Brings the state to what it is after the latest step, with nothing under way; all ranks call it together."""
        self.finish(statistics)
        self.agreement.settle()

    def finish(self, statistics: Statistics) -> None:
        """Makes the optimizer step that is still to come, if there is one, and adds what its update reports."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self.trace.span(f"{pending.network}: optimizer step"):
                pending.complete(into=statistics)

    def _update_discriminator(self, update: Update, statistics: Statistics) -> Tensor | None:
        """Gradients of all discriminators. Returns images with their graph if the generator can use them."""
        # With several micro-batches the graphs would stay in memory all at once, which is what they are to avoid:
        # the generator's update then makes the same images again.
        keep_graph = update.shared_fakes and len(update.micro_batches) == 1 and self.state.generator_engine.keeps_graph
        self._batches.clear()
        parts = {name: Statistics() for name in (FIRST_DISCRIMINATOR, *self.state.members)}
        for micro in update.micro_batches:
            inputs, is_last = self._inputs(micro), micro is update.micro_batches[-1]
            make_fake = cache(partial(self._make_fake, inputs, statistics, keep_graph=keep_graph))
            if self._is_pending("discriminator"):
                make_fake()  # while the gradients of the update before travel
                self.finish(statistics)
            # With overlap the generator's gradients travel while real images are judged; then come the fakes.
            fake = make_fake if self.overlap else make_fake()
            for name, statistics_of_it in parts.items():
                output = self._judge(name, update, micro, inputs, fake=fake, is_last=is_last)
                statistics_of_it.add(output, weight=float(micro.weight))
        self._pending = Pending("discriminator", partial(self._step_discriminators, list(parts.values())))
        return make_fake() if keep_graph else None

    def _judge(
        self, name: str, update: Update, micro: MicroBatch, inputs: Inputs, *, fake: Tensor | MakeImages, is_last: bool
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one discriminator on one micro-batch. Returns what it reports."""
        engine, penalties, suffix = self.state.discriminator_engine, update.penalties, ""
        if name != FIRST_DISCRIMINATOR:
            member = self.state.members[name]
            due = (penalty.due for penalty in member.penalties if penalty.is_due(update.version - 1))
            engine, penalties, suffix = member.engine, tuple(due), f"/{name}"
        with self.trace.span(f"discriminator{suffix}: forward"):
            output = engine(
                inputs.real,
                fake,
                inputs.labels,
                is_last=is_last,
                penalties={penalty.kind: penalty.weight for penalty in penalties},
                interpolation=self._interpolation(micro, penalties),
                noise=partial(self._noise, micro, inputs.real.shape),
            )
        with self.trace.span(f"discriminator{suffix}: backward"):
            engine.backward(self.agreement.contagious(output.loss), weight=micro.weight, is_last=is_last)
        return {f"{key}{suffix}": value for key, value in output.statistics.items()}

    def _step_discriminators(self, parts: Sequence[Statistics], *, into: Statistics) -> None:
        """The optimizer step of each discriminator; one that cannot be made does not keep the others from theirs."""
        for (network, engine), reported in zip(self.state.discriminators.values(), parts, strict=True):
            self._step(engine, network, reported, into=into)

    def _make_fake(self, inputs: Inputs | LatentsAlone, statistics: Statistics, *, keep_graph: bool) -> Tensor:
        """[N, C, H, W] from the generator as it is after all of its updates."""
        if self._is_pending("generator"):
            self.finish(statistics)
        generator, engine = self.state.generator, self.state.generator_engine
        with self.trace.span("generator: images"), torch.set_grad_enabled(keep_graph), engine.gathered():
            images: Tensor = generator(inputs.latents, inputs.labels)
        return images

    def _update_generator(self, update: Update, statistics: Statistics, *, shared: Tensor | None, plan: Plan) -> None:
        """Gradients of the generator, through frozen discriminators.

        In an update that is not adversarial its objective gets `adversarial=False`, and must have a loss of its own.
        """
        state, engine = self.state, self.state.generator_engine
        fake = shared
        if fake is None and self._is_pending("discriminator") and engine.keeps_graph:
            # The first images, while the discriminator's gradients travel.
            fake = self._make_fake(self._generator_inputs(update.micro_batches[0]), statistics, keep_graph=True)
        self.finish(statistics)
        parts = Statistics()
        given: dict[str, object] = {} if self.num_drawn is None else {"drawn": self._draw(update, num=self.num_drawn)}
        if not update.adversarial:
            given["adversarial"] = False
        with ExitStack() as stack:
            for network, judge in state.discriminators.values():
                stack.enter_context(judge.gathered())
                stack.enter_context(frozen(network))
            for micro in update.micro_batches:
                inputs, is_last = self._generator_inputs(micro), micro is update.micro_batches[-1]
                with self.trace.span("generator: forward"):
                    output = engine(
                        inputs.latents, inputs.labels, is_last=is_last, real=inputs.real, fake=fake, **given
                    )
                with self.trace.span("generator: backward"):
                    engine.backward(self.agreement.contagious(output.loss), weight=micro.weight, is_last=is_last)
                parts.add(output.statistics, weight=float(micro.weight))
                fake = None
        self._pending = Pending("generator", partial(self._step_generator, parts, plan))

    def _step_generator(self, parts: Statistics, plan: Plan, *, into: Statistics) -> None:
        """The generator's optimizer step, then one of its average."""
        self._step(self.state.generator_engine, self.state.generator, parts, into=into)
        self._update_average(plan)

    def _update_average(self, plan: Plan) -> None:
        """Moves the generator's average by one update."""
        state = self.state
        decay = ema_decay(
            half_life_images=self.ema.half_life_images,
            rampup=self.ema.rampup,
            images_seen=plan.state.images_seen,
            # A step's images, spread over its generator updates, whatever their number.
            num_images=plan.num_images / plan.count("generator"),
        )
        with state.generator_engine.gathered():
            update_ema(state.generator_ema, state.generator, decay=decay)

    def _is_pending(self, network: Network) -> bool:
        """Whether an update of `network` has its gradients, perhaps still travelling, and lacks its optimizer step."""
        return self._pending is not None and self._pending.network == network

    def _step(self, engine: Engine, network: SpectrallyNormalized, parts: Statistics, *, into: Statistics) -> None:
        """One optimizer step, if all ranks can make it; else the update's gradient and statistics are dropped."""
        if self.agreement.may_step(engine):
            engine.step()
            into.merge(parts)
        else:
            engine.discard()
        self._step_spectral_norm(network, engine)

    def _step_spectral_norm(self, network: SpectrallyNormalized, engine: Engine) -> None:
        """One power iteration, once per optimizer step."""
        if network.spectral_norm is not None:
            with engine.gathered():
                network.step_spectral_norm()

    def _draw(self, update: Update, *, num: int) -> list[str]:
        """Names of the discriminators that a generator update is made against, the same on all ranks."""
        names = [FIRST_DISCRIMINATOR, *self.state.members]
        return [names[index] for index in rng.permutation(self.seed, "ensemble", update.version, len(names))[:num]]

    def _inputs(self, micro: MicroBatch) -> Inputs:
        key = (micro.first_sample, micro.num_samples)
        if key not in self._batches:
            self._batches[key] = self.loader.batch(*key)
        batch = self._batches[key]
        return Inputs(batch.images, batch.labels, self._latents(micro))

    def _generator_inputs(self, micro: MicroBatch) -> Inputs | LatentsAlone:
        """As `_inputs`, without loading what the generator's update does not read."""
        return self._inputs(micro) if self.generator_reads_batch else LatentsAlone(self._latents(micro))

    def _latents(self, micro: MicroBatch) -> Tensor:
        key = (micro.first_latent, micro.num_samples)
        if key not in self._drawn:
            self._drawn[key] = rng.normal(self.seed, "latent", *key, self.latent_dim)
        # A copy: a generator may change what it is given.
        return torch.from_numpy(self._drawn[key].copy()).to(self.device)

    def prefetch(self, plan: Plan) -> None:
        """Starts to decode the samples of `plan`, the step after the one that is about to run."""
        readers = [u for u in plan.updates if u.network == "discriminator" or self.generator_reads_batch]
        for first_sample, num_samples in dict.fromkeys(
            (micro.first_sample, micro.num_samples) for update in readers for micro in update.micro_batches
        ):
            self.loader.prefetch(first_sample, num_samples)

    def _interpolation(self, micro: MicroBatch, penalties: Iterable[DuePenalty]) -> Tensor | None:
        """[N] in [0, 1): where between real and fake a penalty looks; None if none does."""
        if not any(PENALTIES[penalty.kind].is_between for penalty in penalties):
            return None
        weights = rng.uniform(self.seed, "interpolation", micro.first_sample, micro.num_samples, 1)
        return torch.from_numpy(weights[:, 0]).to(self.device)

    def _noise(self, micro: MicroBatch, shape: torch.Size) -> Tensor:
        """[N, C, H, W], standard normal: the directions in which a penalty's estimate looks."""
        numbers = rng.normal(self.seed, "penalty", micro.first_sample, micro.num_samples, shape[1:].numel())
        return torch.from_numpy(numbers).to(self.device).view(shape)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradient reaches the network's parameters; gradients still flow through it to its input."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
