"""`.env` files: NAME=value lines, `export` allowed, quotes removed, `#` starts a comment."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<bare>[^#"'\n]*?(?:\S\#[^\n]*?)*?))\s*(?:\s\#.*)?""",
    re.VERBOSE,
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\", "\\$": "$"}


def read_dotenv(path: Path) -> tuple[dict[str, str], list[str]]:
    """Values and problems (one line each, never with a value). A missing file is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{path.name} cannot be read: {type(error).__name__}; make it a readable UTF-8 text file"]
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(f"{path.name} line {number} is not of the form NAME=value")
            continue
        values[match["name"]] = _value(match)
    return values, problems


def _value(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return re.sub(r"\\.", lambda one: _ESCAPES.get(one[0], one[0]), match["double"])
    return match["single"] if match["single"] is not None else match["bare"].strip()
