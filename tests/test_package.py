"""`import lightning_optim`: light, and with the public names and no others."""

from __future__ import annotations

import inspect

import pytest

import lightning_optim


def test_importing_the_package_loads_no_torch(run_python):
    code = (
        "import sys, lightning_optim\n"
        "lightning_optim.ConfigError, lightning_optim.list_optimizers(), lightning_optim.optimizer_info('adamw')\n"
        "heavy = {'torch', 'lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), 'OptimizerFactory' in dir(lightning_optim))"
    )
    assert run_python(code).split("\n")[0] == "[] True"


@pytest.mark.parametrize("name", lightning_optim.__all__)
def test_every_public_name_can_be_imported_and_has_a_docstring(name):
    assert inspect.getdoc(getattr(lightning_optim, name))
    assert name in dir(lightning_optim)


def test_public_names_are_sorted_and_others_are_attribute_errors():
    assert sorted(lightning_optim.__all__) == lightning_optim.__all__
    with pytest.raises(AttributeError, match="no attribute 'OptimiserFactory'"):
        _ = lightning_optim.OptimiserFactory
