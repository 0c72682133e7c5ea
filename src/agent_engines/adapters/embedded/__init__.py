"""Real servers without an installation: nats-server, PostgreSQL and Valkey from wheels, driven as child processes."""

from .endpoints import Endpoints
from .nats_server import NatsOptions
from .processes import ProcessSupervisor
from .stack import EmbeddedServers

__all__ = ["EmbeddedServers", "Endpoints", "NatsOptions", "ProcessSupervisor"]
