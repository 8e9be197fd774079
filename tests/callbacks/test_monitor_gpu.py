"""OptimizerMonitor on a GPU: no hook waits for the device, and each launches few kernels; skipped without a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lightning_optim import OptimizerFactory, OptimizerMonitor, configure_optimizers
from tests.support.monitored_fit import HookedMonitor, ManyParameters
from tests.support.tensorboard_events import fit_with_events
from tests.support.training import BATCHES, Net

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class SyncForbidden(HookedMonitor):
    """Raises if a hook waits for the device."""

    def run_hook(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return hook(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")


class ProfiledMonitor(HookedMonitor):
    """Counts the kernels and copies that its hooks launch."""

    def __init__(self) -> None:
        super().__init__()
        self.num_launched = 0

    def run_hook(self, hook: Any, *args: Any, **kwargs: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            result = hook(*args, **kwargs)
            torch.cuda.synchronize()
        self.num_launched += sum(event.device_type == DeviceType.CUDA for event in profiler.events())
        return result


@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon_adamw"])
def test_no_hook_waits_for_the_device(name, clip, tmp_path) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon"}} if name == "muon_adamw" else {}
    factory = OptimizerFactory(name.rpartition("_")[2], lr=0.01, groups=rules)
    module = Net(lambda module: configure_optimizers(module, factory))
    monitor = SyncForbidden(update_norm=True, cosine=True)
    curves = fit_with_events(tmp_path, module, monitor, accelerator="gpu", epochs=2, gradient_clip_val=clip)
    for tag in ("optim/norm/grad/all", "optim/norm/param/all", "optim/norm/update/all"):
        assert [step for step, _ in curves[tag]] == list(range(2 * BATCHES))
        assert all(math.isfinite(value) for _, value in curves[tag])


def test_kernels_are_few_for_a_model_of_any_size(tmp_path) -> None:
    launched = []
    for parameters in (10, 1000):
        monitor = ProfiledMonitor()
        fit_with_events(tmp_path / f"{parameters}", ManyParameters(parameters, 2), monitor, accelerator="gpu", epochs=1)
        launched.append(monitor.num_launched / BATCHES)
    few, many = launched
    # One kernel takes some hundred tensors of a list.
    assert few < 50 and many < few + 200


def test_fp16_gradients_are_unscaled_and_a_skipped_step_has_no_point(tmp_path) -> None:
    class OverflowingNet(Net):
        def on_after_backward(self) -> None:
            if self.global_step == 2:
                self.head.weight.grad.fill_(math.inf)

    module = OverflowingNet(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.01)))
    curves = fit_with_events(
        tmp_path, module, OptimizerMonitor(), accelerator="gpu", precision="16-mixed", epochs=2, gradient_clip_val=1.0
    )
    steps = [step for step, _ in curves["optim/norm/grad/all"]]
    assert steps == [0, 1, *range(3, 2 * BATCHES)]
    assert all(0 < value <= 1 + 1e-3 for _, value in curves["optim/norm/grad/all"])
