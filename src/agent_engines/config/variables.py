"""Every variable this package reads: meaning, default, allowed values. The reference page is made from this table."""

from __future__ import annotations

from dataclasses import dataclass

from agent_engines.domain.capability import MAX_KEYS, MIN_KEY_LENGTH

from . import parsing
from .parsing import Parser

OTLP_EXAMPLE = "http://collector:4318"
NATS_EXAMPLE = "nats://user:password@host:4222"


@dataclass(frozen=True, slots=True)
class Variable:
    """`default` is text like in the environment; an empty one means "not set" and is not parsed."""

    name: str
    default: str
    allowed: str
    meaning: str
    parse: Parser
    secret: bool = False
    is_url: bool = False


def _whole(name: str, default: int, low: int, high: int, meaning: str) -> Variable:
    return Variable(name, str(default), f"{low} to {high}", meaning, parsing.whole(low, high))


def _seconds(name: str, default: float, low: float, high: float, meaning: str) -> Variable:
    return Variable(name, f"{default:g}", f"{low:g} to {high:g} seconds", meaning, parsing.seconds(low, high))


def _choice(name: str, default: str, allowed: tuple[str, ...], meaning: str) -> Variable:
    fold = str.upper if default.isupper() else str.lower
    return Variable(name, default, ", ".join(allowed), meaning, parsing.choice(*allowed, fold=fold))


def _switch(name: str, default: bool, meaning: str) -> Variable:
    return Variable(name, str(default).lower(), "true, false", meaning, parsing.switch)


def _text(name: str, allowed: str, meaning: str, *, default: str = "", secret: bool = False) -> Variable:
    return Variable(name, default, allowed, meaning, parsing.anything, secret=secret)


def _url(name: str, parse: Parser, allowed: str, meaning: str, *, default: str = "") -> Variable:
    return Variable(name, default, allowed, meaning, parse, is_url=True)


SERVERS = (
    _url(
        "NATS_URL",
        parsing.url_list("nats", "tls", example=NATS_EXAMPLE),
        "comma list of `nats://` or `tls://` URLs",
        "The bus: queues, signals and shared settings.",
        default="nats://127.0.0.1:4222",
    ),
    _text("NATS_CREDS", "path of a file", "Credentials file for the bus. Names as in the NATS command line."),
    _text("NATS_NKEY", "path of a file", "File with an nkey seed."),
    _text("NATS_CA", "path of a file", "Certificates of authorities the bus is checked against."),
    _text("NATS_CERT", "path of a file", "Certificate this process shows to the bus."),
    _text("NATS_KEY", "path of a file", "Private key of that certificate."),
    _url(
        "POSTGRES_URL",
        parsing.postgres_url,
        "`postgresql://` URL, `sslmode` honoured",
        "The ledger. Needed by the built-in engines, not by agents.",
    ),
    _url(
        "REDIS_URL",
        parsing.redis_url,
        "`redis://`, `rediss://`, `redis+cluster://a,b`, `redis+sentinel://a,b/service`, `unix://`, `memory://`",
        "The cache. Empty: none; nothing in it is needed for a right answer.",
    ),
    _url(
        "CONSUL_URL",
        parsing.url("http", "https", example="http://127.0.0.1:8500"),
        "`http://` or `https://` URL",
        "Service discovery. Empty: by heartbeats over the bus alone.",
    ),
    _text("CONSUL_HTTP_TOKEN", "text", "Access token for Consul.", secret=True),
)

AGENT = (
    Variable(
        "AGENT_ID",
        "",
        "1 to 64 letters, digits, `-`, `_`",
        "Name of the agent; replicas that share it share its queue. Empty: the name in the code.",
        parsing.agent_id,
    ),
    _whole("AGENT_MAX_CONCURRENT_TASKS", 100, 1, 100_000, "Tasks one replica runs at the same time."),
    _whole("AGENT_QUEUE_SIZE", 1000, 1, 1_000_000, "Tasks one replica holds waiting, most urgent first."),
    _seconds("AGENT_TASK_TIMEOUT_SECONDS", 300, 0.001, 86_400, "Longest run of a task that names no timeout."),
    _seconds("AGENT_HEARTBEAT_INTERVAL", 30, 0.1, 3600, "Time between full heartbeats."),
    _seconds("AGENT_SHUTDOWN_GRACE_SECONDS", 30, 0, 3600, "How long running tasks may finish after SIGTERM."),
    Variable("AGENT_HTTP_HOST", "127.0.0.1", "host or address", "Where the HTTP side listens.", parsing.host),
    _whole("AGENT_HTTP_PORT", 8080, 0, 65_535, "Port of the HTTP side; 0 takes any free one."),
)

DATABASE = (
    _whole("POSTGRES_POOL_MIN", 5, 1, 1000, "Connections kept open."),
    _whole("POSTGRES_POOL_MAX", 20, 1, 1000, "Most connections; a good start is cores * 2 + disks."),
)

BREAKER = (
    _whole("CIRCUIT_BREAKER_THRESHOLD", 10, 1, 1_000_000, "Failures that take an agent out."),
    _seconds("CIRCUIT_BREAKER_TIMEOUT", 120, 0.1, 86_400, "How long it stays out before it is tried again."),
)

TELEMETRY = (
    _choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"), "Least severe line that is written."),
    _choice("LOG_FORMAT", "json", ("json", "console"), "One JSON object a line, or lines for people."),
    _switch("ENABLE_METRICS", True, "Count, and answer `/metrics`."),
    _switch("ENABLE_TRACING", False, "Export spans (OTLP over HTTP)."),
    _url(
        "JAEGER_ENDPOINT",
        parsing.url("http", "https", example="http://jaeger:4318"),
        "`http://` or `https://` URL",
        "Older name for the place spans go to; `:14268/api/traces` is translated to `:4318/v1/traces`.",
    ),
    _url(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        parsing.url("http", "https", example=OTLP_EXAMPLE),
        "`http://` or `https://` URL",
        "Where telemetry goes; `/v1/traces` is added. Wins over `JAEGER_ENDPOINT`.",
    ),
    _url(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        parsing.url("http", "https", example=f"{OTLP_EXAMPLE}/v1/traces"),
        "`http://` or `https://` URL",
        "Where spans go, used as it is. Wins over both.",
    ),
    _text("OTEL_EXPORTER_OTLP_HEADERS", "`name=value,...`", "Headers of exports, such as keys.", secret=True),
    _text("OTEL_SERVICE_NAME", "text", "Name in traces. Empty: `agent-engines.<engine>`."),
    _text("OTEL_RESOURCE_ATTRIBUTES", "`name=value,...`", "Added to every span's resource."),
    _choice(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        (
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ),
        "Which traces are exported.",
    ),
    _text("OTEL_TRACES_SAMPLER_ARG", "0 to 1", "Share of traces for the `traceidratio` samplers.", default="1"),
)

ROUTING = (
    Variable(
        "ROUTING_STRATEGY",
        "adaptive",
        "name of a strategy",
        "How agents are chosen where nothing else is said: adaptive, random, round_robin, least_loaded, power_of_two, "
        "prequal, c3, cost_aware, load_aware, or a policy of your own (entry point `agent_engines.policies`). "
        "A promoted policy goes before it.",
        parsing.strategy,
    ),
    Variable(
        "ROUTING_STRATEGIES",
        "",
        "`task_type=strategy,...`",
        "Another strategy for single task types.",
        parsing.pairs("task_type=strategy", parsing.strategy),
    ),
    Variable(
        "ROUTING_FALLBACK",
        "least_loaded",
        "name of a shipped strategy",
        "Who decides when a policy raises or answers nonsense.",
        parsing.strategy,
    ),
    Variable(
        "ROUTING_PRICE",
        "0.1",
        "0 to 1000000",
        "Value of one unit of cost, in units of quality: what the adaptive strategy pays for a better answer.",
        parsing.number(0.0, 1e6),
    ),
    Variable(
        "ROUTING_TEXT",
        "",
        "`task_type=payload field,...`",
        "Task types whose payload has a text to learn from: its words are hashed into 32 numbers.",
        parsing.pairs("task_type=field", parsing.anything),
    ),
    _switch(
        "ROUTING_HEDGING",
        True,
        "Whether a task of an idempotent type that takes longer than 99 of 100 is sent to a second agent too.",
    ),
    _switch(
        "ROUTING_PACING",
        True,
        "Whether cost becomes dearer for tenants that spend ahead of their budget, so that it lasts for the period.",
    ),
)

OURS = (
    _choice("ENGINES_PROFILE", "dev", ("dev", "production"), "`production` refuses unsafe settings."),
    _url(
        "ENGINES_URL",
        parsing.url_list("http", "https", "nats", "tls", example="http://127.0.0.1:8080"),
        "`http://`, `https://`, `nats://` or `tls://` URL",
        "Where the Python client and the command line find the system.",
    ),
    _text("ENGINES_API_KEY", "text", "Sent by the client as a bearer token.", secret=True),
    _text(
        "ENGINES_DATA_DIR",
        "a folder",
        "Where `engines up` keeps servers' data and `endpoints.json`.",
        default=".engines",
    ),
    _whole("ENGINES_MAX_BODY_BYTES", 1_048_576, 1024, 67_108_864, "Largest request body, bytes."),
    _whole("ENGINES_RETENTION_DAYS", 30, 1, 3650, "Days that results and decisions are kept."),
    _whole("ENGINES_QUEUE_MAX_TASKS", 1_000_000, 1, 100_000_000, "Most tasks waiting on the bus, for each class."),
    Variable(
        "ENGINES_CAPABILITY_KEY",
        "",
        "a key of at least 32 characters, or `new,old`",
        "For routers only: marks dispatches, so that only the agent a task went to can report on it. "
        "Empty: the routers make one and share it in the ledger.",
        parsing.keys(MAX_KEYS, MIN_KEY_LENGTH),
        secret=True,
    ),
    _seconds("ENGINES_LEASE_SECONDS", 30, 1, 3600, "Silence after which a task is given to somebody else."),
    _text(
        "ENGINES_SPOOL_DIR",
        "a folder",
        "Where agents keep finished results while the bus is away. Empty: in memory only; `engines up` uses its data folder.",
    ),
    _whole("ENGINES_BUS_REPLICAS", 0, 0, 5, "Copies of each stream; 0: three in a NATS cluster, else one."),
    _choice(
        "ENGINES_BUS_SYNC",
        "interval",
        ("interval", "always"),
        "`always`: the bus writes each message to the disk before it acknowledges it, so tasks are accepted even while "
        "PostgreSQL is away. `engines up` sets its server so; elsewhere it is your word that `sync_interval` is `always`.",
    ),
    _whole(
        "ENGINES_BUS_STORE_BYTES",
        0,
        0,
        1 << 50,
        "Disk the streams may take together, bytes, at least 16 MiB; 0: as much as the bus has room for, up to 64 GiB.",
    ),
)

GROUPS: dict[str, tuple[Variable, ...]] = {
    "Servers": SERVERS,
    "Agents": AGENT,
    "Database pool": DATABASE,
    "Circuit breaker": BREAKER,
    "Telemetry": TELEMETRY,
    "Routing": ROUTING,
    "Agent Engines": OURS,
}

VARIABLES: dict[str, Variable] = {one.name: one for group in GROUPS.values() for one in group}
