"""RNGState: a step that was accumulating batches when it was saved is resumed as it was, or the loss is warned of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_optim import ConfigError, RNGState
from tests.support.equality import equal
from tests.support.stopped_runs import SaveOnException, Stop
from tests.support.training import BATCHES, Net, fit

ACCUMULATE, EPOCHS = 3, 2
"""Of four batches per epoch, so the last step of each has one."""
LOST = "had accumulated 2 batches, and their gradients are not in it"


class Accumulating(Net):
    """With dropout, and an embedding whose gradients are sparse."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(lambda module: torch.optim.SGD(module.parameters(), lr=0.1), dropout=0.5)
        self.embedding = nn.Embedding(3, 4, sparse=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + self.embedding(inputs[:, 0].gt(0).long()))


def run(folder: Any, *callbacks: Callback, **arguments: Any) -> dict[str, Any]:
    module = Accumulating()
    fit(module, folder, RNGState(), *callbacks, epochs=EPOCHS, accumulate_grad_batches=ACCUMULATE, **arguments)
    return module.state_dict()


class SaveEachBatch(Callback):
    """Writes `batch=<n>.ckpt` after each batch."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.num_batches = folder, 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.num_batches += 1
        trainer.save_checkpoint(self.folder / f"batch={self.num_batches}.ckpt", weights_only=False)


def gradients_in(path: Any) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True)["callbacks"]["RNGState"].get("gradients")


def test_a_run_that_was_saved_between_accumulated_batches_resumes_bitwise(tmp_path) -> None:
    expected = run(tmp_path, SaveEachBatch(tmp_path), save=True)
    between = []
    for batch in range(1, EPOCHS * BATCHES):
        path = tmp_path / f"batch={batch}.ckpt"
        between += [batch] if gradients_in(path) is not None else []
        assert equal(run(tmp_path, ckpt_path=path, seed=9), expected), batch
    assert between == [1, 2, 5, 6]  # no checkpoint that is saved after a step is larger


def test_the_checkpoint_that_a_resumed_run_saves_anew_is_as_good_as_the_first(tmp_path) -> None:
    def saving() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)

    class StopAfterABatch(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.fit_loop.total_batch_idx == BATCHES + 1:
                raise Stop

    path = tmp_path / "step=2.ckpt"
    expected = run(tmp_path, saving(), enable_checkpointing=True)
    assert gradients_in(path) is None
    with pytest.raises(Stop):
        run(tmp_path, saving(), StopAfterABatch(), enable_checkpointing=True, ckpt_path=path)
    assert gradients_in(path) is not None  # Lightning has saved step 2 again, under the same name
    assert equal(run(tmp_path, ckpt_path=path, seed=9), expected)


def stopped_in(hook: str, folder: Any) -> Any:
    """The checkpoint that is saved because a hook fails in the last of three batches."""

    def stop(self: Any, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 2:
            raise Stop

    path = folder / "stopped.ckpt"
    with pytest.raises(Stop):
        run(folder, type("StopAt", (Callback,), {hook: stop})(), SaveOnException(path), enable_checkpointing=True)
    return path


def test_after_an_exception_before_backward_they_are_there(tmp_path) -> None:
    path = stopped_in("on_train_batch_start", tmp_path)
    gradients = gradients_in(path)
    assert gradients is not None and gradients["num_batches"] == 2 and gradients["by_name"]


@pytest.mark.parametrize("hook", ["on_after_backward", "on_before_optimizer_step"])
def test_after_an_exception_later_in_the_batch_the_resume_warns(tmp_path, hook) -> None:
    path = stopped_in(hook, tmp_path)
    with pytest.warns(UserWarning, match=LOST):
        run(tmp_path, ckpt_path=path)


def test_on_several_ranks_the_resume_warns(tmp_path, monkeypatch) -> None:
    save, generators = SaveEachBatch(tmp_path), RNGState()
    read = generators._gradients.read
    monkeypatch.setattr(generators._gradients, "read", lambda trainer, module: read(_Of(trainer, world_size=2), module))
    fit(Accumulating(), tmp_path, generators, save, epochs=1, accumulate_grad_batches=ACCUMULATE, save=True)
    with pytest.warns(UserWarning, match=LOST):
        run(tmp_path, ckpt_path=tmp_path / "batch=2.ckpt")


class _Of(SimpleNamespace):
    """A trainer with other attributes."""

    def __init__(self, trainer: Any, **others: Any) -> None:
        super().__init__(**others)
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


def test_without_rngstate_the_step_lacks_them(tmp_path) -> None:
    def run_without(*callbacks: Callback, **arguments: Any) -> Any:
        module = Accumulating()
        module.dropout = nn.Identity()
        fit(module, tmp_path, *callbacks, epochs=EPOCHS, accumulate_grad_batches=ACCUMULATE, **arguments)
        return module.state_dict()

    expected = run_without(SaveEachBatch(tmp_path), save=True)
    assert not equal(run_without(ckpt_path=tmp_path / "batch=2.ckpt"), expected)
    assert equal(run_without(ckpt_path=tmp_path / "batch=3.ckpt"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it["by_name"].update({"head.weight": torch.zeros(2)}), "head.weight: this is no gradient"),
        (lambda it: it["by_name"].update({"head.bias": torch.zeros(3).double()}), "head.bias: this is no gradient"),
        (lambda it: it["by_name"].update({"other": torch.zeros(2)}), "KeyError 'other'"),
        (lambda it: it.pop("num_batches"), "KeyError 'num_batches'"),
        (lambda it: it.update(new=1), "gradients: the checkpoint has new"),
    ],
    ids=["another shape", "another dtype", "another name", "a key is missing", "a later release"],
)
def test_gradients_that_do_not_fit_are_refused(change, message) -> None:
    gradients = RNGState()._gradients
    module = Accumulating()
    state = {"num_batches": 1, "by_name": {name: torch.ones_like(p) for name, p in module.named_parameters()}}
    gradients.restore(module, state)
    assert all(equal(p.grad, torch.ones_like(p)) for p in module.parameters())
    change(state)
    callback = RNGState()
    callback.load_state_dict({**RNGState().state_dict(), "gradients": state})
    with pytest.raises(ConfigError, match=message.replace("'", ".")):
        callback.on_train_start(SimpleNamespace(world_size=1, global_rank=0, callbacks=[]), module)
