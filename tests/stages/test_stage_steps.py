"""StageSteps: each stage counts the steps of its own optimizer, and does not thaw amid an accumulation by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from lightning_optim.stages.stage_steps import StageSteps
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from lightning_optim.stages.timetable import Timetable
from lightning_optim.stages.triggers import Clock

STAGES = {
    "critic": {"params": "critic.0"},
    "deep": {"params": "critic.1", "at": {"step": 4}},
    "generator": {"params": "generator", "at": {"after": {"steps": 2}}, "allow_unused": True},
}


def build(**stages: Any) -> tuple[nn.Module, dict[str, StagedOptimizer], Timetable]:
    """A critic and a generator with an optimizer each; every gradient is there."""
    net = nn.ModuleDict({"critic": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "generator": nn.Linear(2, 2)})
    claimed = claim(parse_stages({**STAGES, **stages}), net)
    timetable = Timetable(claimed)
    staged = {name: StagedOptimizer(SGD(net[name].parameters(), lr=0.1), net, claimed) for name in net}
    for own in staged.values():
        own.activate_stages(timetable.thawed)
        own.by_hand = True
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    return net, staged, timetable


def test_each_stage_counts_the_steps_of_its_optimizer() -> None:
    """Five steps of the critic for one of the generator, as many GANs do."""
    _, staged, timetable = build()
    steps = StageSteps(list(staged.values()))
    thawed = {}
    for step in range(20):
        steps.start_batch()
        staged["critic"].after_step()
        if step % 5 == 4:
            staged["generator"].after_step()
        for stage in timetable.thaw_due(Clock(epoch=0), steps):
            thawed[stage.name] = (staged["critic"].num_steps, staged["generator"].num_steps)
    assert thawed == {"deep": (4, 0), "generator": (10, 2)}


def test_a_stage_waits_while_its_optimizer_accumulates() -> None:
    net, staged, _ = build()
    steps = StageSteps(list(staged.values()))
    assert not steps.can_thaw("deep"), "the critic has gradients and has not stepped"
    staged["critic"].after_step()
    assert steps.can_thaw("deep")
    steps.start_batch()
    assert not steps.can_thaw("deep")
    net.zero_grad()
    assert steps.can_thaw("deep"), "the next batch begins an accumulation"


def test_a_stage_without_a_live_group_in_its_optimizer_waits_for_the_others() -> None:
    net, staged, _ = build()
    steps = StageSteps(list(staged.values()))
    assert not steps.can_thaw("generator")
    staged["critic"].after_step()
    assert steps.can_thaw("generator")
    assert net is not None


def test_automatic_optimization_never_waits() -> None:
    """The callback asks between two accumulations of Lightning's only."""
    _, staged, _ = build()
    for own in staged.values():
        own.by_hand = False
    assert StageSteps(list(staged.values())).can_thaw("deep")
