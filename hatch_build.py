"""The build: wheels with the compiled kernels where there is a C compiler, plain ones where not or with AGENT_ENGINES_PURE=1."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """An editable installation gets them beside their sources, a wheel inside. Those that could not be compiled are left out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("AGENT_ENGINES_PURE") == "1":
            return
        root = Path(self.root)
        editable = version == "editable"
        self.room = tempfile.TemporaryDirectory(prefix="agent-engines-")
        folder = root / "src" if editable else Path(self.room.name)
        subprocess.run([sys.executable, str(root / "scripts" / "compile_kernel.py"), str(folder)], check=False)
        made = list((folder / "agent_engines").rglob("_kernel.abi3.so"))
        if not made:
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        if not editable:
            build_data["force_include"].update({str(path): path.relative_to(folder).as_posix() for path in made})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        room = getattr(self, "room", None)
        if room is not None:
            room.cleanup()
