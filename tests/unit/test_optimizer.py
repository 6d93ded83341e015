"""Update rules and schedules: torch's, with the learning rates that the configuration says."""

import io
import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn, optim

from greedypipe.pipeline.optimization import Optimization
from greedypipe.pipeline.optimizer import (
    OPTIMIZER_FAMILY,
    AdamConfig,
    OptimizerConfig,
    SgdConfig,
    build_optimizer,
    build_schedule,
)

pytestmark = pytest.mark.filterwarnings("error")

STEPS_PER_EPOCH = 3
TOTAL_STEPS = 12


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,))]


def gradient(step: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(step))


def take_step(optimizer: optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = gradient(step, parameter)
    optimizer.step()


def lr_sequence(config: OptimizerConfig, total_steps: int = TOTAL_STEPS) -> list[float]:
    """The learning rate of every step, and the one after the last."""
    optimizer = build_optimizer(config, parameters())
    schedule = build_schedule(config, optimizer, STEPS_PER_EPOCH, total_steps)
    rates = []
    for step in range(total_steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        take_step(optimizer, step)
        schedule.step()
    return rates


def cosine(steps: int) -> list[float]:
    return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps + 1)]


RULES = [
    (SgdConfig(lr=0.1, momentum=0.0, weight_decay=0.0), optim.SGD, {"lr": 0.1}),
    (
        SgdConfig(lr=0.2, momentum=0.8, weight_decay=1e-2),
        optim.SGD,
        {"lr": 0.2, "momentum": 0.8, "weight_decay": 1e-2},
    ),
    (SgdConfig(nesterov=True), optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}),
    (AdamConfig(name="adam", lr=0.01), optim.Adam, {"lr": 0.01, "weight_decay": 5e-4}),
    (AdamConfig(name="adam", weight_decay=0.1), optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (AdamConfig(name="adamw", lr=0.01, weight_decay=0.1), optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("config", "rule", "options"), RULES)
def test_every_rule_is_torchs(config: OptimizerConfig, rule: type[optim.Optimizer], options: dict[str, object]) -> None:
    mine, fused, plain = parameters(), parameters(), parameters()
    ours, torchs, unfused = build_optimizer(config, mine), rule(fused, **options, fused=True), rule(plain, **options)
    for step in range(5):
        for optimizer in (ours, torchs, unfused):
            take_step(optimizer, step)
    for index, start in enumerate(parameters()):
        assert torch.equal(mine[index], fused[index])
        assert torch.allclose(mine[index], plain[index], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(mine[index], start, atol=1e-3)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_its_formula_and_keeps_its_momentum_when_the_rate_falls(nesterov: bool) -> None:
    config = SgdConfig(lr=0.5, momentum=0.9, weight_decay=0.01, nesterov=nesterov, schedule="step", step_epochs=1, gamma=0.1)
    (weight,) = trained = [nn.Parameter(parameters()[0].detach().clone())]
    optimizer = build_optimizer(config, trained)
    schedule = build_schedule(config, optimizer, STEPS_PER_EPOCH, TOTAL_STEPS)
    expected, velocity = weight.detach().double(), torch.zeros(4, 3, dtype=torch.float64)
    for step in range(3 * STEPS_PER_EPOCH):
        slope = gradient(step, weight).double() + 0.01 * expected
        velocity = 0.9 * velocity + slope
        lr = 0.5 * 0.1 ** (step // STEPS_PER_EPOCH)
        expected = expected - lr * (slope + 0.9 * velocity if nesterov else velocity)
        take_step(optimizer, step)
        schedule.step()
    assert torch.allclose(weight.double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_rules_run_as_one_kernel(name: str) -> None:
    assert build_optimizer(OPTIMIZER_FAMILY.choose({"name": name}), parameters()).param_groups[0]["fused"] is True


def test_constant_is_constant() -> None:
    assert lr_sequence(SgdConfig(lr=0.3)) == [0.3] * 13


def test_step_decays_every_so_many_epochs() -> None:
    config = SgdConfig(lr=1.0, schedule="step", step_epochs=2, gamma=0.5)
    assert lr_sequence(config) == pytest.approx([1.0] * 6 + [0.5] * 6 + [0.25])


def test_multistep_decays_after_its_milestones() -> None:
    config = SgdConfig(lr=1.0, schedule="multistep", milestones=(1, 3), gamma=0.1)
    assert lr_sequence(config) == pytest.approx([1.0] * 3 + [0.1] * 6 + [0.01] * 4)


def test_the_published_schedules_divide_by_5() -> None:
    assert lr_sequence(SgdConfig(lr=1.0, schedule="step", step_epochs=1))[3] == pytest.approx(0.2)


def test_cosine_falls_to_0_over_the_run() -> None:
    assert lr_sequence(SgdConfig(lr=0.8, schedule="cosine")) == pytest.approx(
        [0.8 * factor for factor in cosine(12)], abs=1e-7
    )


def test_cosine_with_warm_up_rises_linearly_and_still_ends_at_0() -> None:
    rates = lr_sequence(SgdConfig(lr=0.8, schedule="cosine", warmup_steps=4))
    assert rates[:4] == pytest.approx([0.8 * (0.01 + 0.99 * step / 4) for step in range(4)])
    assert rates[4:] == pytest.approx([0.8 * factor for factor in cosine(8)], abs=1e-7)


def test_one_cycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD(parameters(), 1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, TOTAL_STEPS, pct_start=0.4, cycle_momentum=False)
    expected = []
    for _ in range(TOTAL_STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < TOTAL_STEPS:
            torchs.step()
    rates = lr_sequence(SgdConfig(lr=0.5, schedule="one_cycle", peak=0.4))
    assert rates[:TOTAL_STEPS] == pytest.approx(expected)


def test_warm_up_in_epochs_is_that_in_as_many_steps() -> None:
    in_epochs, in_steps = SgdConfig(lr=1.0, warmup_epochs=1.5), SgdConfig(lr=1.0, warmup_steps=round(1.5 * STEPS_PER_EPOCH))
    assert lr_sequence(in_epochs) == lr_sequence(in_steps) != lr_sequence(SgdConfig(lr=1.0))
    with pytest.raises(ValidationError, match="got 1 with warmup_steps=2, allowed: one of the two"):
        SgdConfig(warmup_steps=2, warmup_epochs=1)


def test_warm_up_rises_to_a_constant() -> None:
    rates = lr_sequence(SgdConfig(lr=1.0, warmup_steps=3))
    assert rates == pytest.approx([0.01, 0.34, 0.67, *[1.0] * 10])


@pytest.mark.parametrize(
    "keys", [{"schedule": "step", "step_epochs": 2}, {"schedule": "multistep", "milestones": (2, 3)}], ids=["step", "multi"]
)
def test_warm_up_does_not_move_the_decays(keys: dict[str, object]) -> None:
    """Epochs are counted from the start of the run, as `milestones` and `step_epochs` say."""
    plain = lr_sequence(SgdConfig(lr=1.0, **keys))
    warmed_up = lr_sequence(SgdConfig(lr=1.0, warmup_steps=2, **keys))
    assert warmed_up[2:] == pytest.approx(plain[2:])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_longer_than_the_run_only_rises(schedule: str) -> None:
    rates = lr_sequence(SgdConfig(lr=1.0, schedule=schedule, warmup_steps=20))
    assert all(left < right for left, right in pairwise(rates))


@pytest.mark.parametrize("warmup_steps", [0, 2])
@pytest.mark.parametrize("schedule", ["constant", "step", "multistep", "cosine", "one_cycle"])
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_schedule_goes_on_where_it_was_saved(schedule: str, warmup_steps: int, stop_at: int) -> None:
    keys = {"step": {"step_epochs": 1}, "multistep": {"milestones": (1, 3)}}.get(schedule, {})
    config = SgdConfig(lr=1.0, schedule=schedule, warmup_steps=warmup_steps, **keys)
    optimizer = build_optimizer(config, parameters())
    planned = build_schedule(config, optimizer, STEPS_PER_EPOCH, TOTAL_STEPS)
    for step in range(stop_at):
        take_step(optimizer, step)
        planned.step()
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), planned.state_dict()), file)
    file.seek(0)
    saved_optimizer, saved_schedule = torch.load(file, weights_only=True)

    other = build_optimizer(config, parameters())
    resumed = build_schedule(config, other, STEPS_PER_EPOCH, TOTAL_STEPS)
    other.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved_schedule)
    rates = []
    for step in range(stop_at, TOTAL_STEPS):
        rates.append(other.param_groups[0]["lr"])
        take_step(other, step)
        resumed.step()
    assert rates == lr_sequence(config)[stop_at:TOTAL_STEPS]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "lion"),
        ("lr", 0.0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("clip_norm", -1.0),
        ("schedule", "linear"),
        ("schedule", "multistep"),
        ("step_epochs", 0),
        ("step_epochs", 2),
        ("milestones", (2,)),
        ("gamma", 0.0),
        ("gamma", 1.5),
        ("gamma", 0.5),
        ("warmup_steps", -1),
        ("epochs", 3),
    ],
)
def test_impossible_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        OPTIMIZER_FAMILY.choose({key: value})


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"needs optimizer\.momentum above 0"):
        SgdConfig(nesterov=True, momentum=0.0)


class Signed(optim.Optimizer):
    """Steps of the gradient's sign."""

    def __init__(self, params, lr, scale=1.0):
        if scale <= 0:
            raise ValueError(f"scale must be positive,\ngot {scale}")
        super().__init__(params, {"lr": lr, "scale": scale})

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data -= group["lr"] * group["scale"] * parameter.grad.sign()


def not_an_optimizer(params, lr):
    return list(params)


def test_a_users_own_optimizer_gets_parameters_rate_and_options() -> None:
    config = OPTIMIZER_FAMILY.choose({"name": f"{__name__}:Signed", "lr": 0.5, "options": {"scale": 2.0}})
    trained = parameters()
    optimizer = build_optimizer(config, trained)
    take_step(optimizer, 0)
    for parameter, before in zip(trained, parameters(), strict=True):
        assert torch.equal(parameter, before - gradient(0, before).sign())


def test_torchs_other_optimizers_are_chosen_by_their_path_and_follow_the_schedule() -> None:
    config = OPTIMIZER_FAMILY.choose(
        {"name": "torch.optim:RAdam", "lr": 1.0, "schedule": "cosine", "options": {"eps": 1e-6}}
    )
    assert lr_sequence(config) == pytest.approx(cosine(12), abs=1e-7)


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ({"name": "Signed", "options": {"scael": 2}}, "options.scael", "did you mean scale"),
        ({"name": "Signed", "options": {"lr": 2}}, "options.lr", "from the run itself"),
        ({"name": "Signed", "options": {"scale": -1}}, "options", "Signed: ValueError: scale must be positive, got -1 "),
        ({"name": "not_an_optimizer"}, "name", r"must be a torch.optim.Optimizer, got list"),
        ({"name": "Signed", "weight_decay": 0.1}, "weight_decay", "not permitted"),
        ({"name": "Singed"}, "name", "did you mean 'Signed'"),
    ],
)
def test_a_users_own_optimizer_that_cannot_be_built_is_refused_at_the_key(keys: dict, place: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        OPTIMIZER_FAMILY.choose({**keys, "name": f"{__name__}:{keys['name']}"})
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [place]


def test_a_schedule_that_goes_on_longer_is_right_at_its_first_step() -> None:
    config = OPTIMIZER_FAMILY.choose({"lr": 0.1, "schedule": "cosine"})
    short, longer, expected = (Optimization(config, [nn.Parameter(torch.zeros(1))], 4, total) for total in (8, 16, 16))
    for one in (short, expected):
        for _ in range(6):
            for parameter in one.parameters:
                parameter.grad = torch.ones(1)
            one.advance()
    longer.load_state_dict(short.state_dict())
    assert longer.learning_rate == expected.learning_rate != short.learning_rate
