"""`explain` from its options to its output: tables, steps and a plot, or one JSON document."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from .compose import compose_config
from .explain import describe_explanation, explain, print_explanation
from .json_output import print_json, reserved_stdout
from .planned_run import PlannedRun, RunOptions, find_run


def run_explain(options: argparse.Namespace, console: Console) -> None:
    """Explain a config.

    Args:
        options: of the command line.
        console: to print to.

    Raises:
        ConfigError: an option or the config is wrong.
    """
    given = RunOptions(steps_per_epoch=options.steps_per_epoch, max_epochs=options.max_epochs, node=options.node)
    given.check(is_used=options.steps_per_epoch is not None or options.plot is not None)
    if options.plot is not None:
        from .draw import check_drawable

        check_drawable(options.plot)
    if not options.json:
        with compose_config(options.config_dir, options.config_name, options.overrides) as config:
            _print_all(console, config, options, given)
        return
    with reserved_stdout() as stdout:
        with compose_config(options.config_dir, options.config_name, options.overrides) as config:
            document = _describe_all(config, options, given)
        print_json(document, stdout)


def _print_all(console: Console, config: DictConfig, options: argparse.Namespace, given: RunOptions) -> None:
    explanation = explain(config, options.config_name, options.module, options.why)
    print_explanation(console, explanation)
    run = _find_run(config, explanation.module, options, given)
    if run is None:
        return
    if given.steps_per_epoch is not None:
        from .resolved_steps import print_steps, resolve_steps

        print_steps(console, resolve_steps(run, explanation.module))
    if options.plot is not None:
        from .plot import plot

        plot(run, explanation.module, options.plot)
        if given.steps_per_epoch is None:
            console.print(run.stepping, markup=False, soft_wrap=True)
        console.print(f"plot: {options.plot}", markup=False, soft_wrap=True)


def _describe_all(config: DictConfig, options: argparse.Namespace, given: RunOptions) -> dict[str, Any]:
    """The document; `steps` and `plot` are null where they were not asked for."""
    explanation = explain(config, options.config_name, options.module, options.why)
    document = {**describe_explanation(explanation), "steps": None, "plot": None}
    run = _find_run(config, explanation.module, options, given)
    if run is not None and given.steps_per_epoch is not None:
        from .resolved_steps import describe_steps, resolve_steps

        document["steps"] = describe_steps(resolve_steps(run, explanation.module))
    if run is not None and options.plot is not None:
        from .plot import plot

        plot(run, explanation.module, options.plot)
        document["plot"] = {"path": str(options.plot), "stepping": run.stepping}
    return document


def _find_run(config: DictConfig, module: Any, options: argparse.Namespace, given: RunOptions) -> PlannedRun | None:
    """The run, if anything asked for needs it."""
    if options.plot is None and given.steps_per_epoch is None:
        return None
    return find_run(config, module, given, "--plot" if options.plot is not None else "--steps-per-epoch")
