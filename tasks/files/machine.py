"""The machine that a stage runs on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["cpu_name"]


def cpu_name() -> str:
    """Return what people call the processor, with the numbers that tell its revisions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1] for line in lines if line.startswith("model name"))
        numbers = [
            line.split(":")[1].strip()
            for line in lines
            if line.startswith(("cpu family", "model\t", "stepping"))
        ][:3]
        return f"{model.strip()} {'-'.join(numbers)}"
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
