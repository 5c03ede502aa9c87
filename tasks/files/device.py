"""The device a stage runs on, made repeatable, and what of it changes the numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch

from tasks.files.machine import cpu_name
from tasks.files.resolved import resolved
from tasks.params.errors import ParamsError

__all__ = ["Machine", "device_name", "devices", "environment", "set_up_device"]


@dataclass(frozen=True)
class Machine:
    """What params.yaml says of how to compute.

    Args:
        threads: of this process; results repeat to the bit for one number of them.
        device: "auto" is CUDA, then Apple's, then the CPU.
        tf32: whether a GPU may round the factors of float32 products to 10 bits.
        deterministic: if not, cuDNN looks for its fastest algorithm and results need not repeat.
    """

    threads: int
    device: str
    tf32: bool
    deterministic: bool

    @classmethod
    def read(cls) -> Machine:
        """Return what `check` resolved."""
        return cls(**resolved("machine"))


def set_up_device(machine: Machine) -> torch.device:
    """Return the device to use, after fixing its threads, its precision and its algorithms.

    Args:
        machine: what is wanted.

    Returns:
        The device.

    Raises:
        ParamsError: if the device is not there.
    """
    # cuBLAS reads this when it starts; without it deterministic algorithms refuse to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(machine.threads)
    torch.backends.cudnn.benchmark = not machine.deterministic
    torch.backends.cudnn.allow_tf32 = machine.tf32
    torch.backends.cuda.matmul.allow_tf32 = machine.tf32
    there = devices()
    chosen = there[0] if machine.device == "auto" else machine.device
    if chosen not in there:
        raise ParamsError(
            f"params.yaml: device: {chosen!r} is not on this machine, "
            f"allowed: auto, {', '.join(there)}"
        )
    if chosen != "cpu":
        # The CPU's kernels that are used here repeat as they are, and the call costs a second there:
        # it imports the compiler.
        torch.use_deterministic_algorithms(machine.deterministic)
    if chosen == "cuda":  # of several processes each has its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    print(f"device: {chosen} ({device_name(chosen)}), {machine.threads} threads", flush=True)
    return torch.device(chosen)


def devices() -> list[str]:
    """Return the devices of this machine as params.yaml names them, the one of `auto` first."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count())), *there]
    return there


def device_name(device: torch.device | str) -> str:
    """Return what people call the device."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return cpu_name()


def environment(device: torch.device, machine: Machine) -> str:
    """Return what of the machine and the software changes the numbers, and nothing else, in words.

    It is the same on every run on one machine, so it may stand in files that are compared by hash.
    """
    parts = [
        device.type,
        device_name(device),
        torch.backends.cpu.get_cpu_capability(),
        f"{machine.threads} threads",
        f"torch {torch.__version__}",
        f"numpy {np.__version__}",
    ]
    if device.type != "cpu":
        parts += ["tf32"] * machine.tf32 + ["not deterministic"] * (not machine.deterministic)
    return ", ".join(parts)
