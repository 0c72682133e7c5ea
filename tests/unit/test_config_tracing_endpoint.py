"""JAEGER_ENDPOINT and the OTEL_ variables: where spans go."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_engines.config import load_config
from agent_engines.domain.errors import ConfigurationError

NO_FILE = Path("/nonexistent/.env")


@pytest.mark.parametrize(
    ("given", "used", "warned"),
    [
        ({}, "http://127.0.0.1:4318/v1/traces", False),
        ({"JAEGER_ENDPOINT": "http://j:14268/api/traces"}, "http://j:4318/v1/traces", True),
        ({"JAEGER_ENDPOINT": "https://j:14268"}, "https://j:4318/v1/traces", True),
        ({"JAEGER_ENDPOINT": "http://j/api/traces"}, "http://j:4318/v1/traces", True),
        ({"JAEGER_ENDPOINT": "http://[::1]:14268/api/traces"}, "http://[::1]:4318/v1/traces", True),
        ({"JAEGER_ENDPOINT": "http://j:4317"}, "http://j:4318/v1/traces", True),
        ({"JAEGER_ENDPOINT": "http://j:4318"}, "http://j:4318/v1/traces", False),
        ({"JAEGER_ENDPOINT": "http://j:4318/"}, "http://j:4318/v1/traces", False),
        ({"JAEGER_ENDPOINT": "http://j:9000/v1/traces"}, "http://j:9000/v1/traces", False),
        (
            {"JAEGER_ENDPOINT": "http://j:14268/api/traces", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:4318/"},
            "http://o:4318/v1/traces",
            False,
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"},
            "http://t:1/x",
            False,
        ),
    ],
)
def test_the_endpoint_is_worked_out(given: dict[str, str], used: str, warned: bool) -> None:
    config = load_config(given, NO_FILE)
    assert config.traces_endpoint == used
    assert bool(config.warnings) == warned
    for warning in config.warnings:
        assert given["JAEGER_ENDPOINT"] in warning
        assert used in warning


@pytest.mark.parametrize(
    "value", ["http://j:9411/api/v2/spans", "http://j:16686", "http://j", "jaeger:14268", "udp://j:6831"]
)
def test_anything_else_is_an_error_and_not_silence(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config({"JAEGER_ENDPOINT": value}, NO_FILE)
    (line,) = caught.value.problems
    assert line.startswith("JAEGER_ENDPOINT=")


def test_a_password_in_the_translated_url_is_used_but_not_told() -> None:
    config = load_config({"JAEGER_ENDPOINT": "http://u:secretpw@j:14268/api/traces"}, NO_FILE)
    assert config.traces_endpoint == "http://u:secretpw@j:4318/v1/traces"
    assert "secretpw" not in config.warnings[0]
