"""How patient and how parallel a client is."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Durations in seconds."""

    api_key: str = ""
    """Sent as a bearer token."""
    connect_timeout: float = 5.0
    request_timeout: float = 30.0
    retry_seconds: float = 30.0
    """How long a refused or unanswered submission is tried again; 0: never."""
    generate_keys: bool = True
    """Give every submission an idempotency key, so that one whose answer got lost can be sent again."""
    batch_size: int = 500
    """Most submissions in one request; at most 1000."""
    lanes: int = 4
    """Batches under way at the same time."""
    waits: int = 16
    """Questions for outcomes under way at the same time; more cost more than they bring (each has a connection)."""

    def with_api_key(self, api_key: str) -> ClientOptions:
        return replace(self, api_key=api_key)
