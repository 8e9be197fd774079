"""What newer versions of torch's classes take is offered where torch has it, and refused by name where it has not."""

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze, optimizer_info
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.core.hyperparameters import Choice
from lightning_optim.core.version import is_torch_at_least
from tests.support.messages import check_refusals
from tests.support.models import Net

NEEDS_2_14 = "needs torch >= 2.14, and torch 2.13.0 is installed"


def later_values():
    """`(optimizer, key, value)` for everything that needs a later torch than the oldest supported one."""
    for info in BUILT_IN.values():
        for key, spec in info.hyperparameters.items():
            if spec.since:
                yield info.name, key, not spec.default
            if isinstance(spec, Choice):
                yield from ((info.name, key, option) for option in spec.options_since)


LATER = list(later_values())


@pytest.fixture
def old_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")


def test_later_values_are_refused_at_the_top_and_in_a_rule_of_an_older_torch(old_torch):
    assert ("lbfgs", "maximize", True) in LATER
    assert ("muon", "adjust_lr_fn", "spectral_unclamped") in LATER
    cases = {
        f"{name} {key}": (lambda name=name, given={key: value}: OptimizerFactory(name, **given), key, [NEEDS_2_14])
        for name, key, value in LATER
    }
    rule = {"hidden": {"params": "backbone", "optimizer": "muon", "adjust_lr_fn": "spectral_unclamped"}}
    cases["rule"] = (lambda: OptimizerFactory("adamw", groups=rule), "groups.hidden.adjust_lr_fn", [NEEDS_2_14])
    stages = {"head": {"params": "*", "adjust_lr_fn": "spectral_unclamped"}}
    muon = OptimizerFactory("muon")
    cases["stage"] = (
        lambda: StagedUnfreeze(stages).explain(torch.nn.Linear(2, 2, bias=False), muon),
        "stages.head.adjust_lr_fn",
        [NEEDS_2_14],
    )
    check_refusals(cases)


def test_the_default_is_accepted_and_not_passed_to_an_older_torch(old_torch):
    assert "maximize" not in optimizer_info("lbfgs").signature(own=False)
    OptimizerFactory("lbfgs", maximize=False)  # as in conf/optimizer/lbfgs.yaml


@pytest.mark.parametrize(("name", "key", "value"), LATER)
def test_the_installed_torch_takes_what_is_offered(name, key, value):
    module = torch.nn.Linear(2, 2, bias=False)
    spec = optimizer_info(name).hyperparameters[key]
    version = spec.options_since.get(value) if isinstance(spec, Choice) else spec.since
    if is_torch_at_least(version):
        assert OptimizerFactory(name, **{key: value})(module).param_groups[0][key] == value
    else:
        with pytest.raises(ConfigError, match=rf"^{key}: .* needs torch >= "):
            OptimizerFactory(name, **{key: value})


def test_a_checkpoint_from_before_an_argument_existed_is_loaded():
    net = Net()
    optimizer = OptimizerFactory("lbfgs")(net)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["configured"].pop("maximize")
        group.pop("maximize", None)
    other = OptimizerFactory("lbfgs")(net)
    other.load_state_dict(saved)
    assert other.param_groups[0].get("maximize", False) is False
