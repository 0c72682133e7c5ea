"""What `engines up` costs before it has anything to do: seconds until ready, memory and CPU of all its processes.

    python -m benchmarks.idle [--seconds 20]

Prints one JSON line. Memory is proportional set size (shared pages counted once), with resident size beside it.
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

from benchmarks.processes import cpu, family, memory, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        begun = time.monotonic()
        command = [sys.executable, "-m", "agent_engines.cli", "up", "--data-dir", folder, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (Path(folder) / "endpoints.json").exists():
                if process.poll() is not None:
                    sys.exit(f"`engines up` ended with {process.returncode}")
                time.sleep(0.02)
            ready = time.monotonic() - begun
            time.sleep(5)
            pids = family(process.pid)
            before = {pid: cpu(pid) for pid in pids}
            time.sleep(options.seconds)
            used = {pid: cpu(pid) - before[pid] for pid in pids if Path(f"/proc/{pid}").exists()}
            sizes = {pid: memory(pid) for pid in used}
            if options.verbose:
                for pid in sorted(used):
                    print(
                        f"{sizes[pid][0]:7.1f} {sizes[pid][1]:7.1f} MiB {used[pid]:6.2f} s  {name(pid)}",
                        file=sys.stderr,
                    )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    print(
        json.dumps(
            {
                "ready_seconds": round(ready, 2),
                "processes": len(used),
                "pss_mib": round(sum(pss for pss, _ in sizes.values()), 1),
                "rss_mib": round(sum(rss for _, rss in sizes.values()), 1),
                "cpu_percent_of_a_core": round(100 * sum(used.values()) / options.seconds, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
