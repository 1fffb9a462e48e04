"""The device that networks run on, and the precision of its matrix products."""

import os

import torch

from meta_ood.data.context import Machine


def device_of(machine: Machine) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``; under torchrun, this process's GPU.

    Raises:
        ValueError: If ``cuda`` is wanted and torch cannot use a GPU, or the device is unknown.
    """
    if machine.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {machine.device!r}; known: auto, cpu, cuda")
    if machine.device == "cpu" or (machine.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, number = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= number:
        raise ValueError(
            f"device cuda: process {index} on this machine needs a GPU of its own, and PyTorch {torch.__version__} "
            f"finds {number}; use the device auto or cpu, or start fewer processes"
        )
    return torch.device("cuda", index)


def set_tf32(precision: str, device: torch.device) -> None:
    """Enable TF32 for precision ``tf32`` and disable it for any other.

    PyTorch's default on a GPU is TF32 for convolutions and float32 for matrix products; here both are the same. The
    setting holds for the process. A CPU has no TF32, and for it nothing is changed.
    """
    if device.type == "cuda":
        enabled = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = enabled
        torch.set_float32_matmul_precision("high" if enabled else "highest")
