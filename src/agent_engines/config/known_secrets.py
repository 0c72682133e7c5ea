"""Every secret this machine's configuration leads to, so that it can be looked for in what leaves the house."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from agent_engines.domain.redaction import secret_name

from .client_url import read_endpoints
from .dotenv import read_dotenv
from .own_side import KEY_FILES, PASSWORDS_FILE
from .settings import Config
from .variables import VARIABLES

MAX_FILE_BYTES = 65_536
SHORTEST_LINE = 16
_USERINFO = re.compile(r"://([^,\s]*)@")
_QUERY = re.compile(r"[?&][\w-]*(?:passw|secret|token|key)[\w-]*=([^&\s]+)", re.IGNORECASE)


def known_secrets(
    config: Config, *, environ: Mapping[str, str] | None = None, dotenv_path: Path | None = None
) -> set[str]:
    """Passwords and tokens of URLs, values of secret variables, contents of key files; in the environment, `.env`, `*_FILE` and the data folder."""
    environment = os.environ if environ is None else environ  # noqa: TID251 - as in loader.py
    dotenv, _ = read_dotenv(Path(".env") if dotenv_path is None else dotenv_path)
    values = {name: str(getattr(config, name.lower())) for name in VARIABLES}
    found = {secret for layer in (environment, dotenv, values) for secret in _of_layer(layer)}
    for value in _texts([read_endpoints(config), _contents(Path(config.engines_data_dir) / PASSWORDS_FILE)]):
        found |= {*_of_url(value), *re.findall(r'":\s*"([^"]+)"', value)}
    for name in KEY_FILES:
        path = getattr(config, name.lower())
        lines = _contents(Path(path)).splitlines() if path else []
        found |= {line.strip() for line in lines if len(line.strip()) >= SHORTEST_LINE and not line.startswith("---")}
    return {secret for secret in found if secret}


def _of_layer(layer: Mapping[str, str]) -> Iterator[str]:
    for name, value in layer.items():
        base = name.removesuffix("_FILE")
        variable = VARIABLES.get(base)
        secret = secret_name(base) or (variable is not None and variable.secret)
        if base != name and (secret or (variable is not None and variable.is_url)):
            value = _contents(Path(value)).strip()
        if not value:
            continue
        yield from _of_url(value)
        if secret and base not in KEY_FILES:
            yield value
            # Keys of a comma list, values of `name=value,...` headers.
            yield from (part.strip() for part in value.split(","))
            yield from (part.partition("=")[2].strip() for part in value.split(",") if "=" in part)


def _of_url(text: str) -> Iterator[str]:
    """Userinfo as a whole would hide a user's name everywhere: only what stands behind the colon, or a lone token."""
    for entry in re.split(r",(?=[a-z][a-z0-9+]*://)", text):
        for userinfo in _USERINFO.findall(entry):
            secret = userinfo.partition(":")[2] if ":" in userinfo else userinfo
            yield from (secret, unquote(secret))
        for secret in _QUERY.findall(entry):
            yield from (secret, unquote(secret))


def _texts(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict):
            yield from (item for item in value.values() if isinstance(item, str))
        elif isinstance(value, str):
            yield value


def _contents(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except (OSError, ValueError):
        return ""
