"""What `engines up` starts: names, replicas, environments."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from agent_engines.adapters.embedded import Endpoints
from agent_engines.cli.fleet import Member, child_environment, members
from agent_engines.cli.installation import free_port
from agent_engines.cli.up import described, trial
from agent_engines.config import load_config
from agent_engines.domain.errors import ConfigurationError

ENDPOINTS = Endpoints(nats_url="nats://n", postgres_url="postgresql://p", redis_url="redis://r")


def agent_id(target: str) -> str:
    return target.partition(":")[0]


def test_without_engines_there_are_the_built_in_ones_and_one_echo_agent() -> None:
    found = members([], 8080, agent_id)
    assert [member.name for member in found] == ["performance", "optimizing", "intelligence", "agent:echo:1"]
    assert {member.name: member.port for member in found} == {
        "performance": 0,
        "optimizing": 0,
        "intelligence": 8080,
        "agent:echo:1": 0,
    }


def test_replicas_are_numbered_for_each_agent_over_all_targets() -> None:
    found = members(["a:x*2", "b:y", "a:z"], 8080, agent_id)[3:]
    assert [(member.name, member.target) for member in found] == [
        ("agent:a:1", "a:x"),
        ("agent:a:2", "a:x"),
        ("agent:b:1", "b:y"),
        ("agent:a:3", "a:z"),
    ]


@pytest.mark.parametrize("text", ["a:b*0", "a:b*65", "a:b*x", "a:b*2*2", "a b", ""])
def test_a_target_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not usable"):
        members([text], 8080, agent_id)


def test_a_child_gets_the_servers_and_none_of_the_caller_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL_FILE", "/run/secrets/other")
    monkeypatch.setenv("NATS_URL", "nats://other")
    monkeypatch.setenv("AGENT_ID", "everyone")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    environment = child_environment(ENDPOINTS, Member("intelligence", "intelligence", 1234))
    assert environment["NATS_URL"] == "nats://n"
    assert environment["POSTGRES_URL"] == "postgresql://p"
    assert environment["AGENT_HTTP_PORT"] == "1234"
    assert environment["LOG_LEVEL"] == "DEBUG"
    assert not {"POSTGRES_URL_FILE", "AGENT_ID"} & set(environment)


def test_a_member_is_run_by_this_python() -> None:
    assert Member("intelligence", "intelligence").command == (
        *(sys.executable, "-m", "agent_engines.cli"),
        *("run", "intelligence"),
    )


def test_a_taken_port_is_told_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = load_config({"AGENT_HTTP_PORT": str(port)}, Path("/nonexistent/.env"))
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            free_port(config)


def test_port_0_takes_a_free_one() -> None:
    assert free_port(load_config({"AGENT_HTTP_PORT": "0"}, Path("/nonexistent/.env"))) > 0


def test_what_up_suggests_to_try_is_something_its_agents_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody echoes where `up` was given another engine: a task nobody performs waits in vain."""
    (tmp_path / "greeter.py").write_text(
        "from agent_engines import Engine\n"
        "engine = Engine('hello')\n"
        "@engine.task('greet')\n"
        "async def greet(payload: dict) -> dict: return payload\n"
        "print('users may print')\n"
    )
    monkeypatch.chdir(tmp_path)
    agent, performed = described("greeter:engine")
    assert (agent, performed) == ("hello", ["greet"])
    assert trial(performed) == "greet --payload '{...}'"
    assert trial(["echo"]) == "echo --payload '{\"hello\": 1}'"
    assert trial([]) is None
