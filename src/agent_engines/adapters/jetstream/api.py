"""The JetStream management calls we use, as plain JSON requests."""

from __future__ import annotations

from typing import Any

import msgspec

from agent_engines.domain.errors import Unavailable

from .requests import ApiError, Requests

API_SECONDS = 5.0
NOT_FOUND = frozenset({10059, 10014, 10037})
"""No such stream, consumer, message."""
NAME_IN_USE = 10058
NANOSECONDS = 1_000_000_000


class JetStreamApi:
    """Every call raises Unavailable (no answer) or ApiError (an answer we did not want)."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def call(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        payload = msgspec.json.encode(body) if body is not None else b""
        reply = await self._requests.request(f"$JS.API.{subject}", payload, API_SECONDS)
        try:
            answer = msgspec.json.decode(reply.data)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the bus answered {subject} with something unreadable") from error
        problem = answer.get("error")
        if problem:
            raise ApiError(f"{subject}: {problem.get('description', 'refused')}", int(problem.get("err_code", 0)))
        return answer

    async def find(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Like `call`; None when the thing does not exist."""
        try:
            return await self.call(subject, body)
        except ApiError as error:
            if error.code in NOT_FOUND:
                return None
            raise

    async def ensure_consumer(self, stream: str, name: str, config: dict[str, Any]) -> None:
        """Create the consumer or bring its settings up to date."""
        subject = f"CONSUMER.CREATE.{stream}.{name}"
        if config.get("filter_subject"):
            subject = f"{subject}.{config['filter_subject']}"
        await self.call(subject, {"stream_name": stream, "config": {**config, "name": name}})

    async def drop_consumer(self, stream: str, name: str) -> None:
        await self.find(f"CONSUMER.DELETE.{stream}.{name}")
