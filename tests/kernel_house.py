"""The kernels compiled from today's sources, whatever is installed, and each of them as a module."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "compile_kernel.py"


def build(folder: Path) -> Path:
    """Fails where there is a compiler and in CI, is skipped otherwise."""
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if os.environ.get("CI") or shutil.which("cc") or shutil.which("gcc"):
            pytest.fail(done.stderr)
        pytest.skip(done.stderr)
    return folder


def kernel_file(built: Path, package: str) -> Path:
    return built / package.replace(".", "/") / "_kernel.abi3.so"


def loaded(built: Path, package: str) -> ModuleType:
    """`package`: `agent_engines.learning`, for one."""
    loader = importlib.machinery.ExtensionFileLoader(f"{package}._kernel", str(kernel_file(built, package)))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module
