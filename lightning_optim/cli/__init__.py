"""`lightning-optim`: what there is to choose from, what a config does to a model, what a checkpoint and a run hold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..core.errors import ConfigError
from ..core.output_width import output_width
from ..core.version import read_version
from .json_output import print_json
from .presets import KINDS, OPTIMIZER
from .printable_output import PrintableOutput


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 if the config or an argument has to be corrected."""
    options = _build_parser().parse_args(arguments)
    # With a width and no height, rich asks the terminal, and with TERM=dumb it takes 80 columns.
    console = Console(width=output_width(), height=100, highlight=False)
    console.push_render_hook(PrintableOutput())
    try:
        options.run(options, console)
    except ConfigError as error:
        errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        errors.push_render_hook(PrintableOutput())
        errors.print(f"lightning-optim: {error}")
        return 2
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lightning-optim", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {read_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the available optimizers, schedules and presets")
    command.add_argument("pattern", nargs="?", default="*", help="a glob on the name, such as 'adam*'")
    command.add_argument(
        "--kind", choices=KINDS, default=OPTIMIZER, help="the config group to list; by default optimizer"
    )
    _add_json(command)
    command.set_defaults(run=_list)

    command = commands.add_parser(
        "show",
        help="one optimizer: its equations, paper, state, weight decay and hyperparameters; or one schedule or preset",
    )
    command.add_argument("name", help="of any kind: adamw, warmup_cosine, gradual")
    command.add_argument("--kind", choices=KINDS, help="its config group, if several have a config of this name")
    _add_json(command)
    command.add_argument(
        "--kernel", choices=("c", "triton"), help="print the kernel that its rule is traced to, for a CPU or a GPU"
    )
    command.set_defaults(run=_show)

    command = commands.add_parser(
        "explain", help="the param groups and the unfreeze plan of a Hydra config, without training"
    )
    command.add_argument("--config-dir", required=True, type=Path, help="the folder of your configs")
    command.add_argument("--config-name", required=True, help="the primary config, such as train")
    command.add_argument("--module", required=True, metavar="KEY", help="the model's key in the config, such as model")
    command.add_argument("--why", metavar="PARAMETER", help="show what set which value of this parameter")
    command.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw each group's lr over the run, thaws marked: png, svg or pdf"
    )
    command.add_argument(
        "--steps-per-epoch",
        type=int,
        metavar="N",
        help="optimizer steps in an epoch: show at which step warm-ups end, schedules end and stages thaw",
    )
    command.add_argument(
        "--max-epochs",
        type=int,
        metavar="M",
        help="with --steps-per-epoch or --plot: the epochs of the run; by default trainer.max_epochs of the config",
    )
    command.add_argument(
        "--node",
        metavar="KEY",
        help="with --steps-per-epoch or --plot: the optimizer's key; by default the one nearest the top level",
    )
    _add_json(command)
    command.add_argument("overrides", nargs="*", help="Hydra overrides, such as optimizer.lr=3e-4")
    command.set_defaults(run=_explain)

    command = commands.add_parser(
        "inspect", help="what a checkpoint's optimizers hold, by group; or the difference of two checkpoints"
    )
    command.add_argument("checkpoint", type=Path, metavar="CKPT", help="a Lightning checkpoint or a torch.save file")
    command.add_argument("other", nargs="?", type=Path, metavar="OTHER", help="a checkpoint to compare it with")
    command.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="also read files without checksums: from torch before 1.6, or saved under set_crc32_options(False)",
    )
    _add_json(command)
    command.set_defaults(run=_inspect)

    command = commands.add_parser(
        "report", help="one page about runs: each group's curves, and what is suspicious in them"
    )
    command.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a logger's folder, an event file, or a metrics.csv"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the page to write, such as report.html")
    _add_json(command)
    command.set_defaults(run=_report)
    return parser


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json",
        action="store_true",
        help='print one JSON document; null: there is none; "NaN", "Infinity": numbers that JSON does not have',
    )


# Each command is imported when it runs: `list` and `show` need no torch, `inspect` no Hydra, tables no Lightning.


def _list(options: argparse.Namespace, console: Console) -> None:
    from .list_presets import list_entries, print_entries

    entries = list_entries(options.kind, options.pattern)
    if options.json:
        print_json(entries)
    else:
        print_entries(console, options.kind, entries)


def _show(options: argparse.Namespace, console: Console) -> None:
    if options.kernel:
        from .kernel_source import print_kernel

        if options.json:
            raise ConfigError("--json: a kernel is printed as source code. Leave --json or --kernel out")
        print_kernel(console, options.name, options.kernel)
        return
    from .show import describe, print_details

    if options.json:
        print_json(describe(options.name, options.kind))
    else:
        print_details(console, options.name, options.kind)


def _explain(options: argparse.Namespace, console: Console) -> None:
    from .explain_command import run_explain

    run_explain(options, console)


def _inspect(options: argparse.Namespace, console: Console) -> None:
    from .inspect import print_comparison, print_report

    path, other, verify = options.checkpoint, options.other, options.verify
    if options.json:
        from .inspect_json import describe_comparison, describe_report

        print_json(
            describe_report(path, verify=verify) if other is None else describe_comparison(path, other, verify=verify)
        )
    elif other is None:
        print_report(console, path, verify=verify)
    else:
        print_comparison(console, path, other, verify=verify)


def _report(options: argparse.Namespace, console: Console) -> None:
    from .report_command import run_report

    run_report(console, options.runs, options.out, as_json=options.json)
