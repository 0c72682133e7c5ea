"""Mutation score of the rules that hold everything up: each small mistake in them must make a test fail.

    python scripts/mutants.py [--module NAME] [--budget SECONDS] [--only TEXT] [--list]

A mutant is one module with one expression changed, compiled in memory and imported in a forked child in the place of the
real one: no file is ever written. Its tests run until the first failure; a mutant no test notices has survived. Mutants
that change only messages for people (text, docstrings, `raise` arguments) are not made. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg  # noqa: F401
import hypothesis
import hypothesis.stateful
import nats  # noqa: F401
import pytest
import redis.asyncio  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
BAR = 0.85
SECONDS = 90
"""A mutant that takes longer runs in circles: noticed."""
EXAMPLES = 40
KILLED, SURVIVED, LATE = 0, 1, 2


@dataclass(frozen=True)
class Target:
    """A module, the functions of it that count (none: all), and the tests that hold it."""

    module: str
    tests: tuple[str, ...]
    functions: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()


LEDGER = "tests/properties/test_ledger_machine.py"
TARGETS = {
    "queue": Target("agent_engines.domain.priority_queue", ("tests/properties/test_priority_queue.py",)),
    "breaker": Target("agent_engines.domain.breaker", ("tests/properties/test_breaker.py",)),
    "leases": Target("agent_engines.domain.lease", ("tests/properties/test_lease.py",)),
    "epochs": Target("agent_engines.adapters.memory.ledger_writer", (LEDGER, "tests/contracts/test_ledger.py"), arguments=("-k", "not postgres")),
    "idempotency": Target("agent_engines.domain.validation", ("tests/properties/test_idempotency_machine.py",), frozenset({"to_task", "body_hash"})),
    "answers": Target("agent_engines.runtime.answers", ("tests/properties/test_idempotency_machine.py",), frozenset({"accepted", "first_answer"})),
}  # fmt: skip

SWAPS: dict[type[ast.AST], tuple[type[Any], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
}


def mutants(tree: ast.Module, functions: frozenset[str]) -> Iterator[tuple[str, ast.Module]]:
    """Every changed tree with a line that says what was changed."""
    places = [node for function in _functions(tree, functions) for node in _inside(function)]
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    for node in places:
        for what, change in _changes(node):
            other = copy.deepcopy(tree)
            twin = next(found for number, found in enumerate(ast.walk(other)) if number == numbers[id(node)])
            change(twin)
            yield f"{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:70]!r} {what}", ast.fix_missing_locations(other)


def _functions(tree: ast.Module, wanted: frozenset[str]) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (not wanted or node.name in wanted):
            yield node


def _inside(function: Any) -> Iterator[ast.AST]:
    """What runs: no signature, no docstring, nothing that is only said to people."""
    waiting: list[ast.AST] = list(reversed(function.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.JoinedStr) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        waiting.extend(
            child
            for name, value in ast.iter_fields(node)
            if name not in ("annotation", "returns")
            for child in (value if isinstance(value, list) else [value])
            if isinstance(child, ast.AST)
        )


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    yield from _other_operators(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "inverted", lambda twin: setattr(twin, "value", not twin.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "plus one", lambda twin: setattr(twin, "value", twin.value + 1)
    elif isinstance(node, ast.IfExp):
        yield "the other way", lambda twin: setattr(twin, "test", ast.UnaryOp(ast.Not(), twin.test))
    elif isinstance(node, ast.Return) and node.value is not None and not _none(node.value):
        yield "as None", lambda twin: setattr(twin, "value", ast.Constant(None))
    elif isinstance(node, ast.If | ast.While):
        yield "never", lambda twin: setattr(twin, "test", ast.Constant(False))
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    if call or isinstance(node, ast.Assign | ast.AugAssign | ast.Delete | ast.Continue | ast.Break):
        yield "left out", lambda twin: _become(twin, ast.Pass())


def _other_operators(node: ast.AST) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for swap in SWAPS.get(type(operator), ()):
                yield f"with {swap.__name__}", lambda twin, place=place, swap=swap: twin.ops.__setitem__(place, swap())
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        for swap in SWAPS[type(node.op)]:
            yield f"with {swap.__name__}", lambda twin, swap=swap: setattr(twin, "op", swap())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", lambda twin: _become(twin, ast.Call(ast.Name("bool", ast.Load()), [twin.operand], []))


def _none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _become(node: ast.AST, other: ast.AST) -> None:
    kept = {name: getattr(node, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    inner = copy.copy(other)
    node.__class__ = other.__class__  # type: ignore[assignment]
    node.__dict__.clear()
    node.__dict__.update(inner.__dict__)
    node.__dict__.update(kept)


class _InPlace(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self._module, self._path, self._tree = module, path, tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: Any) -> None:
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def _run(target: Target, path: Path, tree: ast.Module, *, quiet: bool = True) -> int:
    """In a child of its own: KILLED, SURVIVED or LATE."""
    child = os.fork()
    if child == 0:
        _in_child(target, path, tree, quiet=quiet)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return SURVIVED if os.waitstatus_to_exitcode(status) == 0 else KILLED
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return LATE


def _in_child(target: Target, path: Path, tree: ast.Module, *, quiet: bool) -> None:
    if quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    code = 70
    try:
        sys.meta_path.insert(0, _InPlace(target.module, path, tree))
        code = int(_pytest(target))
    finally:
        os._exit(code)


def _pytest(target: Target) -> int:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    return int(pytest.main([*(str(ROOT / test) for test in target.tests), *target.arguments, *options]))


def _prepare() -> None:
    """Everything heavy is loaded once, nothing of ours: children would share it unchanged."""
    os.chdir(ROOT)
    os.environ["MACHINE_EXAMPLES"] = str(EXAMPLES)
    # The suite's own profile is made on top of this one. Whether a mutant is noticed matters, not the shortest example.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    settings = hypothesis.settings(max_examples=EXAMPLES, phases=phases, derandomize=True, database=None, deadline=None)
    hypothesis.settings.register_profile("mutants", settings)
    hypothesis.settings.load_profile("mutants")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=sorted(TARGETS), action="append", help="only this one; repeatable")
    parser.add_argument(
        "--budget", type=float, default=1500.0, help="seconds altogether; a sample is taken when it is short"
    )
    parser.add_argument(
        "--only", default="", help="mutants whose line has this text, as `--list` and survivors show it"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    _prepare()
    scores: dict[str, dict[str, int]] = {}
    chosen = options.module or list(TARGETS)
    for name in chosen:
        target = TARGETS[name]
        path = (SOURCE / target.module.replace(".", "/")).with_suffix(".py")
        made = [one for one in mutants(ast.parse(path.read_text()), target.functions) if options.only in one[0]]
        if options.list:
            print("\n".join(f"{name}:{what}" for what, _ in made))
            continue
        scores[name] = _score(name, target, path, made, options.budget / len(chosen))
    if options.list:
        return 0
    tried = sum(one["tried"] for one in scores.values())
    survived = sum(one["survived"] for one in scores.values())
    score = 1 - survived / tried if tried else 0.0
    print(json.dumps({"test": "R18-mutation", "modules": scores, "score": round(score, 3), "bar": BAR}))
    return 0 if score >= BAR else 1


def _score(name: str, target: Target, path: Path, made: list[tuple[str, ast.Module]], budget: float) -> dict[str, int]:
    if _run(target, path, ast.parse(path.read_text()), quiet=False) != SURVIVED:
        raise SystemExit(f"{name}: its tests fail without any change")
    random.Random(1).shuffle(made)
    end = time.monotonic() + budget
    counts = {"mutants": len(made), "tried": 0, "survived": 0}
    for what, tree in made:
        if time.monotonic() > end:
            break
        counts["tried"] += 1
        if _run(target, path, tree) == SURVIVED:
            counts["survived"] += 1
            print(f"survived {name}:{what}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
