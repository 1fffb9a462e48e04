"""What docs/own-network.md promises about networks: its own example, and torchvision by name."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from meta_ood import models
from meta_ood.models import catalogue, checkpoint, published

DOCS = Path(__file__).parents[2] / "docs" / "own-network.md"
TORCHVISION = [name for name in models.MODELS if name.startswith("torchvision/")]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Write the page's module where it can be imported; give its entry of params.yaml."""
    text = DOCS.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?class Small.*?)```", text, re.DOTALL)[1]
    (tmp_path / "my_networks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    entry = re.search(r"```yaml\n(networks:.*?)```", text, re.DOTALL)[1]
    yield yaml.safe_load(entry)["network"]["small"]
    sys.modules.pop("my_networks", None)


def test_example_of_an_own_module_works(example, tmp_path):
    architecture, options = example["architecture"], example["options"]
    network = models.build(architecture, 7, **options)
    logits = network.train()(torch.rand(1, 3, 32, 48))
    assert logits.shape == (1, 7, 8, 12)
    logits.square().mean().backward()
    path = tmp_path / "w.safetensors"
    checkpoint.save(
        path,
        network,
        name="small",
        architecture=architecture,
        options=options,
        num_classes=7,
        class_names=list("abcdefg"),
        variant="baseline",
    )
    with pytest.raises(checkpoint.CheckpointError, match="code outside of this package"):
        checkpoint.load(path)
    loaded, metadata = checkpoint.load(path, architecture)
    assert torch.equal(loaded.stem.weight, network.stem.weight)
    assert metadata["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert not metadata["align_corners"]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("my_networks:Large", "has no attribute 'Large'"),
        ("no_such_module:Small", "No module named 'no_such_module'"),
        ("my_networks:Tensor", "architecture my_networks:Tensor"),
        ("torch.nn:Identity", "no attribute align_corners, output_stride"),
        ("builtins:str", "returned str, no nn.Module"),
    ],
)
def test_what_is_no_network_is_refused(example, architecture, message):
    with pytest.raises(ValueError, match=message):
        models.build(architecture, 3)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_are_torchvision_s(name):
    from torchvision.models import segmentation

    torch.manual_seed(0)
    network = models.build(name, 5).eval()
    theirs = getattr(segmentation, name.removeprefix("torchvision/"))(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    theirs.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 66, 94)
    with torch.inference_mode():
        logits = network(image)
        own = models.upsample(logits, (66, 94), network.align_corners)
        expected = theirs(network.normalisation(image))["out"]
    assert torch.equal(own, expected)
    assert abs(94 / logits.shape[3] - network.output_stride) < 0.4 * network.output_stride


def test_torchvision_backbone_and_auxiliary_classifier(tmp_path):
    from torchvision.models import resnet50, segmentation

    name = "torchvision/fcn_resnet50"
    classifier = resnet50(weights=None, num_classes=3)
    torch.save(classifier.state_dict(), tmp_path / "resnet50.pth")
    network = models.build(name, 5)
    report = published.load_backbone(network, tmp_path / "resnet50.pth")
    assert report.dropped == ("fc.weight", "fc.bias")
    assert torch.equal(network.backbone["conv1"].weight, classifier.conv1.weight)

    theirs = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    torch.save(theirs.state_dict(), tmp_path / "segmentation.pth")
    with pytest.raises(checkpoint.CheckpointError, match=r"aux_classifier\.0\.weight"):
        published.import_published(tmp_path / "segmentation.pth", name, 5)
    loaded, _ = published.import_published(tmp_path / "segmentation.pth", name, 5, {"auxiliary": True})
    assert not any(p.requires_grad for p in loaded.aux_classifier.parameters())


def test_torchvision_says_what_to_do_with_a_batch_of_one():
    network = models.build("torchvision/deeplabv3_mobilenet_v3_large", 5).train()
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        network(torch.rand(1, 3, 64, 64))


def test_operations_are_counted_by_the_formula(example):
    facts = catalogue.network_facts(example["architecture"], 7, (32, 48), width=8)
    positions = 8 * 12
    operations = 2 * positions * (8 * 3 * 9 + 7 * 8)
    assert facts.gflop * 1e9 == operations
    assert facts.parameters == 8 * 3 * 9 + 8 + 7 * 8 + 7
    assert facts.output_stride == 4
