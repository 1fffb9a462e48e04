"""What `precision` tells torch about products on a GPU; set without one at hand."""

import pytest
import torch

from meta_ood.models.precision import use_products


@pytest.fixture(autouse=True)
def _settings():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("precision", "rounded"), [("float32", False), ("tf32", True), ("bfloat16", False)]
)
def test_only_tf32_rounds_operands(precision, rounded):
    torch.backends.cudnn.allow_tf32 = not rounded
    use_products(precision, torch.device("cuda"))
    assert allowed() == (rounded, rounded)


def test_a_cpu_changes_no_setting():
    torch.backends.cudnn.allow_tf32 = True
    before = allowed()
    use_products("float32", torch.device("cpu"))
    assert allowed() == before
