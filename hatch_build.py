"""The build: wheels with the compiled arithmetic where there is a C compiler, plain ones where not or with AGENT_ENGINES_PURE=1."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACE = "agent_engines/learning/_kernel.abi3.so"


class Kernel(BuildHookInterface):
    """An editable installation gets it beside the source, a wheel inside."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("AGENT_ENGINES_PURE") == "1":
            return
        root = Path(self.root)
        editable = version == "editable"
        self.room = tempfile.TemporaryDirectory(prefix="agent-engines-")
        target = root / "src" / PLACE if editable else Path(self.room.name) / Path(PLACE).name
        done = subprocess.run([sys.executable, str(root / "scripts" / "compile_kernel.py"), str(target)], check=False)
        if done.returncode != 0:
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        if not editable:
            build_data["force_include"][str(target)] = PLACE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        room = getattr(self, "room", None)
        if room is not None:
            room.cleanup()
