"""`python -m agent_engines.bootstrap.describe module:attr` prints the engine's agent id and task types as JSON.

`engines up` asks a child process, so that users' code and whatever it imports never live in the supervisor.
"""

from __future__ import annotations

import json
import sys

from agent_engines.bootstrap.custom import load_engine
from agent_engines.domain.errors import AgentEnginesError

if __name__ == "__main__":
    try:
        engine = load_engine(sys.argv[1])
        sys.stdout.write(
            json.dumps(
                {
                    "agent_id": engine.config.agent_id,
                    "task_types": [one.task_type for one in engine.profile.capabilities],
                }
            )
        )
    except AgentEnginesError as error:
        sys.exit(str(error))
