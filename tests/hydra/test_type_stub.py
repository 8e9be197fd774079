"""What a type checker knows of the native optimizers: the generated stub accepts right calls and refuses wrong ones."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from lightning_optim import optim
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.catalog.common import SHARED_OPTIONS
from lightning_optim.optim.extra_keys import EXTRA_GROUP_KEYS

ROOT = Path(__file__).parents[2]
STUB = Path(optim.__file__).with_name("__init__.pyi")
CLASSES = {
    node.name: node for node in ast.parse(STUB.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
}
RIGHT = """
import torch
from torch import nn
from lightning_optim import optim

model = nn.Linear(3, 2)
params = list(model.parameters())
optim.Lion(params, 1e-4, (0.9, 0.99), 0.1, weight_decay_mode="relative", cautious_update=True, lookahead={"k": 3})
optim.Lion(model.named_parameters(), lr=torch.tensor(1e-4), weight_decay=optim.WeightDecay(0.1, "l1"), foreach=None)
optim.Lion([{"params": params, "lr": 1e-3}], fused=False, adaptive_clip=0.1, master_weights=True, maximize=True)
optim.Adam(params, weight_decay_mode=None, optimized_update=True)
optim.LAMB(params, weight_decay_mode="update")
optim.EFSGD(params, comp="sign", skip_nonfinite=True, centralize_gradients=True, cautious_decay=False)
optim.SophiaG(params).update_hessian(num_samples=8)
base: type[optim.AdaptiveOptimizer] = optim.AdamW
member: optim.AdaptiveOptimizer = optim.AdamW(params)


def rule(p: torch.Tensor) -> optim.Update:
    return optim.Update(p, 0.1)
"""
WRONG = {
    "optim.Lion(params, cautios_update=True)": 'Unexpected keyword argument "cautios_update"',
    "optim.Lion(params, eps=1e-8)": 'Unexpected keyword argument "eps"',
    "optim.Lion(params, cautious_update=1)": 'Argument "cautious_update"',
    "optim.Lion(params, maximize=None)": 'Argument "maximize"',
    "optim.Lion(params, lookahead=3)": 'Argument "lookahead"',
    "optim.Lion(params, lr='1e-3')": 'Argument "lr"',
    "optim.Lion(params, betas=(0.9, 0.99, 0.9))": 'Argument "betas"',
    "optim.Lion(params, 1e-4, (0.9, 0.99), 0.1, 'l2')": "Too many positional arguments",
    "optim.Lion(params, weight_decay_mode='l3')": 'Argument "weight_decay_mode"',
    "optim.Lion(params, weight_decay_mode='update')": 'Argument "weight_decay_mode"',
    "optim.Lion(params, weight_decay_mode=None)": 'Argument "weight_decay_mode"',
    "optim.EFSGD(params, comp='top_k')": 'Argument "comp"',
    "optim.Lion(3)": "Argument 1",
    "optim.Lion(params).update_hessian(8)": 'no attribute "update_hessian"',
    "optim.Adamm": 'has no attribute "Adamm"',
}


@pytest.mark.slow
def test_a_type_checker_accepts_right_calls_and_refuses_wrong_ones(tmp_path) -> None:
    mypy = pytest.importorskip("mypy.api")
    code = "\n".join([RIGHT.strip(), "", "", *WRONG])
    # With the options and the cache of the `mypy` command, so that torch is analyzed only once for both.
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(re.sub(r"^files = .*$", "", config, flags=re.MULTILINE), encoding="utf-8")
    options = ["--config-file", str(tmp_path / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    out, errors, _ = mypy.run([*options, "--no-error-summary", "-c", code])
    assert not errors, errors
    first = code.splitlines().index(next(iter(WRONG))) + 1
    found = {int(line): text for line, text in re.findall(r"^<string>:(\d+): error: (.*)$", out, re.MULTILINE)}
    assert sorted(found) == list(range(first, first + len(WRONG))), out
    for line, (call, message) in enumerate(WRONG.items(), first):
        assert message in found[line], call


def test_the_stub_has_the_classes_arguments_defaults_and_methods_of_the_family() -> None:
    native = {info.own.rpartition(":")[2]: info for info in BUILT_IN.values() if info.own}
    assert CLASSES.keys() - {"_Options"} == native.keys()
    for name, info in native.items():
        init, *methods = CLASSES[name].body
        arguments = init.args
        positional = dict(
            zip(
                [argument.arg for argument in arguments.args[2:]],
                map(ast.literal_eval, arguments.defaults),
                strict=True,
            )
        )
        keywords = dict(
            zip(
                [argument.arg for argument in arguments.kwonlyargs],
                map(ast.literal_eval, arguments.kw_defaults),
                strict=True,
            )
        )
        assert [argument.arg for argument in arguments.args[:2]] == ["self", "params"]
        signature = inspect.signature(getattr(optim, name)).parameters
        expected = {key: p for key, p in signature.items() if key == "weight_decay_mode" or key not in SHARED_OPTIONS}
        assert list(positional) == info.positional_names()
        assert positional | keywords == {key: p.default for key, p in expected.items() if key != "params"}
        assert {key for key, p in expected.items() if p.kind is p.KEYWORD_ONLY} == keywords.keys()
        assert ast.unparse(arguments.kwarg.annotation) == "Unpack[_Options]"
        assert [method.name for method in methods] == (["update_hessian"] if name == "SophiaG" else [])


def test_the_options_of_the_stub_are_those_of_every_class() -> None:
    body = CLASSES["_Options"].body
    keys = {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    assert keys | {"weight_decay_mode"} == {*SHARED_OPTIONS, EXTRA_GROUP_KEYS}
    assert {SHARED_OPTIONS[key].default for key in keys & SHARED_OPTIONS.keys()} == {False, None}, (
        "as its docstring says"
    )
    docs = [node for node in body if isinstance(node, ast.Expr)]
    assert len(docs) == len(keys) + 1, "one for the class and one below each key"
