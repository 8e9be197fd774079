"""OptimizerMonitor on a GPU: no hook waits for it, and kernels are few; skipped where there is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lightning_optim import OptimizerFactory, OptimizerMonitor, configure_optimizers
from tests.callbacks.test_monitor_cost import Many
from tests.support.monitored_fit import Watched
from tests.support.tensorboard_events import fit_with_events
from tests.support.training import BATCHES, Net

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Unwaiting(Watched):
    """Whatever waits for the device is an error."""

    def around(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return hook(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Profiled(Watched):
    """Counts the kernels and copies that its hooks launch."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0

    def around(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            result = hook(*args, **kwargs)
            torch.cuda.synchronize()
        self.launched += sum(event.device_type == DeviceType.CUDA for event in profiler.events())
        return result


@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon_adamw"])
def test_no_hook_waits_for_the_device(name, clip, tmp_path) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon"}} if name == "muon_adamw" else {}
    factory = OptimizerFactory(name.rpartition("_")[2], lr=0.01, groups=rules)
    module = Net(lambda module: configure_optimizers(module, factory))
    monitor = Unwaiting(update_norm=True, cosine=True)
    curves = fit_with_events(tmp_path, module, monitor, accelerator="gpu", epochs=2, gradient_clip_val=clip)
    for tag in ("optim/norm/grad/all", "optim/norm/param/all", "optim/norm/update/all"):
        assert [step for step, _ in curves[tag]] == list(range(2 * BATCHES))
        assert all(math.isfinite(value) for _, value in curves[tag])


def test_kernels_are_few_whatever_the_model(tmp_path) -> None:
    launched = []
    for parameters in (10, 1000):
        monitor = Profiled()
        fit_with_events(tmp_path / f"{parameters}", Many(parameters, 2), monitor, accelerator="gpu", epochs=1)
        launched.append(monitor.launched / BATCHES)
    few, many = launched
    # A list is cut where a kernel's arguments are full: after some hundred tensors.
    assert few < 50 and many < few + 200


def test_fp16_scales_and_skips(tmp_path) -> None:
    class Overflows(Net):
        def on_after_backward(self) -> None:
            if self.global_step == 2:
                self.head.weight.grad.fill_(math.inf)

    module = Overflows(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.01)))
    curves = fit_with_events(
        tmp_path, module, OptimizerMonitor(), accelerator="gpu", precision="16-mixed", epochs=2, gradient_clip_val=1.0
    )
    steps = [step for step, _ in curves["optim/norm/grad/all"]]
    assert steps == [0, 1, *range(3, 2 * BATCHES)]
    assert all(0 < value <= 1 + 1e-3 for _, value in curves["optim/norm/grad/all"])
