"""How close ours comes to what JetStream, PostgreSQL and HTTP allow: limits and ours in the same run, taking turns.

    python benchmarks/limits/run.py [--rounds 5] [--count 20000] [--only many,one] [--backlog 1000000] [--json FILE]

Prints the median of the rounds for each figure, and for each bar its ratio. Everything runs on one installation of its
own (`engines up`, nothing ephemeral: fsync and synchronous_commit are on), bare and ours on the same two servers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import bare
import uvloop
import waiting

HERE = Path(__file__).parent
Figures = dict[str, list[float]]


class System:
    """One installation with one replica of the no-op agent, and the processes of the bare pipeline."""

    def __init__(self, folder: Path) -> None:
        self._exits = contextlib.ExitStack()
        self._folder = folder
        self.known: dict[str, Any] = {}
        self.key = os.urandom(32).hex()

    def __enter__(self) -> System:
        command = [sys.executable, "-m", "agent_engines.cli", "up", "--data-dir", str(self._folder), "--port", "0"]
        self._exits.enter_context(process([*command, "--engine", "noop:engine"], ENGINES_CAPABILITY_KEY=self.key))
        self.known = endpoints(self._folder)
        uvloop.run(bare.set_up(self.nats, self.postgres))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    @property
    def nats(self) -> str:
        return self.known["nats_url"]

    @property
    def postgres(self) -> str:
        return self.known["postgres_url"]

    @property
    def servers(self) -> list[int]:
        return [self.known["pids"][name] for name in ("nats", "postgres")]

    @property
    def pids(self) -> list[int]:
        """Of everything but the supervisor, which does nothing."""
        return list(self.known["pids"].values())

    @property
    def agent(self) -> int:
        return self.known["pids"]["agent:noop:1"]

    def environment(self) -> dict[str, str]:
        return {"NATS_URL": self.nats, "AGENT_HTTP_PORT": "0"}

    def replica(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Another process of the agent."""
        return process([sys.executable, "-m", "agent_engines.cli", "run", "noop:engine"], **self.environment())

    def drive(self, what: str, count: int, pids: list[int]) -> dict[str, float]:
        command = [sys.executable, str(HERE / "drive.py"), what, "--nats", self.nats, "--postgres", self.postgres]
        return answer([*command, "--count", str(count), "--pids", ",".join(map(str, pids))])

    def web(self, url: str, path: str, pids: list[int], *options: str) -> dict[str, float]:
        command = [sys.executable, str(HERE / "web.py"), "load", url, path, "--pids", ",".join(map(str, pids))]
        return answer([*command, *options])

    @contextlib.contextmanager
    def bare_processes(self) -> Generator[list[int]]:
        with contextlib.ExitStack() as exits:
            command = [sys.executable, str(HERE / "bare.py")]
            pair = [
                exits.enter_context(process([*command, role, self.nats, self.postgres]))
                for role in ("worker", "recorder")
            ]
            time.sleep(1.0)
            yield [*self.servers, *(one.pid for one in pair)]

    @contextlib.contextmanager
    def agents_stopped(self) -> Generator[None]:
        """Acceptance alone: what is accepted waits meanwhile."""
        os.kill(self.agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.agent, signal.SIGCONT)
            uvloop.run(waiting.until_empty(self.nats))


@contextlib.contextmanager
def process(command: list[str], **environment: str) -> Generator[subprocess.Popen[bytes]]:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    surroundings = {**os.environ, "PYTHONPATH": path, **environment}
    running = subprocess.Popen(
        command, cwd=HERE, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if environment else None
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


def endpoints(folder: Path) -> dict[str, Any]:
    file = folder / "endpoints.json"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError):
            known: dict[str, Any] = json.loads(file.read_text())
            if known.get("http_url"):
                return known
        time.sleep(0.1)
    sys.exit("`engines up` is not ready after two minutes")


def answer(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        sys.exit(f"{' '.join(command[1:3])} failed: {done.stdout[-500:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def note(figures: Figures, name: str, told: dict[str, float]) -> None:
    for key, value in told.items():
        if key != "seconds":
            figures.setdefault(f"{name}.{key}", []).append(value)
    print(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in told.items()), file=sys.stderr, flush=True)


def one_round(system: System, options: argparse.Namespace, figures: Figures) -> None:
    wanted, count = options.only, options.count

    def asked(name: str) -> bool:
        return not wanted or name in wanted

    if asked("many"):
        with system.bare_processes() as pids:
            note(figures, "bare-many", system.drive("bare-many", count, pids))
        note(figures, "ours-many", system.drive("ours-many", count, system.pids))
        if asked("two"):
            with system.replica() as second:
                time.sleep(2.0)
                note(figures, "ours-two", system.drive("ours-many", count, [*system.pids, second.pid]))
    if asked("one"):
        with system.bare_processes() as pids:
            note(figures, "bare-one", system.drive("bare-one", 1_000, pids))
        note(figures, "ours-one", system.drive("ours-one", 1_000, system.pids))
    if asked("crowd"):
        with system.bare_processes() as pids:
            note(figures, "bare-crowd", system.drive("bare-crowd", 10_000, pids))
        note(figures, "ours-crowd", system.drive("ours-crowd", 10_000, system.pids))
    if asked("submit"):
        for raw in ("raw-publish", "raw-pull", "raw-request", "raw-insert"):
            note(figures, raw, system.drive(raw, count, system.servers))
        note(figures, "bare-submit", system.drive("bare-submit", count, system.servers))
        with system.agents_stopped():
            note(figures, "ours-submit", system.drive("ours-submit", count, system.pids))
    if asked("http"):
        web_round(system, options, figures)


def web_round(system: System, options: argparse.Namespace, figures: Figures) -> None:
    seconds = str(options.seconds)
    with process([sys.executable, str(HERE / "web.py"), "echo", "0"]) as echoing:
        assert echoing.stdout is not None
        url = echoing.stdout.readline().decode().strip()
        note(figures, "echo", system.web(url, "/echo", [echoing.pid], "--seconds", seconds))
    url = system.known["http_url"]
    with system.agents_stopped():
        note(figures, "route-task", system.web(url, "/route-task", system.pids, "--seconds", seconds))
    with system.agents_stopped():
        note(figures, "batch", system.web(url, "/v1/tasks:batch", system.pids, "--seconds", seconds, "--tasks", "500"))


BARS: tuple[tuple[str, str, str, str, float], ...] = (
    ("one replica, submit to recorded result", "ours-many.per_s", "bare-many.per_s", ">=", 0.5),
    ("two replicas against one", "ours-two.per_s", "ours-many.per_s", ">=", 1.0),
    ("a lone task, p50", "ours-one.p50_ms", "bare-one.p50_ms", "<=", 2.0),
    ("32 under way, p99", "ours-crowd.p99_ms", "bare-crowd.p99_ms", "<=", 2.0),
    ("CPU for 1,000 tasks", "ours-many.cpu_per_1000", "bare-many.cpu_per_1000", "<=", 2.5),
    ("submit_many against raw publishing", "ours-submit.per_s", "raw-publish.per_s", ">=", 0.6),
    ("/route-task against an echo", "route-task.per_s", "echo.per_s", ">=", 0.6),
    ("batch against /route-task", "batch.per_s", "route-task.per_s", ">=", 5.0),
    ("waiting many against waiting few", "waiting-many.per_s", "waiting-few.per_s", ">=", 0.85),
)


def summary(figures: Figures) -> dict[str, Any]:
    """Medians, and the ratio of each bar whose two sides were measured."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    bars: list[dict[str, Any]] = []
    for what, ours, limit, sense, bound in BARS:
        if ours in medians and limit in medians:
            ratio = medians[ours] / medians[limit]
            met = ratio >= bound if sense == ">=" else ratio <= bound
            bars.append(
                {
                    "what": what,
                    "ours": medians[ours],
                    "limit": medians[limit],
                    "ratio": ratio,
                    "bar": f"{sense} {bound:g}",
                    "met": met,
                }
            )
    if "waiting-many.worker_mib" in medians:
        peak = medians["waiting-many.worker_mib"]
        bars.append(
            {
                "what": "worker memory, MiB",
                "ours": peak,
                "limit": 120.0,
                "ratio": peak / 120.0,
                "bar": "< 1",
                "met": peak < 120.0,
            }
        )
    return {"medians": medians, "bars": bars}


def show(found: dict[str, Any]) -> None:
    print("\nmedians")
    for name, value in found["medians"].items():
        print(f"  {name:<28} {value:12.4g}")
    print(f"\n{'bar':<42} {'ours':>10} {'limit':>10} {'ratio':>7}  wanted")
    for bar in found["bars"]:
        verdict = "" if bar["met"] else "   NOT MET"
        print(
            f"{bar['what']:<42} {bar['ours']:>10.4g} {bar['limit']:>10.4g} {bar['ratio']:>7.2f}  {bar['bar']}{verdict}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="tasks of one throughput measurement")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one HTTP measurement")
    parser.add_argument(
        "--only",
        type=lambda text: set(text.split(",")),
        default=set(),
        help="many, two, one, crowd, submit, http, waiting",
    )
    parser.add_argument("--backlog", type=int, default=0, help="tasks that wait, for `waiting`; 0: not measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with System(Path(folder) / "data") as system:
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                one_round(system, options, figures)
            if options.backlog:
                for name, told in waiting.measure(system, options.backlog).items():
                    note(figures, name, told)
    found = summary(figures)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
