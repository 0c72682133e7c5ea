"""Where spans go. Collectors of the older kind are named by a URL that no longer works; it is translated."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from agent_engines.domain.redaction import redacted_text

DEFAULT = "http://127.0.0.1:4318/v1/traces"
PATH = "/v1/traces"
HTTP_PORT = 4318
GRPC_PORT = 4317
THRIFT_PORT = 14268


def traces_endpoint(jaeger: str, otlp: str, otlp_traces: str) -> tuple[str, str]:
    """(URL spans are posted to, warning or ""). Any OTEL_ endpoint wins over JAEGER_ENDPOINT.

    JAEGER_ENDPOINT: port 14268 or path /api/traces becomes `:4318/v1/traces` on that host (collectors take OTLP there
    since Jaeger 1.35); 4318 or path /v1/traces is used as meant. Raises ValueError for anything else.
    """
    if otlp_traces:
        return otlp_traces, ""
    if otlp:
        return otlp.rstrip("/") + PATH, ""
    if not jaeger:
        return DEFAULT, ""
    parts = urlsplit(jaeger)
    path = parts.path.rstrip("/")
    if parts.port == THRIFT_PORT or path == "/api/traces":
        return _translated(parts, "the Thrift form is no longer spoken")
    if parts.port == GRPC_PORT and path in ("", PATH):
        return _translated(parts, "spans travel over HTTP, not gRPC")
    if path == PATH or (parts.port == HTTP_PORT and not path):
        return jaeger.rstrip("/") if path else f"{jaeger.rstrip('/')}{PATH}", ""
    raise ValueError("http://host:14268/api/traces (translated) or http://host:4318/v1/traces")


def _translated(parts: SplitResult, why: str) -> tuple[str, str]:
    userinfo, at, _ = parts.netloc.rpartition("@")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{userinfo}{at}{host}:{HTTP_PORT}{PATH}"
    old = redacted_text(parts.geturl())
    return url, f"JAEGER_ENDPOINT {old} is used as {redacted_text(url)}: {why}"
