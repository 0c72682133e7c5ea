"""The Python client: submit work, wait for it, follow it, ask who would do it. Over HTTP, or over the bus."""

from agent_engines.domain.errors import Unreachable

from .client import Client
from .handle import TaskHandle
from .options import ClientOptions
from .sync import SyncClient, SyncTaskHandle
from .transport import Transport

__all__ = ["Client", "ClientOptions", "SyncClient", "SyncTaskHandle", "TaskHandle", "Transport", "Unreachable"]
