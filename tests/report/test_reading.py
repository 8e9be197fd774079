"""A run is read alike from event files in both layouts and from CSV, resumed, damaged or odd as they may be."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from lightning_optim import ConfigError
from lightning_optim.report.curves import Run
from lightning_optim.report.find_runs import MAX_RUNS, find_runs
from lightning_optim.report.read_run import read_curves_by_tag, read_run
from tests.support.report_runs import write_events

FLAT = {
    "optim/lr/body": [(1, 0.1), (3, 0.2)],
    "optim/lr/head": [(1, 1.0), (3, 2.0)],
    "optim/norm/grad/body": [(1, 5.0), (3, 6.0)],
    "optim/norm/grad/all": [(1, 7.0), (3, 8.0)],
    "optim_param/norm/grad/body.weight": [(1, 5.0)],
    "train/loss": [(1, 2.5)],
    "epoch": [(1, 0.0)],
}
HYPERPARAMETERS = {"optim/head/eps": 1e-8, "optim/head/lr": 1.0, "optim/body/eps": 1e-6, "width": 16}
CSV = """epoch,step,optim/lr/body,optim/lr/head,optim/norm/grad/body,optim/norm/grad/all,train/loss
0,1,,,,,2.5
0,1,0.1,1.0,5.0,7.0,
0,3,0.2,2.0,6.0,8.0,
"""


def read(path: Path) -> Run:
    (files,) = find_runs([path])
    return read_run(files)


def points(run: Run) -> dict[tuple[str, str], list[tuple[int, float]]]:
    (curves,) = run.optimizers
    return {
        (signal, group): [(int(step), round(float(value), 6)) for step, value in zip(*curve, strict=True)]
        for signal, by_group in curves.signals.items()
        for group, curve in by_group.items()
    }


def write_overlay(folder: Path) -> None:
    """As `OptimizerMonitor` writes groups that are runs of their own."""
    write_events(folder, {"train/loss": FLAT["train/loss"]}, hyperparameters=HYPERPARAMETERS)
    by_group: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for tag, values in FLAT.items():
        if tag.startswith("optim/"):
            signal, _, group = tag.rpartition("/")
            by_group.setdefault(group, {})[signal] = values
    for group, tags in by_group.items():
        write_events(folder / "optim" / group, tags)


def test_both_layouts_and_csv_give_the_same_curves(tmp_path: Path) -> None:
    write_events(tmp_path / "flat", FLAT, hyperparameters=HYPERPARAMETERS)
    write_overlay(tmp_path / "overlay")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text(CSV, encoding="utf-8")
    runs = [read(tmp_path / name) for name in ("flat", "overlay", "csv")]
    assert points(runs[0]) == points(runs[1]) == points(runs[2])
    assert points(runs[0])["lr", "body"] == [(1, 0.1), (3, 0.2)]
    assert len(points(runs[0])) == 4, "norms by parameter are left out"
    assert [it.source for it in runs] == ["1 event file", "4 event files", "metrics.csv"]
    for run in runs:
        assert list(run.losses) == ["train/loss"] and run.steps == (1, 3)
    tags = [read_curves_by_tag(*find_runs([tmp_path / name])) for name in ("flat", "overlay")]
    assert tags[0].keys() - tags[1].keys() == {"optim_param/norm/grad/body.weight", "epoch"}
    assert tags[1]["optim/lr/body"].values.tolist() == pytest.approx([0.1, 0.2])


def test_groups_stand_in_the_order_of_the_plan(tmp_path: Path) -> None:
    names = ("x.10", "x.9", "head")
    write_events(tmp_path / "flat", {f"optim/lr/{name}": [(0, 1.0)] for name in names})
    assert read(tmp_path / "flat").optimizers[0].groups == names, "as logged"
    write_events(tmp_path / "runs", {})
    for name in names:
        write_events(tmp_path / "runs" / "optim" / name, {"optim/lr": [(0, 1.0)]})
    assert read(tmp_path / "runs").optimizers[0].groups == ("head", "x.9", "x.10"), "by name"
    table = "| group | lr |\n| --- | --- |\n| x.9 | 1 |\n| head | 1 |\n| x.10 | 1 |"
    for folder in ("flat", "runs"):
        write_events(tmp_path / folder, {}, texts={"optim/groups": [(0, table)]})
        assert read(tmp_path / folder).optimizers[0].groups == ("x.9", "head", "x.10"), "of the table"


def test_hyperparameters_are_sorted_by_group(tmp_path: Path) -> None:
    write_events(tmp_path, FLAT, hyperparameters=HYPERPARAMETERS)
    (curves,) = read(tmp_path).optimizers
    assert curves.hyperparameters == {"head": {"eps": 1e-8, "lr": 1.0}, "body": {"eps": 1e-6}}


def test_hyperparameters_may_come_from_lightnings_yaml(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV, encoding="utf-8")
    yaml = "optim/head/eps: 1.0e-08\nfactory: !!python/object:os.system {x: 1}\n"
    (tmp_path / "hparams.yaml").write_text(yaml, encoding="utf-8")
    (curves,) = read(tmp_path).optimizers
    assert curves.hyperparameters == {"head": {"eps": 1e-8}}
    (tmp_path / "hparams.yaml").write_text("a: [", encoding="utf-8")
    assert read(tmp_path).notes == ("hparams.yaml cannot be read: ParserError",)


def test_several_optimizers_have_a_section_each(tmp_path: Path) -> None:
    write_events(
        tmp_path,
        {"optim_adamw/lr/g": [(0, 1.0)], "optim_sgd-1/lr/d": [(0, 2.0)], "optim_param_sgd/norm/grad/w": [(0, 1)]},
    )
    assert [(it.root, it.groups) for it in read(tmp_path).optimizers] == [
        ("optim_adamw", ("g",)),
        ("optim_sgd-1", ("d",)),
    ]


def test_a_group_folder_has_the_name_of_its_group(tmp_path: Path) -> None:
    write_events(tmp_path, {}, hyperparameters={"optim/a (b)/lr": 1.0})
    write_events(tmp_path / "optim" / "a__b_", {"optim/lr": [(0, 1.0)]})
    assert read(tmp_path).optimizers[0].groups == ("a (b)",)


def test_a_group_folder_with_a_number_is_that_of_its_group_unless_several_may_have_it(tmp_path: Path) -> None:
    names = ("a_b", "A_B", "c d", "c:d", "x" * 300)
    write_events(tmp_path, {}, hyperparameters={f"optim/{name}/lr": 1.0 for name in names})
    for folder in ("a_b", "A_B-2", "c_d", "c_d-2", "x" * 140):
        write_events(tmp_path / "optim" / folder, {"optim/lr": [(0, 1.0)]})
    assert set(read(tmp_path).optimizers[0].groups) == {"a_b", "A_B", "c_d", "c_d-2", "x" * 300}


# Resumed runs


@pytest.mark.parametrize("folders", [(".", "optim/head"), ("optim/head", ".")], ids=["then overlay", "then flat"])
def test_a_run_resumed_with_the_other_overlay_is_read_from_both_places(tmp_path, folders) -> None:
    values = [[(step, 1.0) for step in range(5)], [(3, 2.0), (4, 2.0)]]
    for folder, points_of_part in zip(folders, values, strict=True):
        write_events(tmp_path / folder, {"optim/lr" if folder != "." else "optim/lr/head": points_of_part})
    assert points(read(tmp_path))["lr", "head"] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


@pytest.mark.parametrize("options", [{}, {"purge_step": 2}], ids=["steps go back", "purged"])
def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, options) -> None:
    write_events(tmp_path, {"optim/lr/head": [(step, 1.0) for step in range(5)]})
    write_events(tmp_path, {"optim/lr/head": [(2, 2.0), (3, 2.0)]}, **options)
    run = read(tmp_path)
    assert points(run)["lr", "head"] == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]
    assert bool(run.notes) == (not options)
    assert all(note.startswith("the steps go back to 2: the run was resumed there") for note in run.notes)


# Thaws and tables


def test_thaws_are_those_that_were_logged(tmp_path: Path) -> None:
    text = "epoch 1, step 4: 'stage: 'x'' thaws (body, body.no_decay)"
    points = {"optim/lr/head": [(0, 1.0)], "optim/lr/body": [(4, 1.0)]}
    table = "| group | lr | rules |\n| --- | ---: | --- |\n| head | 1 |  |\n| all |  |  |"
    write_events(tmp_path, points, texts={"optim/thaw": [(3, text)], "optim/groups": [(0, "old"), (4, table)]})
    (curves,) = read(tmp_path).optimizers
    assert curves.thaws == ((3, "stage: 'x'"),)
    assert curves.table == (("group", "lr", "rules"), ("head", "1", ""), ("all", "", ""))


def test_without_texts_a_group_thaws_where_its_curves_begin(tmp_path: Path) -> None:
    write_events(
        tmp_path, {f"optim/lr/{name}": [(step, 1.0)] for name, step in (("a", 2), ("b", 5), ("c", 5), ("d", 9))}
    )
    assert read(tmp_path).optimizers[0].thaws == ((5, "b, c"), (9, "d"))


# Damaged files


def test_the_rest_of_a_cut_file_is_read(tmp_path: Path) -> None:
    path = write_events(tmp_path, {"optim/lr/head": [(0, 1.0), (1, 2.0)]})
    path.write_bytes(path.read_bytes()[:-3])
    run = read(tmp_path)
    assert points(run)["lr", "head"] == [(0, 1.0)]
    assert run.notes[0].endswith("the last record is incomplete; the run is still writing, or was stopped there")


def test_what_is_readable_of_a_damaged_file_is_read(tmp_path: Path) -> None:
    path = write_events(tmp_path, {"optim/lr/head": [(0, 1.0), (1, 2.0), (2, 3.0)]})
    content = bytearray(path.read_bytes())
    starts, position = [], 0
    while position < len(content):
        starts.append(position)
        position += 16 + struct.unpack_from("<Q", content, position)[0]
    content[starts[2] + 14] ^= 255  # in the data of the second point
    path.write_bytes(content)
    run = read(tmp_path)
    assert points(run)["lr", "head"] == [(0, 1.0), (2, 3.0)]
    assert run.notes == (f"{path.name}: 1 damaged records are left out",)
    content[starts[3]] ^= 255  # the length of the third
    path.write_bytes(content)
    run = read(tmp_path)
    assert points(run)["lr", "head"] == [(0, 1.0)]
    assert "damaged at byte" in run.notes[0]


def test_damaged_lines_of_a_csv_are_left_out(tmp_path: Path) -> None:
    text = "step,optim/lr/head,optim/norm/grad/head\n0,1.0,nan\n1,x,\n2\n2,9.0\0,9.0\n3,2.0,inf\n4,3.0,1.0\n5,4.\0"
    (tmp_path / "metrics.csv").write_text(text, encoding="utf-8")
    run = read(tmp_path / "metrics.csv")
    assert points(run)["lr", "head"] == [(0, 1.0), (3, 2.0), (4, 3.0)]
    assert np.isnan(run.optimizers[0].signals["norm/grad"]["head"].values[0])
    assert run.notes == ("metrics.csv: 4 damaged lines are left out",)


def test_control_characters_never_leave_the_reader(tmp_path: Path) -> None:
    write_events(tmp_path, {"optim/lr/he\x1b[2Jad\u202e": [(0, 1.0)], "a\x07/loss": [(0, 1.0)]})
    run = read(tmp_path)
    assert run.optimizers[0].groups == ("he\ufffd[2Jad\ufffd",) and list(run.losses) == ["a\ufffd/loss"]


# Paths


def test_a_folder_has_all_runs_below_it_in_natural_order(tmp_path: Path) -> None:
    for name in ("version_10", "version_9", "other/version_0"):
        write_overlay(tmp_path / name)
    found = [str(it.folder.relative_to(tmp_path)) for it in find_runs([tmp_path, tmp_path / "version_9"])]
    assert found == ["other/version_0", "version_9", "version_10"]


def test_a_run_named_like_the_monitors_folder_is_a_run(tmp_path: Path) -> None:
    write_events(tmp_path / "optim" / "version_0", FLAT)
    assert read(tmp_path).optimizers[0].groups == ("body", "head")
    assert read(tmp_path / "optim").optimizers[0].groups == ("body", "head")
    assert read(tmp_path / "optim" / "version_0").optimizers[0].groups == ("body", "head")


def test_a_file_is_read_alone(tmp_path: Path) -> None:
    first = write_events(tmp_path, {"optim/lr/head": [(0, 1.0)]})
    write_events(tmp_path, {"optim/lr/head": [(1, 1.0)]})
    assert points(read(first))["lr", "head"] == [(0, 1.0)]
    assert len(points(read(tmp_path))["lr", "head"]) == 2


def test_what_is_no_run_is_refused_with_what_to_type(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ConfigError) as error:
            read(path)
        return str(error.value)

    (tmp_path / "empty").mkdir()
    write_events(tmp_path / "plain", {"train/loss": [(0, 1.0)]})
    write_overlay(tmp_path / "run")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "x.txt").touch()
    expected = {
        "missing": "does not exist. Type the folder of a run, such as one of those in",
        "empty": "no event files (events.out.tfevents.*) and no metrics.csv below",
        "plain": "it has train/loss. Type OptimizerMonitor(update_norm=True) in the trainer's callbacks",
        "run/optim/head": f"has the curves of one group. Type the folder of the run: {tmp_path / 'run'}",
        "table.csv": "has no column 'step', so it is not of Lightning's CSVLogger",
        "x.txt": "is neither an event file",
    }
    for name, message in expected.items():
        assert message in refusal(tmp_path / name), name
        assert refusal(tmp_path / name).startswith("report: ")


def test_too_many_runs_are_refused(tmp_path: Path) -> None:
    for index in range(MAX_RUNS + 1):
        SummaryWriter(str(tmp_path / f"v{index}")).close()
    with pytest.raises(ConfigError, match=rf"there are 17 runs, and a page has 16 .* such as {tmp_path}/v14, .*v16"):
        find_runs([tmp_path])
