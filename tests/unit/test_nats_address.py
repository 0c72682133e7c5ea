"""Where the bus is: URLs are read, secrets are kept apart from them."""

from __future__ import annotations

import pytest

from agent_engines.adapters.jetstream.connection import Address
from agent_engines.domain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("nats://h", ["nats://h:4222"]),
        ("h:4333", ["nats://h:4333"]),
        ("nats://a:1,nats://b:2, c", ["nats://a:1", "nats://b:2", "nats://c:4222"]),
        ("nats://[::1]:4222", ["nats://[::1]:4222"]),
        ("tls://h", ["tls://h:4222"]),
    ],
)
def test_servers_are_read_with_their_default_port(text: str, urls: list[str]) -> None:
    address = Address.parse(text)
    assert address.urls == urls
    assert address.require_tls is text.startswith("tls")


@pytest.mark.parametrize(
    ("text", "user", "password", "token"),
    [
        ("nats://me:secret@h", "me", "secret", None),
        ("nats://me:s%40c%2Fret@h", "me", "s@c/ret", None),
        ("nats://a,nats://me:secret@b", "me", "secret", None),
        ("nats://token-1@h", None, None, "token-1"),
        ("nats://h", None, None, None),
    ],
)
def test_credentials_are_taken_out_of_the_url(
    text: str, user: str | None, password: str | None, token: str | None
) -> None:
    address = Address.parse(text)
    assert (address.user, address.password, address.token) == (user, password, token)
    assert "@" not in "".join(address.urls)
    assert "secret" not in address.hosts
    assert "secret" not in repr(address)


@pytest.mark.parametrize("text", ["", " , ", "http://h", "nats://", "nats://me:secret@", "nats://h:99999", "ws://h"])
def test_what_is_not_a_server_is_refused_without_naming_the_secret(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NATS_URL") as refusal:
        Address.parse(text)
    assert "secret" not in str(refusal.value)
