"""The step of the policy `joint`: one pass through both networks serves both of their updates."""

from functools import partial

from fastgan.schedule import Plan
from fastgan.train.step import TrainStep
from fastgan.train.step_statistics import Statistics


class JointStep(TrainStep):
    """Simultaneous descent: the gradient of each network is taken at the weights that both have before the step.

    The discriminator judges the fakes once. From the same logits come its own loss and the gradient of the generator's
    loss by the images, with which the backward pass goes on through the generator.
    """

    def run(self, plan: Plan) -> Statistics:
        """Makes both updates of the plan, or the one that there is before the other network's start."""
        if not plan.whole.is_joint:
            return super().run(plan)
        state, update = self.state, plan.updates[0]
        engine, maker = state.discriminator_engine, state.generator_engine
        self._begin(plan)
        parts = Statistics()
        for micro in update.micro_batches:
            inputs, is_last = self._inputs(micro), micro is update.micro_batches[-1]
            fake = self._make_fake(inputs, parts, keep_graph=maker.keeps_graph)
            with self.trace.span("discriminator: forward"):
                output = engine(
                    inputs.real,
                    fake,
                    inputs.labels,
                    is_last=is_last,
                    penalties={penalty.kind: penalty.weight for penalty in update.penalties},
                    interpolation=self._interpolation(micro, update.penalties),
                    noise=partial(self._noise, micro, inputs.real.shape),
                    for_generator=True,
                )
            parts.add(output.statistics, weight=float(micro.weight))
            with self.trace.span("discriminator: backward"):
                engine.backward(self.agreement.contagious(output.loss), weight=micro.weight, is_last=is_last)
            given = {"fake": fake if maker.keeps_graph else None, "fake_gradient": output.fake_gradient}
            with self.trace.span("generator: backward"):
                made = maker(inputs.latents, inputs.labels, is_last=is_last, **given)
                maker.backward(self.agreement.contagious(made.loss), weight=micro.weight, is_last=is_last)
        return self._step_both(parts, plan)

    def _step_both(self, parts: Statistics, plan: Plan) -> Statistics:
        """The optimizer steps of both networks, or of neither. Returns what the updates report."""
        state, statistics = self.state, Statistics()
        engines = state.discriminator_engine, state.generator_engine
        if self.agreement.may_step(*engines):
            statistics.merge(parts)
            for engine in engines:
                engine.step()
        else:
            for engine in engines:
                engine.discard()
        for network, engine in zip((state.discriminator, state.generator), engines, strict=True):
            self._step_spectral_norm(network, engine)
        self._update_average(plan)
        return statistics
