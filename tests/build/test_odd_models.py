"""What torch refuses in its first step of an odd parameter, or of a number that its dtype does not hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.fuzzed_models import LightningTree


def one_parameter(tensor: torch.Tensor, **options: Any) -> nn.Module:
    model = nn.Linear(2, 2)
    model.extra = nn.Parameter(tensor, **options)
    return model


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ({"name": "lbfgs"}, one_parameter(torch.ones(2, dtype=torch.int64), requires_grad=False), "name: .*extra is"),
        ({"name": "adafactor"}, one_parameter(torch.zeros(0, 3)), r"name: adafactor divides .*extra has .*\[0, 3\]"),
        ({"name": "sparse_adam"}, one_parameter(torch.ones(2, dtype=torch.complex64)), "name: sparse_adam does not"),
        ({"name": "adam", "fused": True}, one_parameter(torch.ones(2, dtype=torch.complex64)), "fused: .*extra is one"),
        ({"name": "adamw", "lr": 1e300}, nn.Linear(2, 2), r"lr: got 1e\+300, which is more than 3.4"),
        ({"name": "sgd", "lr": 1e30, "weight_decay": 1e30}, nn.Linear(2, 2), "weight_decay: .* times the lr"),
        ({"name": "sgd", "lr": 1e5}, nn.Linear(2, 2).half(), "lr: .*largest number of torch.float16"),
        (
            {"name": "sgd", "groups": {"a": {"params": "bias", "lr": 1e39}}},
            nn.Linear(2, 2),
            "groups.a.lr: got 1e[+]39, which",
        ),
    ],
    ids=["lbfgs", "adafactor", "complex", "fused", "lr", "product", "float16", "rule"],
)
def test_what_torch_refuses_in_its_first_step_is_refused_when_built(
    config: dict[str, Any], model: nn.Module, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        OptimizerFactory(**config)(model)


def test_a_quotient_that_no_float_holds_is_named() -> None:
    model = nn.Linear(2, 2)
    optimizer = OptimizerFactory("adabound", gamma=1e-45)(model)
    model.weight.grad = torch.ones(2, 2)
    with pytest.raises(ConfigError, match="^gamma: the step of param group 'default'"):
        optimizer.step()


def test_a_sparse_gradient_is_refused_before_torch_steps() -> None:
    model = nn.Sequential(nn.Embedding(3, 2, sparse=True), nn.Linear(2, 2))
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match="^0.weight: its gradient is sparse, which torch's RMSprop"):
        OptimizerFactory("rmsprop")(model).step()
    OptimizerFactory("sgd")(model).step()


def late_gradient(**config: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer = OptimizerFactory("sgd", lr=0.1, momentum=0.9, **config)(model)
    for step in range(4):
        model.weight.grad = torch.full((2, 2), 0.5 + step)
        model.bias.grad = torch.full((2,), 0.5) if step > 1 else None
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_fused_sgd_takes_a_parameter_whose_gradient_comes_late() -> None:
    for fused, loop in zip(late_gradient(fused=True), late_gradient(fused=False), strict=True):
        torch.testing.assert_close(fused, loop, rtol=1e-6, atol=0)  # the kernel rounds in another order
    with pytest.raises(ConfigError, match="^fused: .*Type fused: false"):
        late_gradient(fused=True, dampening=0.5)


def test_parameters_without_a_shape_or_an_iterator_are_refused() -> None:
    import numpy as np

    for params, message in [
        (list(nn.LazyLinear(2).parameters()), "2 parameters have no shape"),
        (np.array(0.5), "got a ndarray whose items"),
    ]:
        with pytest.raises(ConfigError, match=f"^params: {message}"):
            OptimizerFactory("adamw")(params)


def test_without_a_trainer_the_length_of_the_run_is_asked_for() -> None:
    model = LightningTree()
    model.add_module("head", nn.Linear(2, 2))
    for config, key in [({}, "total_steps"), ({"warmup_epochs": 1, "total_steps": 5}, "warmup_steps")]:
        with pytest.raises(ConfigError, match=f"^scheduler.{key}: the schedule needs"):
            configure_optimizers(model, OptimizerFactory("adamw"), SchedulerFactory("warmup_cosine", **config))


def test_an_empty_stage_by_layer_changes_no_other_stage() -> None:
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "rest": nn.Linear(2, 2)})
    model.count = nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)
    empty = {"params": "nothing", "layers": "layers.{i}", "each": {"epochs": 1}, "allow_empty": True}
    for stages in ({"empty": empty, "every": {"params": "*"}}, {"every": {"params": "*"}, "empty": empty}):
        (stage,) = claim(parse_stages({**stages, "empty": {**empty, "at": None}}), model)
        assert stage.name == "every" and stage.fixed == {"count"}


def test_a_regex_means_what_pythons_re_says() -> None:
    for pattern in ("re:head{e<=1}", "re:{i}", "re:head.{s}"):
        with pytest.raises(ConfigError, match=r"^groups.a.params: .*type \\{ for the character"):
            OptimizerFactory("adamw", groups={"a": {"params": pattern, "lr": 0.1}})
    for pattern in ("re:a{2}", "re:a{1,3}", "re:\\{i"):
        OptimizerFactory("adamw", groups={"a": {"params": pattern, "lr": 0.1}})
    with pytest.raises(ConfigError, match="not a valid regular expression: ASCII and UNICODE"):
        OptimizerFactory("adamw", groups={"a": {"params": "re:(?a)(?u)a", "lr": 0.1}})


def test_factors_that_torch_cannot_calculate_with_are_refused() -> None:
    for name, config in [
        ("constant", {"factor": 0}),
        ("linear", {"total_iters": 0}),
        ("polynomial", {"total_iters": 0}),
        ("exponential", {"gamma": 1e300}),
        ("one_cycle", {"final_div_factor": 1e-45}),
        ("one_cycle", {"div_factor": 5e-324}),
    ]:
        with pytest.raises(ConfigError, match=f"^{next(iter(config))}: got"):
            SchedulerFactory(name, **config)
