"""What a GPU multiplies in: float32 as it is, or with operands rounded to TF32."""

from __future__ import annotations

import torch


def use_products(precision: str, device: torch.device) -> None:
    """Let convolutions and matrix products on `device` take TF32 operands, or not.

    torch by itself rounds the operands of convolutions to TF32 on a GPU, those of matrix products
    not. Here ``float32`` means float32 for both. The setting is torch's own and holds for the
    process; a CPU knows no TF32, and nothing is set for it.
    """
    if device.type == "cuda":
        rounded = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = rounded
        torch.set_float32_matmul_precision("high" if rounded else "highest")
