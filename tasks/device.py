"""The device a stage runs on, made repeatable, and what of it changes the numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch

__all__ = ["environment", "set_up_device"]


def set_up_device(device: str, threads: int) -> torch.device:
    """Return the device to use, after fixing threads and asking for deterministic algorithms.

    Args:
        device: "auto" (CUDA, then Apple's, then the CPU), or a torch device.
        threads: number of CPU threads; results repeat to the bit for one number of threads.

    Returns:
        The device.

    Raises:
        ValueError: if the device is not there.
    """
    # cuBLAS reads this when it starts; without it deterministic algorithms refuse to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count())), *there]
    chosen = there[0] if device == "auto" else device
    if chosen not in there:
        raise ValueError(
            f"params.yaml: device: {device!r} is not on this machine, "
            f"allowed: auto, {', '.join(there)}"
        )
    if chosen != "cpu":
        # The CPU's kernels that are used here repeat as they are, and the call costs a second there:
        # it imports the compiler.
        torch.use_deterministic_algorithms(True)
    print(f"device: {chosen} ({device_name(chosen)}), {threads} threads", flush=True)
    return torch.device(chosen)


def device_name(device: torch.device | str) -> str:
    """Return what people call the device."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
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


def environment(device: torch.device, threads: int) -> str:
    """Return what of the machine and the software changes the numbers, and nothing else, in words.

    It is the same on every run on one machine, so it may stand in files that are compared by hash.
    """
    return (
        f"{device.type}, {device_name(device)}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{threads} threads, torch {torch.__version__}, numpy {np.__version__}"
    )
