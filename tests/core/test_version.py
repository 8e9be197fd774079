"""The installed version of torch decides what a hyperparameter accepts."""

import subprocess
import sys

import pytest
import torch

from lightning_optim import ConfigError
from lightning_optim.core import version
from lightning_optim.core.hyperparameters import Choice, Flag

FLAG = Flag(default=False, since="2.14")
CHOICE = Choice(default=None, optional=True, options=("a", "b"), options_since={"b": "2.14"})


@pytest.fixture
def install_torch(monkeypatch):
    return lambda number: monkeypatch.setattr(torch, "__version__", number)


@pytest.mark.parametrize("older", ["2.13.0", "2.13.9+cpu", "1.99"])
def test_what_an_older_torch_lacks_is_refused(older, install_torch):
    install_torch(older)
    for spec, value, text in [(FLAG, True, "true"), (CHOICE, "b", "b")]:
        with pytest.raises(
            ConfigError, match=rf"^key: {text} needs torch >= 2\.14, and torch {older[:4]}.* is installed"
        ):
            spec.check(value, "key")
    assert CHOICE.describe() == "one of a or null"
    assert not FLAG.is_available
    # The default is what the older torch does.
    assert FLAG.check(False, "key") is False
    assert CHOICE.check(None, "key") is None


@pytest.mark.parametrize("newer", ["2.14", "2.14.0", "2.14.1+cu130", "2.14.0a0+git1", "2.100", "3.0"])
def test_what_a_newer_torch_has_is_accepted(newer, install_torch):
    install_torch(newer)
    assert FLAG.check(True, "key") is True
    assert CHOICE.check("b", "key") == "b"
    assert CHOICE.describe() == "one of a, b or null"


def test_the_version_is_known_without_importing_torch():
    code = "import sys; from lightning_optim.core.version import read_torch_version as read; "
    code += "print(read(), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    installed, is_loaded = found.stdout.split()
    assert installed.partition("+")[0] == torch.__version__.partition("+")[0]
    assert is_loaded == "False"
    assert version.read_torch_version() == torch.__version__
