"""Where the cache is: one URL for a single server, a cluster, sentinels or a socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from agent_engines.domain.errors import ConfigurationError

DEFAULT_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`kind` is single, cluster, sentinel or socket. `options` are TLS settings from the query."""

    kind: str
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    path: str = ""
    options: dict[str, str | bool] = field(default_factory=dict[str, str | bool])

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read `redis[s]://[user:password@]host[:port][/db]`, `redis[s]+cluster://a,b`,
        `redis[s]+sentinel://a,b/service[/db]` or `unix:///path?db=0`. Raises ConfigurationError, never naming a secret.
        """
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        options = dict(parse_qsl(query))
        head, _, kind = scheme.lower().partition("+")
        kind = kind or "single"
        try:
            if head == "unix":
                return cls("socket", path=unquote(rest.rpartition("@")[2]), database=int(options.get("db", "0")))
            if head not in ("redis", "rediss") or kind not in DEFAULT_PORTS:
                raise ValueError(scheme)
            return cls._networked(kind, rest, options, tls=head == "rediss")
        except ValueError:
            raise ConfigurationError(
                [
                    "REDIS_URL cannot be read: use redis://[user:password@]host:port/db (rediss:// for TLS), "
                    "redis+cluster://host:port,host:port, redis+sentinel://host:port,host:port/service/db "
                    "or unix:///path"
                ]
            ) from None

    @classmethod
    def _networked(cls, kind: str, rest: str, options: dict[str, str], *, tls: bool) -> RedisAddress:
        userinfo, _, location = rest.rpartition("@")
        authority, _, path = location.partition("/")
        username, _, password = userinfo.partition(":")
        parts = [part for part in path.split("/") if part]
        service = parts.pop(0) if kind == "sentinel" and parts else ""
        hosts = tuple(_host(one.strip(), DEFAULT_PORTS[kind]) for one in authority.split(","))
        if (kind == "sentinel") != bool(service) or len(parts) > 1 or (kind == "single" and len(hosts) > 1):
            raise ValueError(kind)
        return cls(
            kind,
            hosts=hosts,
            tls=tls,
            username=unquote(username) or None,
            password=unquote(password) or None,
            sentinel_password=options.get("sentinel_password"),
            database=int(parts[0]) if parts else int(options.get("db", "0")),
            service=service,
            options={
                key: value.lower() in ("1", "true", "yes") if key == "ssl_check_hostname" else value
                for key, value in options.items()
                if key in TLS_OPTIONS
            },
        )


def _host(text: str, default_port: int) -> tuple[str, int]:
    """Raises ValueError. IPv6 addresses stand in brackets."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    number = int(port) if port else default_port
    if not host or not 0 < number < 65_536:
        raise ValueError(text)
    return host, number
