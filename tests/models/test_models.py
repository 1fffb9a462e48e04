import json
from pathlib import Path

import pytest
import torch

from meta_ood import models

REFERENCE = Path(__file__).parents[1] / "reference"
PUBLISHED = {
    "deeplabv3plus_wrn38": ("DeepWV3Plus", 137_103_936, 268),
    "dualgcnnet_r50": ("DualSeg_res50", 53_514_470, 432),
    "dualgcnnet_r101": ("DualSeg_res101", 72_506_598, 738),
}
MINIS = ("deeplabv3plus_mini", "dualgcn_mini")


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_order_are_the_published_ones(name):
    reference, parameters, entries = PUBLISHED[name]
    table = json.loads((REFERENCE / f"g3_{reference}_state_dict.json").read_text())
    with torch.device("meta"):
        network = models.build(name, 19)
    own = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in network.state_dict().items()]
    assert own == table["entries"]
    assert [k for k, _ in network.named_parameters()] == table["parameter_order"]
    assert len(own) == entries
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", MINIS)
@pytest.mark.parametrize("size", [(64, 96), (97, 129)])
def test_minis_declare_their_stride(name, size):
    network = models.build(name, 5).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, *size))
    assert logits.shape[1] == 5
    assert network.align_corners is True
    for own, full in zip(logits.shape[2:], size, strict=True):
        assert abs(own - full / network.output_stride) <= 1
    assert models.upsample(logits, size, network.align_corners).shape == (1, 5, *size)


@pytest.mark.parametrize("name", MINIS)
def test_minis_learn(name):
    torch.manual_seed(0)
    network = models.build(name, 3).train()
    image = torch.rand(4, 3, 48, 48)
    target = image.argmax(1)[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = image * 0.1 + torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 0.5
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        logits = models.upsample(network(image), (48, 48), network.align_corners)
        loss = torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_building_changes_no_class_of_torch():
    before = (torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.BatchNorm2d, torch.nn.Conv2d)
    for name in MINIS:
        models.build(name, 19)
    after = (torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.BatchNorm2d, torch.nn.Conv2d)
    assert before == after


def test_deeplab_says_what_to_do_with_a_batch_of_one():
    network = models.build("deeplabv3plus_mini", 3).train()
    with pytest.raises(ValueError, match=r"batch_size of at least 2.*aspp\.img_conv\.eval"):
        network(torch.rand(1, 3, 64, 64))
    network.aspp.img_conv.eval()
    network(torch.rand(1, 3, 64, 64)).sum().backward()


def test_dualgcn_trains_on_a_batch_of_one_where_the_map_is_large_enough():
    network = models.build("dualgcn_mini", 3).train()
    network(torch.rand(1, 3, 64, 64)).sum().backward()
    with pytest.raises(ValueError, match=r"8 x 8.*larger crop"):
        network(torch.rand(1, 3, 29, 29))


def test_unknown_names_and_options_are_named():
    with pytest.raises(ValueError, match=r"unknown architecture 'unet'; known: .*dualgcn_mini"):
        models.build("unet", 19)
    with pytest.raises(ValueError, match="depth"):
        models.build("dualgcn_mini", 19, depth=3)
    with pytest.raises(ValueError, match="blocks"):
        models.build("deeplabv3plus_mini", 19, blocks=[1, 2])
