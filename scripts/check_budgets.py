"""House budgets: 400 lines a module, 40 lines a function's body, no first-party import inside a function.

The body is counted without signature and docstring. Exceptions are named below, each with its reason.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "agent_engines"
MODULE_LINES = 400
FUNCTION_LINES = 40
EXEMPT: dict[str, str] = {}


def problems(path: Path) -> list[str]:
    """Every budget a file breaks, as `path:line: what`."""
    text = path.read_text()
    name = path.relative_to(SOURCE).as_posix()
    found: list[str] = []
    if len(text.splitlines()) > MODULE_LINES:
        found.append(f"{name}:1: module has {len(text.splitlines())} lines, budget {MODULE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        length = (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0
        if length > FUNCTION_LINES:
            found.append(f"{name}:{node.lineno}: function {node.name} has {length} lines, budget {FUNCTION_LINES}")
        for inner in ast.walk(node):
            lazy = isinstance(inner, ast.ImportFrom) and (
                inner.level > 0 or (inner.module or "").startswith("agent_engines")
            )
            if lazy:
                found.append(f"{name}:{inner.lineno}: first-party import inside {node.name}")
    return [line for line in found if line.split(": ")[0].split(":")[0] not in EXEMPT]


def main() -> int:
    found = [line for path in sorted(SOURCE.rglob("*.py")) for line in problems(path)]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
