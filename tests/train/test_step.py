"""One step of training against the same step written out by hand."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan import rng
from fastgan.data import Loader, open_dataset
from fastgan.dist import ALONE
from fastgan.objectives import adversarial_loss
from fastgan.parallel import SingleEngine
from fastgan.schedule import ScheduleState
from fastgan.train.agreement import Agreement
from fastgan.train.build import build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig
from fastgan.train.state import TrainState
from fastgan.train.step import TrainStep, frozen
from fastgan.train.step_choice import step_class


@pytest.fixture
def loader(tiny: Callable[..., RunConfig]) -> Iterator[Loader]:
    dataset = open_dataset("images", resolution=32, channels=1, on_warning=pytest.fail)
    with Loader(dataset, seed=0, mirror=False) as loader:
        yield loader


def sgd_state(config: RunConfig) -> TrainState:
    """A state in float64 with plain gradient descent: Adam would blow roundings up near zero gradients."""
    state = build_state(config, num_classes=0, dtype=torch.float64, device="cpu")
    for network in (state.generator, state.discriminator, state.generator_ema):
        network.double()
    for engine, rate in ((state.generator_engine, 0.05), (state.discriminator_engine, 0.02)):
        assert isinstance(engine, SingleEngine)
        engine.optimizer = torch.optim.SGD(engine.objective.parameters(), lr=rate)
    return state


def train(config: RunConfig, loader: Loader, *, num_steps: int) -> TrainState:
    state, schedule = sgd_state(config), build_schedule(config)
    step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    for _ in range(num_steps):
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)
    return state


def latents(first: int) -> Tensor:
    return torch.from_numpy(rng.normal(0, "latent", first, 8, 8))


def weights(state: TrainState) -> list[Tensor]:
    networks = (state.generator, state.discriminator, state.generator_ema)
    return [value.detach() for network in networks for value in network.state_dict().values()]


def test_three_steps_equal_the_usual_loop(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    """Relativistic loss with R1 at steps 0 and 2, written with nothing but torch and the two networks."""
    config = tiny("penalties=[{kind: r1, weight: 0.5, every: 2}]", "ema.half_life_images=16", "ema.rampup=null")
    hand = sgd_state(config)
    generator, discriminator, average = hand.generator, hand.discriminator, hand.generator_ema
    optimizers = [
        torch.optim.SGD(generator.parameters(), lr=0.05),
        torch.optim.SGD(discriminator.parameters(), lr=0.02),
    ]
    for number in range(3):
        real = loader.batch(8 * number, 8).images.requires_grad_()
        z = latents(8 * number)
        real_logits, fake_logits = discriminator(real), discriminator(generator(z).detach())
        loss = F.softplus(fake_logits - real_logits).mean()
        if number != 1:
            (slope,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            loss = loss + 0.5 * 2 * slope.square().sum(dim=(1, 2, 3)).mean()
        discriminator.zero_grad()
        loss.backward()
        optimizers[1].step()
        discriminator.step_spectral_norm()
        generator.zero_grad()
        F.softplus(discriminator(real) - discriminator(generator(z))).mean().backward()
        optimizers[0].step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), generator.parameters(), strict=True):
                old.lerp_(new, 1 - 0.5**0.5)
    torch.testing.assert_close(weights(train(config, loader, num_steps=3)), weights(hand), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share_fakes", [True, False])
@pytest.mark.parametrize("loss", ["relativistic", "hinge"])
def test_micro_batches_change_nothing(
    tiny: Callable[..., RunConfig], loader: Loader, share_fakes: bool, loss: str
) -> None:
    settings = [f"schedule.share_fakes={str(share_fakes).lower()}", f"objective.loss={loss}", "penalties.0.every=2"]
    whole = train(tiny(*settings), loader, num_steps=3)
    parts = train(tiny(*settings, "micro_batch_images=2"), loader, num_steps=3)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-6, atol=1e-9)


def test_new_fakes_differ_from_shared_ones(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    shared = train(tiny(), loader, num_steps=1)
    fresh = train(tiny("schedule.share_fakes=false"), loader, num_steps=1)
    assert torch.equal(
        shared.discriminator.state_dict()["hidden.0.weight"], fresh.discriminator.state_dict()["hidden.0.weight"]
    )
    assert not torch.equal(
        shared.generator.state_dict()["to_image.weight"], fresh.generator.state_dict()["to_image.weight"]
    )


def test_several_updates_per_step(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny("schedule.discriminator_updates=3", "schedule.generator_updates=2")
    state = train(config, loader, num_steps=2)
    assert (state.schedule.discriminator_updates, state.schedule.generator_updates) == (6, 4)
    assert state.images_seen == 2 * 3 * 8


def test_the_generator_update_leaves_no_trace_in_the_discriminator(
    tiny: Callable[..., RunConfig], loader: Loader
) -> None:
    config = tiny()
    state, schedule = sgd_state(config), build_schedule(config)
    step = TrainStep(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    plan = schedule.plan(state.schedule)
    step.run(replace(plan, updates=plan.updates[:1]))
    before = copy.deepcopy(state.discriminator.state_dict())
    step.run(replace(plan, updates=plan.updates[1:]))
    assert all(torch.equal(before[name], value) for name, value in state.discriminator.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in state.discriminator.parameters())


def test_frozen_thaws_after_an_error() -> None:
    network = torch.nn.Linear(2, 2)
    seen = []

    def fail_inside() -> None:
        with frozen(network):
            seen.append(network.weight.requires_grad)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert seen == [False]
    assert network.weight.requires_grad


def test_statistics_of_a_step(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny("micro_batch_images=4")
    state, schedule = sgd_state(config), build_schedule(config)
    step = TrainStep(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    values = step.run(schedule.plan(state.schedule)).read()
    assert set(values) == {
        "loss_discriminator",
        "loss_generator",
        "logits_real",
        "logits_fake",
        "sign_statistic",
        "penalty_r1",
    }
    assert -1 <= values["sign_statistic"] <= 1


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic", "hinge"])
def test_joint_steps_equal_simultaneous_descent(tiny: Callable[..., RunConfig], loader: Loader, loss: str) -> None:
    """Both gradients at the same weights, written with nothing but torch and the two networks; R1 and R2 in step 0."""
    penalties = "penalties=[{kind: r1, weight: 0.5, every: 2}, {kind: r2, weight: 0.3, every: 2}]"
    config = tiny(penalties, f"objective.loss={loss}", "schedule.policy=joint", "ema.half_life_images=16")
    hand, adversarial = sgd_state(config), adversarial_loss(loss)
    generator, discriminator = hand.generator, hand.discriminator
    for number in range(3):
        real = loader.batch(8 * number, 8).images.double().requires_grad_()
        fake = generator(latents(8 * number))
        judged = fake.detach().requires_grad_()
        real_logits, fake_logits = discriminator(real), discriminator(judged)
        loss_of_discriminator = adversarial.discriminator(real_logits, fake_logits)
        if number != 1:
            for weight, logits, images in ((0.5, real_logits, real), (0.3, fake_logits, judged)):
                (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
                square = slope.square().sum(dim=(1, 2, 3)).mean()
                loss_of_discriminator = loss_of_discriminator + 2 * weight * square
        ours = torch.autograd.grad(loss_of_discriminator, list(discriminator.parameters()), retain_graph=True)
        theirs = torch.autograd.grad(
            adversarial.generator(discriminator(fake), discriminator(real).detach()), list(generator.parameters())
        )
        with torch.no_grad():
            for parameters, gradients, rate in ((discriminator, ours, 0.02), (generator, theirs, 0.05)):
                for parameter, gradient in zip(parameters.parameters(), gradients, strict=True):
                    parameter.sub_(rate * gradient)
        discriminator.step_spectral_norm()
    joint = train(config, loader, num_steps=3)
    for network in ("generator", "discriminator"):
        found, expected = (list(getattr(state, network).parameters()) for state in (joint, hand))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_joint_step_judges_the_fakes_once(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    counts = {}
    for policy in ("alternate", "joint"):
        config = tiny(f"schedule.policy={policy}", "penalties=[]")
        state, schedule = sgd_state(config), build_schedule(config)
        judged: list[int] = []
        state.discriminator.register_forward_pre_hook(lambda _, inputs, judged=judged: judged.append(len(inputs[0])))
        step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
        step.run(schedule.plan(state.schedule))
        counts[policy] = sum(judged)
    # Real and fake images; then fakes again, and real ones for a relativistic loss.
    assert counts["joint"] == 16
    assert counts["alternate"] in (24, 32)


def test_joint_micro_batches_change_nothing(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    settings = ["schedule.policy=joint", "penalties=[{kind: r2, weight: 0.5}]"]
    whole, parts = (train(tiny(*settings, *more), loader, num_steps=3) for more in ([], ["micro_batch_images=2"]))
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_joint_step_with_one_bad_gradient_moves_neither_network(
    tiny: Callable[..., RunConfig], loader: Loader, network: str
) -> None:
    """Both losses stay finite, and so does the other network's gradient."""
    config = tiny("schedule.policy=joint")
    state, schedule, agreement = sgd_state(config), build_schedule(config), Agreement(ALONE, may_skip=True)
    step = step_class(schedule)(
        state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu", agreement=agreement
    )
    parameters = {
        "generator": list(state.generator.parameters()),
        "discriminator": list(state.discriminator.parameters()),
    }
    before = copy.deepcopy(parameters)
    hook = parameters[network][0].register_hook(lambda gradient: gradient * torch.inf)
    step.run(schedule.plan(state.schedule))
    assert agreement.num_skipped == 1
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)
    hook.remove()
    state.schedule = schedule.advance(state.schedule)
    step.run(schedule.plan(state.schedule))
    assert agreement.num_skipped == 1
    for name, mine in parameters.items():
        assert not torch.equal(mine[0], before[name][0])


def test_a_joint_step_is_not_made_one_network_after_the_other(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    config = tiny("schedule.policy=joint")
    step = TrainStep(sgd_state(config), loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    with pytest.raises(AssertionError, match="JointStep makes joint steps"):
        step.run(build_schedule(config).plan(ScheduleState()))


@pytest.mark.parametrize("kinds", [("r1",), ("r1", "r2"), ("wgan_gp",)])
def test_no_gradient_is_formed_for_the_images(tiny: Callable[..., RunConfig], kinds: tuple[str, ...]) -> None:
    """A penalty makes them require grad, and a convolution's gradient by its input costs as much as itself."""
    state, judged = sgd_state(tiny()), []
    state.discriminator.register_forward_pre_hook(lambda _, inputs: judged.append(inputs[0]))
    real, fake = torch.rand(2, 3, 1, 32, 32, dtype=torch.float64)
    engine = state.discriminator_engine
    output = engine(real, fake, penalties=dict.fromkeys(kinds, 1.0), interpolation=torch.full((3,), 0.5).double())
    engine.backward(output.loss, weight=Fraction(1, 2), is_last=True)
    assert any(images.requires_grad for images in judged)
    assert [images.grad for images in judged] == [None] * len(judged)
    assert all(parameter.grad is not None for parameter in state.discriminator.parameters())


def test_latents_are_drawn_once_and_kept_for_one_step(
    tiny: Callable[..., RunConfig], loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int]] = []
    ordinary = rng.normal
    monkeypatch.setattr(
        rng,
        "normal",
        lambda seed, stream, first, *rest: (drawn.append((stream, first)), ordinary(seed, stream, first, *rest))[1],
    )
    config = tiny("schedule.share_fakes=true")
    state, schedule = sgd_state(config), build_schedule(config)
    step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    for number in range(3):
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)
        assert drawn == [("latent", 8 * index) for index in range(number + 1)]
        assert len(step._drawn) == 1
        assert len(step._batches) == 1


def test_a_generator_that_changes_its_latents_is_given_them_as_they_were(
    tiny: Callable[..., RunConfig], loader: Loader
) -> None:
    config = tiny("schedule.share_fakes=true", "micro_batch_images=4")
    state, schedule = sgd_state(config), build_schedule(config)
    seen: list[Tensor] = []

    def double(module: object, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].clone())
        inputs[0].mul_(2)

    state.generator.register_forward_pre_hook(double)
    step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    step.run(schedule.plan(state.schedule))
    # Two micro-batches of the discriminator's update, then the same of the generator's.
    assert len(seen) == 4
    assert torch.equal(torch.cat(seen[:2]), torch.cat(seen[2:]))


@pytest.mark.parametrize(("kind", "num_drawn"), [("r1", 0), ("wgan_gp", 2)])
def test_where_to_look_between_images_is_drawn_where_a_penalty_looks_there(
    tiny: Callable[..., RunConfig], loader: Loader, monkeypatch: pytest.MonkeyPatch, kind: str, num_drawn: int
) -> None:
    streams: list[str] = []
    ordinary = rng.uniform
    monkeypatch.setattr(
        rng, "uniform", lambda seed, stream, *rest: (streams.append(stream), ordinary(seed, stream, *rest))[1]
    )
    config = tiny(f"penalties=[{{kind: {kind}, weight: 0.5, every: 2}}]")
    state, schedule = build_state(config, num_classes=0, dtype=torch.float32, device="cpu"), build_schedule(config)
    step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    for _ in range(4):
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)
    assert streams.count("interpolation") == num_drawn


def test_a_parameter_that_is_frozen_stays_as_it_is(tiny: Callable[..., RunConfig], loader: Loader) -> None:
    # A relativistic loss does not see the last layer's bias.
    config = tiny("objective.loss=non_saturating")
    state, schedule = sgd_state(config), build_schedule(config)
    frozen_one = next(iter(state.discriminator.parameters())).requires_grad_(False)
    before = [parameter.clone() for parameter in state.discriminator.parameters()]
    step = step_class(schedule)(state, loader=loader, seed=0, latent_dim=8, ema=config.ema, device="cpu")
    step.run(schedule.plan(state.schedule))
    for parameter, old in zip(state.discriminator.parameters(), before, strict=True):
        assert torch.equal(parameter, old) is (parameter is frozen_one)
