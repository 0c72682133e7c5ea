"""The configuration: where values come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.config import Config, explain, load_config
from agent_engines.config.variables import VARIABLES
from agent_engines.domain.errors import ConfigurationError

NO_FILE = Path("/nonexistent/.env")
CANARY = "hunter2canary"


def load(dotenv: Path = NO_FILE, flags: dict[str, str | None] | None = None, **environ: str) -> Config:
    return load_config(environ, dotenv, flags=flags)


def problems(dotenv: Path = NO_FILE, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(dotenv, **environ)
    return caught.value.problems


def refused(dotenv: Path, **environ: str) -> list[str]:
    """The problems there are, if any."""
    try:
        load(dotenv, **environ)
    except ConfigurationError as error:
        return error.problems
    return []


def test_the_contract_s_defaults_hold() -> None:
    config = load()
    assert (config.agent_max_concurrent_tasks, config.agent_queue_size) == (100, 1000)
    assert (config.agent_task_timeout_seconds, config.agent_heartbeat_interval) == (300.0, 30.0)
    assert (config.agent_shutdown_grace_seconds, config.agent_http_port) == (30.0, 8080)
    assert (config.postgres_pool_min, config.postgres_pool_max) == (5, 20)
    assert (config.circuit_breaker_threshold, config.circuit_breaker_timeout) == (10, 120.0)
    assert (config.log_level, config.log_format, config.engines_profile) == ("INFO", "json", "dev")
    assert (config.enable_metrics, config.enable_tracing, config.consul_url) == (True, False, "")


def test_every_variable_has_a_field_of_its_name_and_every_default_is_allowed() -> None:
    own = {"traces_endpoint", "sources", "warnings"}
    assert {name.lower() for name in VARIABLES} == set(Config.__struct_fields__) - own
    for variable in VARIABLES.values():
        if variable.default:
            assert variable.parse(variable.default) is not None


def test_a_flag_wins_over_the_environment_and_that_over_the_env_file_and_that_over_the_default(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AGENT_QUEUE_SIZE=3\nLOG_LEVEL=DEBUG\nAGENT_ID=from-file\n")
    config = load(dotenv, {"AGENT_QUEUE_SIZE": "1", "AGENT_ID": None}, AGENT_QUEUE_SIZE="2", LOG_LEVEL="ERROR")
    assert (config.agent_queue_size, config.log_level, config.agent_id) == (1, "ERROR", "from-file")
    assert config.sources["AGENT_QUEUE_SIZE"] == "flag"
    assert config.sources["LOG_LEVEL"] == "environment"
    assert config.sources["AGENT_ID"] == ".env"
    assert config.sources["AGENT_HTTP_PORT"] == "default"


def test_explicit_tells_what_somebody_set_from_what_is_a_default() -> None:
    config = load(AGENT_QUEUE_SIZE="1000")
    assert config.explicit("AGENT_QUEUE_SIZE")
    assert not config.explicit("AGENT_HTTP_PORT")


def test_an_empty_value_counts_as_not_set() -> None:
    config = load(AGENT_QUEUE_SIZE="", REDIS_URL="  ")
    assert config.agent_queue_size == 1000
    assert not config.explicit("AGENT_QUEUE_SIZE")


def test_every_variable_can_be_read_from_a_file_whose_white_space_is_stripped(tmp_path: Path) -> None:
    secret = tmp_path / "postgres"
    secret.write_text("  postgresql://u:p@db/x\n")
    config = load(POSTGRES_URL_FILE=str(secret))
    assert config.postgres_url == "postgresql://u:p@db/x"
    assert config.sources["POSTGRES_URL"] == "file"


def test_a_file_form_in_the_env_file_loses_to_the_environment(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("POSTGRES_URL_FILE=/nowhere\n")
    assert load(dotenv, POSTGRES_URL="postgresql://db/x").postgres_url == "postgresql://db/x"


def test_a_variable_and_its_file_form_together_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("postgresql://a/b")
    (line,) = problems(POSTGRES_URL="postgresql://c/d", POSTGRES_URL_FILE=str(file))
    assert line == "POSTGRES_URL and POSTGRES_URL_FILE are both set (environment): keep one of them"


def test_a_file_that_cannot_be_read_or_is_empty_is_named(tmp_path: Path) -> None:
    (line,) = problems(REDIS_URL_FILE="/nonexistent/redis")
    assert line.startswith("REDIS_URL_FILE='/nonexistent/redis' cannot be read: No such file")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    (line,) = problems(REDIS_URL_FILE=str(empty))
    assert "is empty" in line


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("AGENT_QUEUE_SIZE", "0", "a whole number from 1 to 1000000"),
        ("AGENT_QUEUE_SIZE", "12.5", "a whole number from 1 to 1000000"),
        ("AGENT_QUEUE_SIZE", "9" * 30, "a whole number from 1 to 1000000"),
        ("AGENT_TASK_TIMEOUT_SECONDS", "nan", "a number of seconds from 0.001 to 86400"),
        ("AGENT_TASK_TIMEOUT_SECONDS", "-1", "a number of seconds from 0.001 to 86400"),
        ("AGENT_HTTP_PORT", "65536", "a whole number from 0 to 65535"),
        ("AGENT_HTTP_HOST", "a b", "a host name or an IP address"),
        ("AGENT_ID", "no.dots", "1 to 64 letters"),
        ("LOG_LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
        ("ENABLE_TRACING", "maybe", "true or false"),
        ("ENGINES_PROFILE", "prod", "one of dev, production"),
        ("NATS_URL", "http://x:1", "nats://, tls://"),
        ("POSTGRES_URL", "postgresql://h/db?sslmode=sure", "sslmode is one of disable"),
        ("REDIS_URL", "ftp://h", "redis://, rediss://"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "a share from 0 to 1"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name}=")
    assert allowed in line
    assert "\n" not in line
    if "://" not in value and len(value) < 20:
        assert value in line


def test_all_problems_are_told_at_once() -> None:
    lines = problems(AGENT_QUEUE_SIZE="x", LOG_LEVEL="y", POSTGRES_POOL_MIN="30")
    assert [line.partition("=")[0] for line in lines] == ["AGENT_QUEUE_SIZE", "LOG_LEVEL", "POSTGRES_POOL_MIN"]
    assert "POSTGRES_POOL_MAX=20" in lines[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_URL", f"postgresql://user:{CANARY}@host:99999999/db"),
        ("POSTGRES_URL", f"postgresql://user:a@b/{CANARY}@host:nope/db"),
        ("POSTGRES_URL", f"mysql://user:{CANARY}@host/db"),
        ("POSTGRES_URL", f"postgresql://user:{CANARY}"),
        ("POSTGRES_URL", f"postgresql://user:{CANARY}@host/db?sslmode=bad"),
        ("POSTGRES_URL", f"postgresql://host:x/db?password={CANARY}"),
        ("POSTGRES_URL", f"postgresql://user:ab\n{CANARY}@host/db"),
        ("POSTGRES_URL", f"host=db password={CANARY}"),
        ("NATS_URL", CANARY),
        ("NATS_URL", f"nats://a:{CANARY}@h1:4222,http://b:{CANARY}@h2"),
        ("NATS_URL", f"nats://{CANARY}@h1:badport"),
        ("REDIS_URL", f"redis+cluster://:{CANARY}@a:1,b:x"),
        ("JAEGER_ENDPOINT", f"http://user:{CANARY}@host:9999/what"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"key={CANARY}\x00"),
        ("ENGINES_API_KEY", f"{CANARY}\n{CANARY}"),
    ],
)
def test_an_error_never_shows_a_secret(name: str, value: str) -> None:
    lines = problems(**{name: value})
    assert len(lines) == 1
    assert CANARY not in lines[0]
    assert "\n" not in lines[0]


@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=40))
def test_any_text_is_accepted_or_refused_in_one_printable_line(name: str, text: str) -> None:
    found = refused(NO_FILE, **{name: text})
    assert len(found) <= 1
    assert all(line.isprintable() for line in found)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_env_file_is_read_or_refused_by_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    dotenv = tmp_path_factory.mktemp("env") / ".env"
    dotenv.write_text(text, encoding="utf-8")
    assert all(line.startswith(".env ") or "=" in line for line in refused(dotenv))


def test_an_env_file_has_comments_quotes_and_export(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        "# a comment\n\nexport LOG_LEVEL=debug # why not\n"
        "POSTGRES_URL=\"postgresql://u:p%23x@h/db\"\nAGENT_ID='a-1'\nOTEL_SERVICE_NAME=a#b\n"
    )
    config = load(dotenv)
    assert (config.log_level, config.agent_id) == ("DEBUG", "a-1")
    assert config.postgres_url == "postgresql://u:p%23x@h/db"
    assert config.otel_service_name == "a#b"


def test_a_broken_line_of_an_env_file_is_named_without_its_content(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"LOG_LEVEL=INFO\nthis is {CANARY}\n")
    assert problems(dotenv) == [".env line 2 is not of the form NAME=value"]


def test_an_unknown_variable_of_ours_is_warned_about_with_the_nearest_name() -> None:
    config = load(AGENT_QUEUE_SIZ="3", ENGINES_QQQQQQQQQQQQ="1", HOME="/root", ENGINES_SERVICE_HOST="10.0.0.1")
    assert config.warnings == (
        "AGENT_QUEUE_SIZ (environment) is not a variable of Agent Engines: did you mean AGENT_QUEUE_SIZE?",
        "ENGINES_QQQQQQQQQQQQ (environment) is not a variable of Agent Engines: `engines config show` lists the known ones",
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://:p@h:6380/1",
        "redis+cluster://a:1,b:2",
        "redis+sentinel://:p@a:26379,b:26379/main/0",
        "unix:///run/redis.sock",
        "memory://",
    ],
)
def test_the_forms_of_a_cache_url_are_accepted(url: str) -> None:
    assert load(REDIS_URL=url).redis_url == url


def test_a_comma_list_of_bus_urls_is_accepted_and_tidied() -> None:
    assert load(NATS_URL="nats://a:4222, tls://b:4222").nats_url == "nats://a:4222,tls://b:4222"


def test_explain_masks_secrets_and_names_sources() -> None:
    config = load(POSTGRES_URL=f"postgresql://u:{CANARY}@h/db", ENGINES_API_KEY=CANARY)
    rows = {row.name: row for row in explain(config)}
    assert rows["POSTGRES_URL"].value == "postgresql://u:***@h/db"
    assert rows["ENGINES_API_KEY"][1:4] == ("***", "environment", "")
    assert rows["AGENT_QUEUE_SIZE"][1:4] == ("1000", "default", "1000")
    assert CANARY not in str(rows)
    assert CANARY not in repr(config)


def test_require_names_what_is_missing() -> None:
    config = load()
    config.require("NATS_URL")
    with pytest.raises(ConfigurationError, match="POSTGRES_URL is not set"):
        config.require("NATS_URL", "POSTGRES_URL")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load().agent_id = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(load(), msgspec.Struct)


@pytest.mark.parametrize(
    "text", ["short", "k" * 31, f"{'a' * 32},short", ",".join("abc"[n] * 32 for n in range(3)), ","]
)
def test_weak_or_too_many_capability_keys_are_refused_and_never_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config({"ENGINES_CAPABILITY_KEY": text}, Path("/nonexistent/.env"))
    assert "ENGINES_CAPABILITY_KEY=(hidden)" in str(caught.value)
    assert "at least 32 characters" in str(caught.value)


def test_a_new_and_an_old_capability_key_may_be_given() -> None:
    keys = f"{'n' * 32}, {'o' * 40}"
    config = load_config({"ENGINES_CAPABILITY_KEY": keys}, Path("/nonexistent/.env"))
    assert config.engines_capability_key == keys.replace(" ", "")
