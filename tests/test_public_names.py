"""What users import: every name from the package, under a module that outlives moves, each loaded when asked for."""

from __future__ import annotations

import inspect
import pickle

import pytest

import lightning_optim
from lightning_optim import optim

CLASSES = [getattr(lightning_optim, name) for name in lightning_optim.__all__]
CLASSES = [public for public in CLASSES if isinstance(public, type)]
FAMILY = [getattr(optim, name) for name in optim.__all__ if name != "WeightDecay"]


@pytest.mark.parametrize("cls", [*CLASSES, *FAMILY], ids=lambda cls: cls.__name__)
def test_a_public_class_is_pickled_under_its_public_module(cls) -> None:
    module = "lightning_optim.optim" if cls in FAMILY else "lightning_optim"
    assert cls.__module__ == module
    pickled = pickle.dumps(cls, protocol=0).decode()
    assert pickled.startswith(f"c{module}\n{cls.__name__}\n")
    assert pickle.loads(pickled.encode()) is cls


def test_importing_a_public_name_does_not_load_the_family(run_python_again) -> None:
    code = """
import sys
import lightning_optim
for name in lightning_optim.__all__:
    getattr(lightning_optim, name)
    print(*(f"{name}: {module}" for module in sys.modules if module.startswith("lightning_optim.optim.members.")))
"""
    assert run_python_again(code).split() == []


def test_an_optimizer_loads_its_own_rule_and_no_other(run_python_again) -> None:
    code = """
import sys
import torch
from lightning_optim import OptimizerFactory
OptimizerFactory("lion")(torch.nn.Linear(2, 1))
print(*sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("lightning_optim.optim.members.")))
"""
    assert run_python_again(code).split() == ["docstrings", "lion", "member"]


@pytest.mark.parametrize("package", [lightning_optim, optim])
def test_an_unknown_name_is_an_attribute_error(package) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Adamm'"):
        package.Adamm  # noqa: B018


def test_every_public_name_is_listed() -> None:
    assert sorted(lightning_optim.__all__) == lightning_optim.__all__ == dir(lightning_optim)
    assert "AdamW" in dir(optim) and "AdaptiveOptimizer" in dir(optim)


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
