"""Reads the environment: flag > environment > .env > default. All problems are told at once, one line each."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent_engines.domain.errors import ConfigurationError
from agent_engines.domain.redaction import MASK, redacted_text

from .dotenv import read_dotenv
from .parsing import shown
from .settings import Config, Source
from .tracing_endpoint import traces_endpoint
from .variables import VARIABLES, Variable

OUR_PREFIXES = ("AGENT_", "ENGINES_", "POSTGRES_POOL_", "CIRCUIT_BREAKER_", "ROUTING_")
# Container platforms announce services by variables such as ENGINES_SERVICE_HOST and ENGINES_PORT_8080_TCP.
_ANNOUNCED = re.compile(r".*_(SERVICE_(HOST|PORT).*|PORT_\d+_(TCP|UDP).*)")
MAX_FILE_BYTES = 65_536


class Found(NamedTuple):
    text: str
    source: Source


class Row(NamedTuple):
    """One line of `engines config show`; `value` is masked where it is a secret."""

    name: str
    value: str
    source: Source
    default: str
    meaning: str


def load_config(
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path | None = None,
    *,
    flags: Mapping[str, str | None] | None = None,
) -> Config:
    """The checked configuration. `environ` None: this process's; `dotenv_path` None: `.env` in the working folder.

    `flags` are variables given on the command line (None: not given). Raises ConfigurationError with one line a problem.
    """
    environment = os.environ if environ is None else environ  # noqa: TID251 - the one place that reads it
    dotenv, problems = read_dotenv(Path(".env") if dotenv_path is None else dotenv_path)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers: list[tuple[Mapping[str, str], Source]] = [(given, "flag"), (environment, "environment"), (dotenv, ".env")]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for variable in VARIABLES.values():
        found = _find(variable, layers, problems)
        sources[variable.name] = found.source
        values[variable.name.lower()] = _parsed(variable, found, problems)
    warnings = _unknown(environment, "environment") + _unknown(dotenv, ".env")
    _check_together(values, problems)
    endpoint, note = _endpoint(values, problems)
    if problems:
        raise ConfigurationError(problems)
    if note:
        warnings.append(note)
    return Config(**values, traces_endpoint=endpoint, sources=sources, warnings=tuple(warnings))


def explain(config: Config) -> list[Row]:
    """Every variable with its effective value, where it came from, and its default."""
    return [_row(config, variable) for variable in VARIABLES.values()]


def _row(config: Config, variable: Variable) -> Row:
    value = getattr(config, variable.name.lower())
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    masked = (MASK if text else "") if variable.secret else redacted_text(text)
    return Row(variable.name, masked, config.sources[variable.name], variable.default, variable.meaning)


def _find(variable: Variable, layers: list[tuple[Mapping[str, str], Source]], problems: list[str]) -> Found:
    """The first layer that has the variable or its `_FILE` form; an empty value counts as not set."""
    file_name = f"{variable.name}_FILE"
    for layer, source in layers:
        direct, path = layer.get(variable.name, "").strip(), layer.get(file_name, "").strip()
        if direct and path:
            problems.append(f"{variable.name} and {file_name} are both set ({source}): keep one of them")
            return Found("", "default")
        if direct:
            return Found(direct, source)
        if path:
            return _from_file(file_name, path, problems)
    return Found(variable.default, "default")


def _from_file(name: str, path: str, problems: list[str]) -> Found:
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a UTF-8 text file"
        problems.append(f"{name}={shown(path)} cannot be read: {reason}; name a readable file with the value in it")
        return Found("", "default")
    if len(text) > MAX_FILE_BYTES or not text.strip():
        what = "is empty" if not text.strip() else f"is larger than {MAX_FILE_BYTES} bytes"
        problems.append(f"{name}={shown(path)} {what}; name a file with the value in it")
        return Found("", "default")
    return Found(text.strip(), "file")


def _parsed(variable: Variable, found: Found, problems: list[str]) -> Any:
    if not found.text:
        return "" if not variable.default else variable.parse(variable.default)
    try:
        if not found.text.isprintable():
            raise ValueError("one line of printable text")
        return variable.parse(found.text)
    except ValueError as error:
        value = shown(found.text, secret=variable.secret, is_url=variable.is_url)
        problems.append(f"{variable.name}={value} is not allowed ({found.source}): use {error}")
        return "" if not variable.default else variable.parse(variable.default)


def _check_together(values: dict[str, Any], problems: list[str]) -> None:
    low, high = values["postgres_pool_min"], values["postgres_pool_max"]
    if low > high:
        problems.append(
            f"POSTGRES_POOL_MIN={low} is not allowed with POSTGRES_POOL_MAX={high}: use a minimum from 1 to {high}"
        )
    argument = values["otel_traces_sampler_arg"]
    try:
        share = float(argument or 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        problems.append(f"OTEL_TRACES_SAMPLER_ARG={shown(argument)} is not allowed: use a share from 0 to 1")


def _endpoint(values: dict[str, Any], problems: list[str]) -> tuple[str, str]:
    jaeger = values["jaeger_endpoint"]
    try:
        return traces_endpoint(
            jaeger, values["otel_exporter_otlp_endpoint"], values["otel_exporter_otlp_traces_endpoint"]
        )
    except ValueError as error:
        problems.append(f"JAEGER_ENDPOINT={shown(jaeger, is_url=True)} is not allowed: use {error}")
        return "", ""


def _unknown(layer: Mapping[str, str], source: str) -> list[str]:
    known = set(VARIABLES) | {f"{name}_FILE" for name in VARIABLES}
    lines: list[str] = []
    for name in sorted(layer):
        ours = name.startswith(OUR_PREFIXES) and name not in known
        if not ours or _ANNOUNCED.fullmatch(name) or layer[name].startswith(("tcp://", "udp://")):
            continue
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "`engines config show` lists the known ones"
        lines.append(f"{name} ({source}) is not a variable of Agent Engines: {hint}")
    return lines
