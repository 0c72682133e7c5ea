"""A database's address for PostgreSQL's own programs, with the password where no other account can read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit


def login(dsn: str) -> tuple[str, dict[str, str]]:
    """(address without its password, environment with it). An address without one leaves it to PGPASSFILE or ~/.pgpass.

    Arguments of a process are visible to everybody on the machine, its environment to its owner only.
    """
    parts = urlsplit(dsn)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    given = [unquote(password)] if password else []
    given += [value for name, value in options if name == "password"]
    # Neither urlunsplit, which drops the slashes of an address without a host, nor "+" for blanks: libpq reads both otherwise.
    query = urlencode([(name, value) for name, value in options if name != "password"], quote_via=quote)
    address = f"{parts.scheme}://{user}{at}{hosts}{parts.path}{'?' if query else ''}{query}"
    return address, {**_inherited(os.environ), **({"PGPASSWORD": given[-1]} if given else {})}


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What finds programs, certificates and password files; no secret of ours."""
    kept = {name: value for name, value in environment.items() if name.startswith("PG") or name in ("HOME", "PATH")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", "PGAPPNAME": "engines-backup"}
