"""Tasks a second from submit to result on a system of its own: over the bus and over HTTP, with the Python client.

    python benchmarks/throughput.py [--tasks 20000] [--strategy adaptive --strategy random] [--agents 1] [--rounds 1] [--bytes 200]

Prints one JSON line for each way; with strategies, for each of them in turn on the same running system, so that they can be
compared (`--rounds 5` for medians: the first round warms up). `--agents` replaces the echo agent by so many of its kind. Acceptance and results are committed in PostgreSQL with synchronous_commit on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from agent_engines import Client, TaskRequest


async def measure(
    url: str, tasks: int, task_type: str, strategy: str | None, size: int = 200
) -> dict[str, float | str]:
    """Submit everything, then take every result; `size`: bytes of a payload's text."""
    requests = [
        TaskRequest(task_type=task_type, payload={"i": i, "pad": "x" * size}, strategy=strategy) for i in range(tasks)
    ]
    async with Client(url) as client:
        begun = time.perf_counter()
        handles = await client.submit_many(requests)
        submitted = time.perf_counter()
        for handle in handles:
            await handle.result(timeout=120)
        ended = time.perf_counter()
    return {
        "way": url.split(":", 1)[0],
        **({} if strategy is None else {"strategy": strategy}),
        "tasks": tasks,
        "submitted_per_s": round(tasks / (submitted - begun)),
        "done_per_s": round(tasks / (ended - begun)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--strategy", action="append", help="how agents are chosen; may be given several times")
    parser.add_argument("--agents", type=int, default=0, help="agents to choose among; 0: the echo agent alone")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=200, help="of a payload's text, which comes back as the result")
    options = parser.parse_args()
    strategies: list[str | None] = options.strategy or [None]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        command = [sys.executable, "-m", "agent_engines.cli", "up", "--ephemeral", "--data-dir", folder, "--port", "0"]
        for number in range(options.agents):
            command += ["--engine", f"throughput_agents:agent_{number}"]
        here = str(Path(__file__).resolve().parent)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            endpoints = Path(folder) / "endpoints.json"
            while not endpoints.exists():
                if process.poll() is not None:
                    sys.exit(f"`engines up` ended with {process.returncode}")
                time.sleep(0.05)
            known = json.loads(endpoints.read_text())
            task_type = "bench" if options.agents else "echo"
            for name in ("nats_url", "http_url"):
                for _ in range(options.rounds):
                    for strategy in strategies:
                        line = uvloop.run(measure(known[name], options.tasks, task_type, strategy, options.bytes))
                        print(json.dumps(line), flush=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


if __name__ == "__main__":
    main()
