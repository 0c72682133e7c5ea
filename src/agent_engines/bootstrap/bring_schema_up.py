"""`python -m agent_engines.bootstrap.bring_schema_up` migrates POSTGRES_URL; 1 and one line on stderr when it cannot.

`engines up` asks a child process, so that alembic never lives in the supervisor. It is not `engines db migrate`: what a command
line for people brings along (tables, colours, an HTTP client) is a third of that command's time.
"""

from __future__ import annotations

import asyncio
import sys

from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.config import load_config
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.redaction import redacted_text

if __name__ == "__main__":
    try:
        asyncio.run(migrate(load_config().postgres_url))
    except AgentEnginesError as error:
        sys.exit(redacted_text(str(error)))
    except Exception as error:
        sys.exit(redacted_text(f"{type(error).__name__}: {error}"))
