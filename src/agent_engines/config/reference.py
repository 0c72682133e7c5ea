"""The reference page of the configuration, made from the table of variables."""

from __future__ import annotations

from .variables import GROUPS, Variable

HEAD = """\
# Configuration

<!-- Made by `python -m agent_engines.config`; a test compares it with the table of variables. -->

Every setting is an environment variable. A process reads them once, at start, in this order: flag on the command
line, environment, `.env` in the working folder, default. An empty value counts as not set.

Each variable also exists with `_FILE` added (`POSTGRES_URL_FILE=/run/secrets/postgres`): the value is then the
content of that file, without surrounding white space. Setting both in one place is an error.

A wrong value stops the start with one line that names the variable, the value (never a secret) and what is allowed.
Unknown variables that begin with `AGENT_`, `ENGINES_`, `POSTGRES_POOL_`, `CIRCUIT_BREAKER_` or `ROUTING_` are warned about, with the
nearest known name. `engines config show` prints the effective values and where each came from.
"""


def reference() -> str:
    """Markdown: one table for each group of variables."""
    parts = [HEAD]
    for title, variables in GROUPS.items():
        parts.append(f"\n## {title}\n\n| variable | default | allowed | meaning |\n| --- | --- | --- | --- |\n")
        parts.extend(_line(variable) for variable in variables)
    return "".join(parts)


def _line(variable: Variable) -> str:
    default = f"`{variable.default}`" if variable.default else "not set"
    secret = " Secret: never shown." if variable.secret else ""
    return f"| `{variable.name}` | {default} | {variable.allowed} | {variable.meaning}{secret} |\n"
