"""Compiles the kernels, each folder's `_kernel.c`; what the build does, and what you do again after a change of one of them.

    python scripts/compile_kernel.py [FOLDER]

FOLDER: what takes the place of `src`, where the kernels go beside their sources otherwise. Ends with 1 and says why where there is
no compiler that can do it: nothing is lost then but speed. The stable ABI: one file for every CPython from 3.11 up; not for
free-threaded ones, nor for PyPy.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
FOLDERS = ("agent_engines/learning", "agent_engines/domain", "agent_engines/adapters/postgres")
NAME = "_kernel.abi3.so"
# No fused multiply-add, no other order of sums: what a lesson leaves behind has numpy's bits.
FLAGS = ("-O3", "-fPIC", "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno", "-fvisibility=hidden")


def command(source: Path, target: Path) -> list[str]:
    """What the interpreter's own extensions are linked with; `CC` names another compiler. Raises OSError for none."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise OSError("this Python has no stable ABI")
    linker = shlex.split(sysconfig.get_config_var("LDSHARED") or "")
    if not linker:
        raise OSError("this Python does not say how it links extensions")
    compiler = shlex.split(os.environ.get("CC") or "") or linker[:1]
    headers = sysconfig.get_path("include")
    return [*compiler, *linker[1:], *FLAGS, f"-I{headers}", str(source), "-o", str(target), "-lm"]


def compiled(source: Path, target: Path) -> None:
    """`target`, made. Raises OSError when it could not be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        found = subprocess.run(command(source, unfinished), capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise OSError(f"the compiler says: {found.stderr.strip()[-2000:]}")
        # A process that has the old one open keeps it.
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    failed = 0
    for folder in FOLDERS:
        try:
            compiled(SOURCE / folder / "_kernel.c", root / folder / NAME)
        except OSError as error:
            failed = 1
            print(f"{folder}/_kernel.c is not compiled, Python will do its work: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
