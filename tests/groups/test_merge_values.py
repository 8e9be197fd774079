"""`merge_values` and `has_moved` on param groups written by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_optim.groups.merge_values import has_moved, merge_values


def group(peak_lr=0.5, lr=None, *, schedule=None, recorded=True, **values):
    """A param group whose hyperparameters are as configured, except lr."""
    return {
        "params": [0],
        "name": "head",
        "param_names": ["head.weight"],
        "lr": peak_lr if lr is None else lr,
        "peak_lr": peak_lr,
        "foreach": None,
        **values,
        **({"schedule": schedule} if schedule else {}),
        **({"configured": {"lr": peak_lr, "algorithm": "sgd", **values}} if recorded else {}),
    }


CONSTANT = {"name": "constant"}
MOVED = {
    "same schedule": (group(), [group()], False),
    "another peak": (group(0.5), [group(0.25)], False),
    "another schedule": (group(), [group(schedule=CONSTANT)], True),
    "a schedule of its own now": (group(schedule=CONSTANT), [group()], True),
    "one of two with the same schedule": (group(), [group(schedule=CONSTANT), group()], False),
    "peak was 0": (group(0.5), [group(0.0)], True),
    "peak was 0 in one of two": (group(0.5), [group(0.0), group(0.25)], False),
    "peak is 0 now, and is reached": (group(0.0, lr=0.0), [group(0.5)], False),
    "peak is and was 0, whatever lr is": (group(0.0, lr=0.25), [group(0.0)], False),
    "not recorded in the checkpoint": (group(), [group(schedule=CONSTANT, recorded=False)], False),
    "not recorded now": (group(recorded=False), [group(schedule=CONSTANT)], False),
}


@pytest.mark.parametrize(("current", "sources", "moved"), MOVED.values(), ids=MOVED)
def test_a_group_has_moved_where_no_saved_lr_can_be_scaled_to_it(current, sources, moved):
    assert has_moved(current, sources) == moved


def test_a_new_group_has_the_config_s_values():
    assert merge_values(group(momentum=0.9), []) == {k: v for k, v in group(momentum=0.9).items() if k != "params"}


def test_the_name_flags_and_record_are_always_the_current_ones():
    saved = {
        **group(lr=0.25, momentum=0.9),
        "name": "old",
        "param_names": ["old.weight"],
        "foreach": True,
        "algorithm": "sgd",
    }
    merged = merge_values(group(momentum=0.9), [saved])
    assert merged == {key: value for key, value in group(lr=0.25, momentum=0.9).items() if key != "params"}


def test_keys_that_a_scheduler_adds_are_kept_at_the_same_peak_only():
    saved = {**group(lr=0.25), "initial_lr": 0.5}
    assert merge_values(group(), [saved])["initial_lr"] == 0.5
    assert "initial_lr" not in merge_values(group(0.25), [saved])
    assert merge_values(group(0.25), [saved])["lr"] == 0.125


def test_a_scaled_lr_is_a_float_where_the_saved_one_was_a_tensor():
    lr = merge_values(group(0.25), [group(lr=torch.tensor(0.25))])["lr"]
    assert isinstance(lr, float) and lr == 0.125


def test_values_that_the_saved_groups_do_not_share_come_from_the_config():
    saved = [group(momentum=0.9), {**group(momentum=0.9), "momentum": 0.8}]
    assert merge_values(group(momentum=0.9), saved)["momentum"] == 0.9
    saved = [{**one, "momentum": 0.8} for one in saved]
    assert merge_values(group(momentum=0.9), saved)["momentum"] == 0.8
    assert merge_values(group(momentum=0.5), saved)["momentum"] == 0.5, "edited in the config"


def test_a_cycled_value_is_compared_between_groups_with_the_same_schedule_only():
    saved = [{**group(momentum=0.9), "momentum": 0.8}, group(schedule=CONSTANT, momentum=0.9)]
    assert merge_values(group(momentum=0.9), saved)["momentum"] == 0.8
