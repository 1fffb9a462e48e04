"""The choice of a device, and the setting of TF32; no GPU is needed."""

import pytest
import torch

from meta_ood.data.context import Machine
from meta_ood.models.device import device_of, set_tf32


@pytest.fixture(autouse=True)
def _settings():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_only_tf32_rounds_operands(precision, rounded):
    torch.backends.cudnn.allow_tf32 = not rounded
    set_tf32(precision, torch.device("cuda"))
    assert allowed() == (rounded, rounded)


def test_a_cpu_changes_no_setting():
    torch.backends.cudnn.allow_tf32 = True
    before = allowed()
    set_tf32("float32", torch.device("cpu"))
    assert allowed() == before


def test_cuda_without_a_gpu_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert device_of(Machine("auto")) == device_of(Machine("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device cuda: .* finds 0; use the device auto or cpu"):
        device_of(Machine("cuda"))
    with pytest.raises(ValueError, match="unknown device 'gpu'; known: auto, cpu, cuda"):
        device_of(Machine("gpu"))


def test_each_process_of_torchrun_has_its_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of(Machine("auto")) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="process 2 on this machine needs a GPU of its own"):
        device_of(Machine("cuda"))
