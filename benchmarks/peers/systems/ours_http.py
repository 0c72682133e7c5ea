"""Agent Engines with its Python client over HTTP."""

from benchmarks.peers.engines_up import EnginesUp


class System(EnginesUp):
    def __init__(self) -> None:
        super().__init__("Agent Engines, client over HTTP", "http_url")
