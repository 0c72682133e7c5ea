"""`python -m agent_engines.bootstrap.describe module:attr` prints the engine's agent id.

`engines up` asks a child process, so that users' code and whatever it imports never live in the supervisor.
"""

from __future__ import annotations

import sys

from agent_engines.bootstrap.custom import load_engine
from agent_engines.domain.errors import AgentEnginesError

if __name__ == "__main__":
    try:
        sys.stdout.write(load_engine(sys.argv[1]).config.agent_id)
    except AgentEnginesError as error:
        sys.exit(str(error))
