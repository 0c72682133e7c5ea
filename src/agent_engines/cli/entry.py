"""From arguments to an exit code: 0 done, 1 failed, 2 wrong usage, 3 a server is unreachable, 130 interrupted."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from agent_engines.domain.errors import (
    AgentEnginesError,
    ConfigurationError,
    InvalidRequest,
    NoEligibleAgent,
    QueueFull,
    Unavailable,
    Unreachable,
)
from agent_engines.domain.redaction import redacted_text

from .root import app

DONE, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

# Typer carries its own copy of click in newer versions; these are its usage errors in every version.
UsageError: Any = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on stderr. `--debug` adds the traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        code = typer.main.get_command(app).main(given, prog_name="engines", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if debug:
            sys.stderr.write(redacted_text(traceback.format_exc()))
        for line in _lines(error):
            _say(line)
        return _code(error)


def _code(error: Exception) -> int:
    if isinstance(error, UsageError | ConfigurationError | InvalidRequest):
        return USAGE
    if isinstance(error, Unavailable) and not isinstance(error, QueueFull | NoEligibleAgent):
        return UNREACHABLE
    return FAILED


def _lines(error: Exception) -> list[str]:
    """What went wrong and what to do next; one line, or one for each problem of a configuration."""
    if isinstance(error, ConfigurationError):
        return error.problems
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "engines"
        message = getattr(error, "format_message", lambda: str(error))()
        # A group called without a command raises an error that says nothing: its help went before it.
        return [f"{message.rstrip('.') or 'name a command'}; see `{path} --help`"]
    return [_line(error)]


def _line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, QueueFull):
        return f"{text}; nothing was accepted, try again in {error.retry_after:g} s or add agents"
    if isinstance(error, NoEligibleAgent):
        return f"{text}; `engines agents list` shows who is there"
    if isinstance(error, Unavailable) and not isinstance(error, Unreachable):
        # A named part is away, behind a system that may well run: starting another system would be the wrong advice.
        return (
            f"{text}; is it running? `engines status` shows what is down, `engines config show` which address is used"
        )
    if isinstance(error, Unreachable):
        return f"{text}; is it running? `engines up` starts everything here, --url or ENGINES_URL name another place"
    if isinstance(error, AgentEnginesError):
        return text
    if isinstance(error, TimeoutError):
        return f"{text if str(error) else 'time is over'}; the task goes on, `engines tasks show` tells how it ends"
    return f"{type(error).__name__}: {text}; run it again with --debug for the traceback"


def _say(line: str) -> None:
    printable = "".join(char if char.isprintable() else " " for char in redacted_text(line))
    sys.stderr.write(f"engines: {printable}\n")
    sys.stderr.flush()
