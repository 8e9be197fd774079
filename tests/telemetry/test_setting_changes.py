"""A setting has a point at its first step, and where it changes the last old and the first new one."""

from __future__ import annotations

import random

from lightning_optim.telemetry.setting_changes import SettingChanges

SETTINGS = {"decay"}


def log_all(values: list[float], steps: list[int]) -> list[tuple[int, float]]:
    """The points of a setting with a value for each step."""
    changes = SettingChanges()
    return [
        (step, selected["decay"])
        for at, value in zip(steps, values, strict=True)
        for step, selected in changes.select({"decay": value}, at, SETTINGS).items()
        if selected
    ]


def test_a_constant_has_one_point_and_a_change_two() -> None:
    steps = [4, 9, 14, 19, 24, 29]
    assert log_all([0.1] * 6, steps) == [(4, 0.1)]
    assert log_all([0.1, 0.1, 0.1, 0.2, 0.2, 0.2], steps) == [(4, 0.1), (14, 0.1), (19, 0.2)]
    assert log_all([0.1, 0.2, 0.3, 0.3, 0.1, 0.1], steps) == [(4, 0.1), (9, 0.2), (14, 0.3), (19, 0.3), (24, 0.1)]


def test_the_points_interpolate_to_every_value() -> None:
    generator = random.Random(0)
    for _ in range(50):
        values = [generator.choice([0.0, 0.1, 0.2]) for _ in range(12)]
        points = log_all(values, list(range(12)))
        assert points == sorted(points) and len({step for step, _ in points}) == len(points)
        for step, value in enumerate(values):  # TensorBoard draws straight lines
            before = max(point for point in points if point[0] <= step)
            after = min((point for point in points if point[0] >= step), default=before)
            assert before[1] == value and (after[1] == value or after[0] != step)
            assert after[1] == before[1] or before[0] == step


def test_other_values_are_always_selected_and_earlier_steps_come_first() -> None:
    changes = SettingChanges()
    assert changes.select({"lr": 1.0, "decay": 0.1}, 0, SETTINGS) == {0: {"lr": 1.0, "decay": 0.1}}
    assert changes.select({"lr": 1.0, "decay": 0.1}, 1, SETTINGS) == {1: {"lr": 1.0}}
    selected = changes.select({"lr": 1.0, "decay": 0.2}, 2, SETTINGS)
    assert list(selected.items()) == [(1, {"decay": 0.1}), (2, {"lr": 1.0, "decay": 0.2})]
