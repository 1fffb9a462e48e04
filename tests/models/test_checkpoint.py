import json
import re
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from meta_ood import models
from meta_ood.data.files import file_hash
from meta_ood.models import checkpoint

TINY = {"stem_width": 4, "planes": [2, 2, 2, 2], "head_planes": 8}
NAMES = ["road", "car", "sky"]


def write(path, network=None, **changes):
    network = network or models.build("dualgcn_mini", 3, **TINY)
    about = {
        "name": "mine",
        "architecture": "dualgcn_mini",
        "options": TINY,
        "num_classes": 3,
        "class_names": NAMES,
        "variant": "baseline",
    }
    checkpoint.save(path, network, **{**about, **changes})
    return network


def change(path, tensors=None, **metadata):
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    about = json.loads(header["__metadata__"]["meta_ood"])
    save_file(tensors or load_file(path), path, {"meta_ood": json.dumps({**about, **metadata})})


def test_round_trip_gives_the_same_network(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    network = write(path, epoch=4).eval()
    again, metadata = checkpoint.load(path)
    image = torch.rand(1, 3, 40, 56)
    with torch.inference_mode():
        assert torch.equal(network(image), again.eval()(image))
    assert list(again.state_dict()) == list(network.state_dict())
    assert metadata["epoch"] == 4
    assert metadata["class_names"] == NAMES
    assert metadata["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert metadata["output_stride"] == 4
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_loaded_network_can_be_trained_and_the_file_stays(tmp_path):
    path = tmp_path / "weights.safetensors"
    write(path)
    before = file_hash(path)
    network, _ = checkpoint.load(path)
    network.train()(torch.rand(2, 3, 32, 32)).square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad
    assert file_hash(path) == before
    fresh, _ = checkpoint.load(path)
    assert not torch.equal(fresh.get_parameter("conv1.0.weight"), network.conv1[0].weight)


def test_same_network_same_bytes(tmp_path):
    network = write(tmp_path / "a")
    write(tmp_path / "b", network)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_others_may_read_the_file_as_any_other(tmp_path):
    write(tmp_path / "w")
    (tmp_path / "plain").touch()
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    network = models.build("dualgcn_mini", 3, **TINY)
    with torch.no_grad():
        network.bn1.weight[1] = float("nan")
    with pytest.raises(ValueError, match=r"bn1\.weight is not finite"):
        write(tmp_path / "w", network)
    assert not list(tmp_path.iterdir())


def test_missing_unexpected_and_wrong_entries_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path)
    tensors = load_file(path)
    del tensors["bn1.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["bn1.weight"] = torch.zeros(5)
    change(path, tensors)
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load(path)
    text = str(error.value)
    assert str(path) in text
    assert re.search(r"^missing +1: bn1\.bias$", text, re.MULTILINE)
    assert re.search(r"^unexpected +1: extra$", text, re.MULTILINE)
    assert re.search(r"^wrong +1: bn1\.weight is \(5,\), expected \(8,\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "no such weights file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "damaged"),
        (lambda p: p.write_bytes(b"\x80\x04" + b"x" * 100), "not a safetensors file"),
        (lambda p: save_file(load_file(p), p), "not written by meta-ood"),
        (lambda p: change(p, format=99), "format 99, expected 1"),
        (lambda p: change(p, architecture="nothing"), "unknown architecture 'nothing'"),
        (
            lambda p: change(p, num_classes=4, class_names=[*NAMES, "d"]),
            r"head\.bottleneck\.3\.weight is \(3, 8, 1, 1\)",
        ),
        (lambda p: change(p, num_classes=4), "4 classes with 3 class_names"),
        (lambda p: change(p, num_classes=-1), "-1 classes with 3 class_names"),
        (lambda p: change(p, num_classes="3"), "num_classes is '3', expected int"),
        (lambda p: change(p, class_names=[1, 2, 3]), "3 classes with 3 class_names"),
        (lambda p: change(p, architecture=1.5), "architecture is 1.5, expected str"),
        (lambda p: change(p, options={"blocks": [10**9, 1, 1, 1]}), "option 1000000000 is above"),
        (lambda p: change(p, options={"mean": [[float("nan")]]}), "option nan is above"),
        (lambda p: change(p, variant="x" * 2**21), "metadata of more than"),
        (lambda p: save_file(load_file(p), p, {"meta_ood": "[" * 10**6}), "is damaged"),
        (lambda p: save_file(load_file(p), p, {"meta_ood": "[]"}), "is list, expected a mapping"),
        (lambda p: save_file(load_file(p), p, {"meta_ood": "{}"}), "metadata without format, name"),
        (lambda p: change(p, options={"depth": 3}), "depth"),
        (lambda p: change(p, options={**TINY, "stem_width": -4}), "negative dimension"),
        (lambda p: change(p, options={**TINY, "strides": [0, 1, 1, 1]}), r"w\.safetensors: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, damage, message):
    path = tmp_path / "w.safetensors"
    write(path)
    damage(path)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(path)


def test_a_file_cannot_make_us_import_code(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path)
    change(path, architecture="antigravity:fly")
    with pytest.raises(checkpoint.CheckpointError, match="code outside of this package"):
        checkpoint.load(path)


def test_architecture_must_agree_with_params(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path)
    with pytest.raises(checkpoint.CheckpointError, match="expected 'dualgcnnet_r50'"):
        checkpoint.load(path, "dualgcnnet_r50")


def test_class_names_must_be_as_many_as_classes(tmp_path):
    with pytest.raises(ValueError, match="3 classes with 2 class_names"):
        write(tmp_path / "w", class_names=["a", "b"])


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path)
    before = path.read_bytes()
    whole = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, whole[1]))
    try:
        with pytest.raises(OSError, match=r"w\.safetensors"):
            write(path, models.build("dualgcn_mini", 3, **TINY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
