"""Compiles src/agent_engines/learning/_kernel.c; what the build does, and what you do again after a change of that file.

    python scripts/compile_kernel.py [FILE]

FILE: where it goes, beside the source otherwise. Ends with 1 and says why where there is no compiler that can do it: nothing is
lost then but speed. The stable ABI: one file for every CPython from 3.11 up; not for free-threaded ones, nor for PyPy.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "agent_engines" / "learning" / "_kernel.c"
NAME = "_kernel.abi3.so"
# No fused multiply-add, no other order of sums: what a lesson leaves behind has numpy's bits.
FLAGS = ("-O3", "-fPIC", "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno", "-fvisibility=hidden")


def command(target: Path) -> list[str]:
    """What the interpreter's own extensions are linked with; `CC` names another compiler. Raises OSError for none."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise OSError("this Python has no stable ABI")
    linker = shlex.split(sysconfig.get_config_var("LDSHARED") or "")
    if not linker:
        raise OSError("this Python does not say how it links extensions")
    compiler = shlex.split(os.environ.get("CC") or "") or linker[:1]
    headers = sysconfig.get_path("include")
    return [*compiler, *linker[1:], *FLAGS, f"-I{headers}", str(SOURCE), "-o", str(target), "-lm"]


def compiled(target: Path) -> Path:
    """`target`, made. Raises OSError when it could not be."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        found = subprocess.run(command(unfinished), capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise OSError(f"the compiler says: {found.stderr.strip()[-2000:]}")
        # A process that has the old one open keeps it.
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.with_name(NAME)
    try:
        compiled(target)
    except OSError as error:
        print(f"{SOURCE.name} is not compiled, numpy will do its work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
