"""Mutation testing of lightning_optim/optim: makes one small change at a time and reports whether a test fails.

    python -m tests.mutants [--sample N] [--seed S] [--jobs J] [--only FILE]

Only the fast tests run. A mutant that passes all of them is printed with its line: either the change has no visible
effect, or a fast test is missing. Each mutant runs in a fork of a process that has imported what the tests need of
other packages, but nothing of this one.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parent
MUTATED = TESTS.parent / "lightning_optim" / "optim"

# Tests of every member have its name in their ids. The tests of one file or member run first, then these.
OF_MEMBERS = (
    "optim/test_members.py",
    *sorted(f"optim/{path.name}" for path in TESTS.glob("optim/test_oracles*.py")),
    "optim/test_torch.py",
)
SLOWEST = ("optim/test_convergence.py", "optim/test_size.py")
OPTIM = tuple(sorted({f"optim/{path.name}" for path in TESTS.glob("optim/test_*.py")}.difference(OF_MEMBERS, SLOWEST)))
OUTSIDE_OPTIM = ("build/test_implementation.py", "build/test_implementation_resume.py", "catalog/test_registry.py")
PASSES = (OPTIM, (*OF_MEMBERS, *SLOWEST), OUTSIDE_OPTIM)
"""Arguments of pytest; a mutant survives if it passes all of them."""
TIMEOUT_S = 300  # for each pass
VERDICTS = {0: "survived", 5: "survived", -signal.SIGALRM: "timed out"}  # by exit code; 5: no test was selected
OPERATORS = ("Lt LtE", "Gt GtE", "Eq NotEq", "Is IsNot", "In NotIn", "And Or", "Add Sub", "Pow Mult", "Mult Div")
METHODS = ("add sub", "add_ sub_", "mul div", "mul_ div_", "addcmul_ addcdiv_", "clamp_min_ clamp_max_", "gt ge")
WORDS = ("l2 l1", "decoupled absolute", "relative corrected", "lr peak_lr", "foreach fused", "exp_avg exp_avg_sq")
OTHER_OPERATOR, OTHER_METHOD, OTHER_WORD = (
    {old: new for pair in pairs for old, new in (pair.split()[::-1], pair.split())}
    for pairs in (OPERATORS, METHODS, WORDS)
)
LEFT_OUT = ("sqrt", "sqrt_", "abs", "sign", "sign_", "neg", "reciprocal_", "clone", "norm")
CASTS = ("bool", "dict", "float", "list", "sorted", "str", "tuple")


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The changed versions of a node."""
    match node:
        case ast.Compare(ops=[op, *others]):
            yield _altered(node, ops=[getattr(ast, OTHER_OPERATOR[type(op).__name__])(), *others])
        case ast.BinOp(op=ast.BitOr()) if not isinstance(node.right, ast.Subscript):  # of dicts, not of types
            yield _altered(node, left=node.right, right=node.left)
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op).__name__ in OTHER_OPERATOR:
            yield _altered(node, op=getattr(ast, OTHER_OPERATOR[type(op).__name__])())
        case ast.UnaryOp():
            yield node.operand
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.Constant(value=bool(value)):
            yield _altered(node, value=not value)
        case ast.Constant(value=int(value) | float(value)):
            numbers = {0: (value + 1,), 1: (value - 1, value + 0.5)}.get(value, (2 * value,))
            yield from (_altered(node, value=number) for number in numbers)
        case ast.Constant(value=word) if word in OTHER_WORD:
            yield _altered(node, value=OTHER_WORD[word])
        case ast.Tuple(elts=[_, _, _, *_], ctx=ast.Load()):
            yield from (_altered(node, elts=rest) for rest in _without_each(node.elts))
        case ast.Dict():
            for rest in _without_each(list(zip(node.keys, node.values, strict=True))):
                yield _altered(node, keys=[key for key, _ in rest], values=[value for _, value in rest])
        case ast.Call():
            yield from _changed_calls(node)
        case ast.Return(value=ast.expr()):
            yield _altered(node, value=ast.Constant(None))
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]) | ast.AugAssign() | ast.Expr() | ast.Continue():
            yield ast.copy_location(ast.Pass(), node)


def _changed_calls(node: ast.Call) -> Iterator[ast.AST]:
    """Calls of another method or of none, without one keyword, or with the first two arguments swapped."""
    match node.func:
        case ast.Attribute(attr=name) if name in OTHER_METHOD:
            yield _altered(node, func=_altered(node.func, attr=OTHER_METHOD[name]))
        case ast.Attribute(attr=name) if name in LEFT_OUT:
            yield node.func.value
        case ast.Name(id=name) if name in CASTS and len(node.args) == 1:
            yield node.args[0]
        case ast.Name(id="zip"):
            return  # strict=True is an assertion
    yield from (_altered(node, keywords=rest) for rest in _without_each(node.keywords))
    match node.args:
        case [first, second, *others] if ast.dump(first) != ast.dump(second):
            yield _altered(node, args=[second, first, *others])


def _altered(node: Any, **fields: Any) -> Any:
    new = copy.copy(node)
    vars(new).update(fields)
    return new


def _without_each(items: Sequence[Any]) -> Iterator[list[Any]]:
    return ([*items[:index], *items[index + 1 :]] for index in range(len(items)))


@dataclass(frozen=True, eq=False)
class Mutant:
    """A node in the tree of a file, at `holder[key]`, and the node that replaces it."""

    path: Path
    tree: ast.Module
    parent: ast.AST
    holder: Any
    key: Any
    old: Any
    new: ast.AST

    def __str__(self) -> str:
        # A constant says little without its parent.
        within = isinstance(self.old, ast.Constant) and isinstance(self.parent, (ast.expr, ast.keyword))
        texts = []
        for node in (self.new, self.old):
            self.holder[self.key] = node
            texts.append(" ".join(ast.unparse(ast.fix_missing_locations(self.parent if within else node)).split()))
        return f"{self.path.relative_to(MUTATED).as_posix()}:{self.old.lineno} {texts[1]} -> {texts[0]}"


def mutants_in(path: Path, tree: ast.Module, parent: ast.AST) -> Iterator[Mutant]:
    """All mutants below a node, except in docstrings, types and messages. An `if` never taken covers its `raise`."""
    for field, value in ast.iter_fields(parent):
        holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(parent), [field])
        for key in keys:
            match node := holder[key]:
                case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Raise():
                    continue
                case ast.FunctionDef(name="__repr__") | ast.keyword(arg="strict"):
                    continue
                case ast.AST() if field not in ("annotation", "returns", "decorator_list"):
                    news = [*changes(node)]
                    if field == "ifs" or (field == "test" and isinstance(parent, ast.If)):
                        news += [ast.copy_location(ast.Constant(decided), node) for decided in (True, False)]
                    yield from (Mutant(path, tree, parent, holder, key, node, new) for new in news)
                    yield from mutants_in(path, tree, node)


class Mutated(SourceFileLoader):
    """Finds and loads one module: with the source of the file, but the code of the tree."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        parts = path.relative_to(TESTS.parent).with_suffix("").parts
        super().__init__(".".join(parts).removesuffix(".__init__"), str(path))
        self.tree = ast.fix_missing_locations(tree)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> Any:
        return compile(self.tree, self.path, "exec", dont_inherit=True)


def start(mutant: Mutant | None, arguments: Sequence[str]) -> int:
    """Fork a process (a group of its own) that runs tests silently; it exits with pytest's status or by its alarm."""
    if pid := os.fork():
        return pid
    try:
        os.setpgid(0, 0)
        signal.alarm(TIMEOUT_S)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them takes longer than most mutants run
        torch.set_num_threads(1)
        if mutant is not None:
            mutant.holder[mutant.key] = mutant.new
            sys.meta_path.insert(0, Mutated(mutant.path, mutant.tree))
        os._exit(pytest.main(["-x", "-q", *(str(TESTS / a) if a.endswith(".py") else a for a in arguments)]))
    finally:
        os._exit(pytest.ExitCode.INTERNAL_ERROR)


def wait() -> tuple[int, str]:
    """The id of the next process that ends, and the verdict on its mutant."""
    pid, status = os.wait()
    end(pid)
    return pid, VERDICTS.get(os.waitstatus_to_exitcode(status), "killed")


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def first_pass(mutant: Mutant) -> tuple[str, ...]:
    """Arguments of pytest for the tests that are most likely to fail; empty if there are no special ones."""
    if mutant.path.parent.name == "members":
        # Members are called by their class or by the name that a config has: `class Lion(Member, name="lion")`.
        classes = [node for node in mutant.tree.body if isinstance(node, ast.ClassDef)]
        keywords = [keyword.value for node in classes for keyword in node.keywords if keyword.arg == "name"]
        names = [node.name for node in classes] + [value.value for value in keywords if isinstance(value, ast.Constant)]
        return (*OF_MEMBERS, "-k", " or ".join(names)) if keywords else OF_MEMBERS
    return tuple(sorted(f"optim/{path.name}" for path in TESTS.glob(f"optim/test_{mutant.path.stem}*.py")))


def verdicts(mutants: Sequence[Mutant], jobs: int) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with `killed`, `timed out` or `survived`, as they finish."""
    waiting = [(mutant, [*filter(None, [first_pass(mutant)]), *PASSES]) for mutant in reversed(mutants)]
    running: dict[int, tuple[Mutant, list[tuple[str, ...]]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant, passes = waiting.pop()
                running[start(mutant, passes[0])] = mutant, passes[1:]
            pid, verdict = wait()
            mutant, passes = running.pop(pid)
            if verdict == "survived" and passes:
                waiting.append((mutant, passes))
            else:
                yield mutant, verdict
    finally:
        for pid in running:
            end(pid)


def report(found: Sequence[tuple[Mutant, str]]) -> None:
    for mutant in (mutant for mutant, verdict in found if verdict == "survived"):
        print(mutant, mutant.path.read_text(encoding="utf-8").splitlines()[mutant.old.lineno - 1], sep="\n")
    row, kinds = "{:24}" + 5 * "{:>10}", ("killed", "timed out", "survived")
    print(row.format("file", "mutants", *kinds, "score"))
    for path in [*sorted({mutant.path for mutant, _ in found}), MUTATED]:
        counts = Counter(verdict for mutant, verdict in found if path in (mutant.path, MUTATED))
        file, score = path.relative_to(MUTATED).as_posix(), f"{1 - counts['survived'] / counts.total():.0%}"
        print(row.format(file, counts.total(), *(counts[kind] for kind in kinds), score))


def import_other_packages() -> None:
    """Import what the tests import of other packages, so that no fork has to."""
    code = "import pytest, sys; pytest.main(['-q', '--collect-only', sys.argv[1]]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, TESTS / "optim"], capture_output=True, text=True, check=True)
    for name in done.stdout.splitlines()[-1].split():
        if name.split(".")[0] not in ("__main__", "hydra_plugins", "lightning_optim", "tests"):
            with contextlib.suppress(ImportError):
                import_module(name)
    gc.freeze()  # a collection in a fork would copy all pages


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample", type=int, default=sys.maxsize, help="number of mutants, drawn at random; default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of mutants that run at the same time")
    parser.add_argument("--only", default="*.py", help="the mutants of one file, for example members/adam.py")
    options = parser.parse_args(arguments)
    options.files = [path for path in sorted(MUTATED.rglob("*.py")) if path.match(options.only)]
    if not options.files:
        parser.error(f"--only {options.only}: there is no such file")
    return options


def main() -> None:
    given = _options()
    trees = {path: ast.parse(path.read_bytes()) for path in given.files}
    mutants = [mutant for path, tree in trees.items() for mutant in mutants_in(path, tree, tree)]
    if not mutants:
        raise SystemExit(f"--only {given.only}: no mutants in such a file")
    import_other_packages()
    drawn = random.Random(given.seed).sample(mutants, min(given.sample, len(mutants)))
    for arguments in PASSES:
        start(None, arguments)
        if wait()[1] != "survived":
            raise SystemExit(
                f"tests fail without a mutant: python -m pytest {' '.join(f'tests/{each}' for each in arguments)}"
            )
    found: dict[Mutant, str] = {}
    for mutant, verdict in verdicts(sorted(drawn, key=mutants.index), given.jobs):
        found[mutant] = verdict
        print(f"{len(found)}/{len(drawn)} {verdict}: {mutant}", file=sys.stderr, flush=True)
    report([(mutant, found[mutant]) for mutant in mutants if mutant in found])


if __name__ == "__main__":
    main()
