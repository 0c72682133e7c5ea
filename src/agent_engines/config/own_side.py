"""Our own side as a preflight reads it: secrets on disk, how strong they are, who can reach us, the numbers."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from agent_engines.domain.preflight.local import secret_strength

from .client_url import ENDPOINTS_FILE
from .dotenv import read_dotenv
from .settings import Config
from .variables import VARIABLES

NUMBERS = (
    "postgres_pool_max",
    "agent_max_concurrent_tasks",
    "agent_queue_size",
    "agent_task_timeout_seconds",
    "agent_shutdown_grace_seconds",
)
PASSWORDS_FILE = "passwords.json"
KEY_FILES = ("NATS_CREDS", "NATS_NKEY", "NATS_KEY")
_LOGIN = re.compile(r"://(?P<user>[^:@/,\s]*):(?P<secret>[^,\s]*?)@(?=[^@,]*(?:,|$))")
_LOCAL_HOST = re.compile(r"localhost|127\.[0-9.]+|\[?::1\]?")


def read_own_side(
    config: Config,
    urls: Mapping[str, str],
    *,
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path | None = None,
) -> dict[str, Any]:
    """Facts for domain/preflight/local.py and the `our.` facts of the others. `urls`: variable to the address that is used."""
    environment = os.environ if environ is None else environ  # noqa: TID251 - as in loader.py
    path = Path(".env") if dotenv_path is None else dotenv_path
    dotenv, _ = read_dotenv(path)
    in_dotenv = sorted(name for name, value in dotenv.items() if _holds_secret(name, value))
    keys = [key for key in config.engines_capability_key.split(",") if key]
    return {
        **{f"our.{name}": getattr(config, name) for name in NUMBERS},
        "our.bus_sync": config.engines_bus_sync,
        "our.max_body_bytes": config.engines_max_body_bytes,
        "secrets": dict(_strengths(config, urls)),
        "secrets_in_dotenv": in_dotenv,
        "secret_files": list(_secret_files(config, path if in_dotenv else None, [environment, dotenv])),
        "capability_key_lengths": [len(key) for key in keys],
        "http_host": config.agent_http_host,
        "http_local": _LOCAL_HOST.fullmatch(config.agent_http_host) is not None,
        "spool": config.engines_spool_dir,
        "open_files": max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    }


def _holds_secret(name: str, value: str) -> bool:
    variable = VARIABLES.get(name)
    return bool(value) and variable is not None and (variable.secret or _LOGIN.search(value) is not None)


def _strengths(config: Config, urls: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, url in urls.items():
        for login in _LOGIN.finditer(url):
            yield name, secret_strength(unquote(login["user"]), unquote(login["secret"]))
    for variable in VARIABLES.values():
        value = getattr(config, variable.name.lower())
        if variable.secret and value and variable.name != "OTEL_EXPORTER_OTLP_HEADERS":
            yield variable.name, min((secret_strength("", one) for one in value.split(",")), key=_weakest)


def _weakest(strength: str) -> int:
    return ("default", "short", "long enough").index(strength)


def _secret_files(config: Config, dotenv: Path | None, layers: list[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    named = {f"{name}_FILE": name for name, variable in VARIABLES.items() if variable.secret or variable.is_url}
    paths = [(Path(layer[name]), of) for layer in layers for name, of in named.items() if layer.get(name)]
    paths += [(Path(getattr(config, name.lower())), name) for name in KEY_FILES if getattr(config, name.lower())]
    paths += [(Path(config.engines_data_dir) / name, "passwords") for name in (ENDPOINTS_FILE, PASSWORDS_FILE)]
    if dotenv is not None:
        paths.append((dotenv, "secrets"))
    for path, holds in paths:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        yield {"path": str(path), "mode": mode & 0o777, "holds": holds, "folder": path.is_dir()}
