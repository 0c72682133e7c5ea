"""Rules for Consul, where it is configured. Discovery by it is a hint, heartbeats decide."""

from __future__ import annotations

from .finding import FINE, Facts, Rule, Verdict, advice, unsafe

PART = "consul"


def _login(facts: Facts) -> Verdict:
    return (
        FINE
        if facts["anonymous"] != "accepted"
        else unsafe('acl { enabled = true, default_policy = "deny" } and CONSUL_HTTP_TOKEN')
    )


def _tls(facts: Facts) -> Verdict:
    return FINE if facts["tls"] or facts["local"] else unsafe("https:// in CONSUL_URL: the token crosses the network")


RULES = (
    Rule(
        "leader",
        ("leader",),
        "Without a leader nothing is registered.",
        lambda facts: FINE if facts["leader"] else advice("bring the servers of the Consul cluster back"),
    ),
    Rule("login", ("anonymous",), "Whoever reaches it may register an agent that is none.", _login),
    Rule("tls", ("tls", "local"), "Tokens cross the network.", _tls),
    Rule("version", ("version",), "For your records.", lambda facts: FINE, "a token with agent:read"),
)
