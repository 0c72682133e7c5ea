"""Where a client finds the system when nobody told it."""

from __future__ import annotations

import json
from pathlib import Path

from agent_engines.config import Config, load_config
from agent_engines.config.client_url import client_url

NO_FILE = Path("/nonexistent/.env")


def config(data_dir: Path, **environ: str) -> Config:
    return load_config({"ENGINES_DATA_DIR": str(data_dir), **environ}, NO_FILE)


def test_the_url_of_the_system_wins(tmp_path: Path) -> None:
    found = config(tmp_path, ENGINES_URL="http://a:1", NATS_URL="nats://b:2")
    assert client_url(found) == "http://a:1"


def test_the_bus_is_next_for_those_who_speak_it(tmp_path: Path) -> None:
    found = config(tmp_path, NATS_URL="nats://b:2")
    assert client_url(found) == "nats://b:2"
    assert client_url(found, http_only=True) == "http://127.0.0.1:8080"


def test_what_runs_in_the_data_folder_is_next(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps({"http_url": "http://127.0.0.1:12345"}))
    assert client_url(config(tmp_path)) == "http://127.0.0.1:12345"


def test_a_broken_endpoints_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{")
    assert client_url(config(tmp_path)) == "http://127.0.0.1:8080"
