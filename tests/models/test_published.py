"""Files in every published format, made here, and files that must be refused."""

import os
import pickle
import resource
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from meta_ood import models
from meta_ood.data.files import file_hash
from meta_ood.models import checkpoint, published, torch_files
from meta_ood.models.torch_files import CheckpointError

NAMES = ("road", "car", "sky")
NUMPY = (np._core.multiarray.scalar, np._core.multiarray._reconstruct, np.ndarray, type(np.dtype(np.float64)))
NETWORKS = {
    "deeplabv3plus_wrn38": {
        "stem_width": 2,
        "widths": [[4, 4], [4, 4], [4, 4], [4, 8], [4, 4, 8], [4, 4, 8]],
        "blocks": [1, 1, 2, 1, 1, 1],
        "aspp_width": 4,
        "fine_width": 4,
    },
    "dualgcnnet_r50": {"blocks": [1, 1, 1, 1], "stem_width": 2, "planes": [2, 2, 2, 2], "head_planes": 8},
}


def build(name, classes=3):
    torch.manual_seed(3)
    network = models.build(name, classes, **NETWORKS[name])
    for key, value in network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_()
    return network


def wrapped(state):
    return {f"module.{key}": value for key, value in state.items()}


def save_published_deeplab(path, network):
    moments = {n: {"step": 3, "exp_avg": p} for n, p in enumerate(network.parameters())}
    torch.save(
        {
            "epoch": 4,
            "state_dict": wrapped(network.state_dict()),
            "optimizer_state_dict": {"state": moments, "param_groups": [{"lr": 1e-5}]},
            "loss": torch.tensor(0.5),
        },
        path,
    )


def save_nvidia(path, network):
    content = {
        "state_dict": wrapped(network.state_dict()),
        "optimizer": {"momentum": [torch.ones(2)]},
        "epoch": 174,
        "mean_iu": np.float64(0.8346),
        "per_class": np.ones(3),
        "command": "train.py",
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_half(path, network):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state(network)}, path)


def save_old(path, network):
    torch.save({k: v for k, v in state(network) if not k.endswith("num_batches_tracked")}, path)


def state(network):
    return network.state_dict().items()


FORMATS = {
    "published": save_published_deeplab,
    "nvidia": save_nvidia,
    "bare": lambda path, network: torch.save(network.state_dict(), path),
    "model": lambda path, network: torch.save({"model": network.state_dict()}, path),
    "compiled": lambda path, network: torch.save({f"module._orig_mod.{k}": v for k, v in state(network)}, path),
    "safetensors": lambda path, network: save_file({k: v.contiguous() for k, v in state(network)}, path),
    "lightning": lambda path, network: torch.save(
        {"state_dict": {f"model.net.{k}": v for k, v in state(network)}, "epoch": 3}, path
    ),
    "parameters": lambda path, network: torch.save(
        {k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in state(network)}, path
    ),
    "views": lambda path, network: torch.save({k: torch.stack([v, v], -1)[..., 1] for k, v in state(network)}, path),
    "half": save_half,
    "before counters": save_old,
}


def take(source, destination, name, **changes):
    about = {
        "name": "mine",
        "architecture": name,
        "options": NETWORKS[name],
        "class_names": NAMES,
        "variant": "ood_trained",
        "origin": "https://example.org/weights",
    }
    return published.import_weights(source, destination, **{**about, **changes})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layout", FORMATS)
def test_every_format_loads_completely(tmp_path, layout, name):
    network = build(name)
    source, destination = tmp_path / "file.pth", tmp_path / "out" / "w.safetensors"
    FORMATS[layout](source, network)
    report = take(source, destination, name)
    assert report.fits
    assert len(report.matched) + len(report.zeroed) == len(network.state_dict())
    loaded, metadata = checkpoint.load(destination)
    tolerance = 2e-3 if layout == "half" else 0
    for key, value in loaded.state_dict().items():
        assert value.dtype == network.state_dict()[key].dtype
        assert (value - network.state_dict()[key]).abs().max() <= tolerance, key
    assert metadata["variant"] == "ood_trained"
    assert metadata["class_names"] == list(NAMES)
    assert metadata["origin"]["file"] == "file.pth"
    assert metadata["origin"]["sha256"] == file_hash(source)
    assert metadata["origin"]["source"] == "https://example.org/weights"
    assert set(metadata["normalisation"]) == {"mean", "std"}


@pytest.mark.parametrize("layout", set(FORMATS) - {"safetensors"})
def test_torch_itself_reads_the_same(tmp_path, layout):
    FORMATS[layout](tmp_path / "file.pth", build("dualgcnnet_r50"))
    with torch.serialization.safe_globals([np.dtype, *NUMPY]):
        expected = torch.load(tmp_path / "file.pth", weights_only=True)
    for wrapper in torch_files.WRAPPERS:
        expected = expected.get(wrapper, expected)
    tensors = torch_files.read(tmp_path / "file.pth").tensors
    assert list(tensors) == list(expected)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype
        assert torch.equal(tensors[key], value)


def test_a_common_prefix_is_removed_and_reported(tmp_path):
    FORMATS["lightning"](tmp_path / "file.pth", build("dualgcnnet_r50"))
    report = take(tmp_path / "file.pth", tmp_path / "w.safetensors", "dualgcnnet_r50")
    assert report.prefix == "model.net."
    assert "prefix model.net." in "\n".join(report.lines())


def test_report_says_what_else_the_file_held(tmp_path):
    save_nvidia(tmp_path / "file.pth", build("dualgcnnet_r50"))
    report = take(tmp_path / "file.pth", tmp_path / "w.safetensors", "dualgcnnet_r50")
    assert report.ignored == ("optimizer", "epoch", "mean_iu", "per_class", "command")
    text = "\n".join(report.lines())
    assert "torch before 1.6, state dict below 'state_dict', prefix module." in text
    assert "missing     0" in text


def test_import_gives_the_same_logits(tmp_path):
    network = build("deeplabv3plus_wrn38").eval()
    save_published_deeplab(tmp_path / "file.pth", network)
    loaded, _ = published.import_published(
        tmp_path / "file.pth", "deeplabv3plus_wrn38", 3, NETWORKS["deeplabv3plus_wrn38"]
    )
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        assert torch.equal(network(image), loaded.eval()(image))


def test_our_own_file_keeps_its_origin(tmp_path):
    FORMATS["bare"](tmp_path / "file.pth", build("dualgcnnet_r50"))
    take(tmp_path / "file.pth", tmp_path / "a.safetensors", "dualgcnnet_r50")
    take(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "dualgcnnet_r50", origin="else")
    _, metadata = checkpoint.load(tmp_path / "b.safetensors")
    assert metadata["origin"]["file"] == "file.pth"
    with pytest.raises(CheckpointError, match="class names"):
        take(
            tmp_path / "a.safetensors", tmp_path / "c.safetensors", "dualgcnnet_r50", class_names=("sky", "car", "road")
        )


class Harmful:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (os.remove, (str(self.victim),))


def attack(path, network, victim):
    torch.save({"state_dict": network.state_dict(), "extra": Harmful(victim)}, path)


def attack_old(path, network, victim):
    content = {"state_dict": network.state_dict(), "extra": Harmful(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def attack_numpy(path, network, victim):
    torch.save({"state_dict": network.state_dict(), "x": np.array([Harmful(victim)])}, path)


def bomb(path, network, _):
    torch.save(network.state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("archive/data/9999", b"\0" * 10_000_000)


def bomb_of_code(path, network, victim):
    attack(path, network, victim)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            data = data + b"." * 10_000_000 if name.endswith("data.pkl") else data
            archive.writestr(name, data)


def cut(path, network, _):
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_old(path, network, _):
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 300])


def changed(change):
    def write(path, network, _):
        content = dict(network.state_dict())
        torch.save(change(content) or content, path)

    return write


def set_entry(key, value):
    return changed(lambda content: content.__setitem__(key, value))


BIAS = "head.bottleneck.3.bias"
REFUSED = {
    "code": (attack, r"refused: .*remove"),
    "code, old layout": (attack_old, r"refused: .*remove"),
    "code in an array": (attack_numpy, r"refused: .*remove"),
    "compressed": (bomb, "refused: its members unpack to"),
    "compressed code": (bomb_of_code, "refused: its members unpack to"),
    "cut": (cut, "damaged or cut off"),
    "cut, old layout": (cut_old, "damaged or cut off"),
    "empty": (lambda path, *_: path.write_bytes(b""), "damaged or cut off"),
    "text": (lambda path, *_: path.write_text("<html>Not found"), "damaged or cut off, or no file of"),
    "missing file": (lambda *_: None, "no such weights file"),
    "safetensors cut": (
        lambda path, network, _: path.write_bytes(b"\x40\0\0\0\0\0\0\0{}"),
        "not a safetensors file, or damaged",
    ),
    "missing layer": (
        changed(lambda content: content.pop("head.conva.0.weight") is None),
        r"missing +1: head\.conva\.0\.weight",
    ),
    "foreign entry": (set_entry("head.more", torch.ones(1)), r"unexpected +1: head\.more"),
    "prefix on some": (
        changed(lambda content: {f"net.{k}" if "head" in k else k: content[k] for k in content}),
        r"hint: some names carry the prefix 'net\.'",
    ),
    "swapped prefix": (
        changed(lambda content: {k.replace("layer1.", "layer2.x."): v for k, v in content.items()}),
        r"missing +\d+: layer1\.0\.conv1\.weight",
    ),
    "half a prefix": (
        changed(lambda content: {k.replace("lay", "module.lay"): v for k, v in content.items()}),
        r"unexpected +\d+: module\.layer1\.0\.conv1\.weight",
    ),
    "not finite": (set_entry(BIAS, torch.tensor([0.0, float("nan"), 0])), "not finite"),
    "too large for float32": (
        set_entry(BIAS, torch.tensor([0, 1e300, 0], dtype=torch.float64)),
        f"{BIAS} has values that are not finite",
    ),
    "integers": (set_entry(BIAS, torch.tensor([1, 2, 3])), "int64, expected torch.float32"),
    "sparse": (set_entry(BIAS, torch.ones(3).to_sparse()), "asks for .*, which is no plain tensor"),
    "huge view": (set_entry(BIAS, torch.zeros(1).expand(10**12)), r"is \(1000000000000,\), expected \(3,\)"),
    "a number for a vector": (set_entry(BIAS, torch.tensor(1.0)), r"is \(\), expected \(3,\)"),
    "list": (set_entry(BIAS, [1.0, 2.0, 3.0]), f"'{BIAS}' is list"),
    "number for a name": (set_entry(7, torch.ones(1)), "entry 7 is Tensor, expected a name"),
    "no state dict": (lambda path, *_: torch.save([torch.ones(2)], path), "holds list, expected a state dict"),
    "empty state dict": (
        lambda path, *_: torch.save({"state_dict": {}}, path),
        "state dict below 'state_dict' is empty",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path, case):
    write, message = REFUSED[case]
    source, folder = tmp_path / "file.pth", tmp_path / "weights"
    FORMATS["bare"](tmp_path / "good.pth", build("dualgcnnet_r50"))
    take(tmp_path / "good.pth", folder / "baseline.safetensors", "dualgcnnet_r50")
    victim = tmp_path / "victim"
    victim.touch()
    write(source, build("dualgcnnet_r50"), victim)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    for destination in ("baseline", "ood_trained"):
        with pytest.raises(CheckpointError, match=message) as error:
            take(source, folder / f"{destination}.safetensors", "dualgcnnet_r50")
        assert str(source) in str(error.value)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert victim.exists()


def pickled(program):
    """Write a zip of torch.save whose pickle is `program`."""

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + program)
            archive.writestr("archive/data/0", b"\0" * 4)

    return write


def claim(path):
    """Write the older layout with a storage of 1.8 GB that the file does not hold."""
    header = [pickle.dumps(value, 2) for value in (torch_files._MAGIC, 1001, {})]
    storage = b"(U\7storagectorch\nFloatStorage\nU\0010U\3cpuJ" + (450_000_000).to_bytes(4, "little")
    path.write_bytes(b"".join(header) + b"\x80\2" + storage + b"NtQ." + pickle.dumps(["0"], 2))


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\1tQ"
NESTED = b")q\0" + b"h\0h\0\x86q\0" * 60  # 2^60 empty tuples, of which one is memo 0
HOSTILE = {
    "nested tuples as a key": pickled(NESTED + b"}h\0K\1s."),
    "nested tuples as a storage's name": pickled(NESTED + b"(U\7storagectorch\nFloatStorage\nh\0U\3cpuK\1tQ."),
    "nested tuples as a size": pickled(NESTED + NESTED.replace(b"\0", b"\1") + TENSOR + b"h\0h\1\x85)tR."),
    "a number set in a huge view": pickled(TENSOR + b"K\0J\0\0\0\x1b\x85K\0\x85tRNK\1s."),
    "a call that allocates": pickled(b"ctorch\nFloatStorage\n(J\0\0\0\x1btR."),
    "nested tuples in a call": pickled(NESTED + b"ccollections\nOrderedDict\n(h\0tR."),
    "a storage that is not there": claim,
    "a view beyond its storage": pickled(TENSOR + b"K\0J\0\0\0\x1b\x85K\1\x85tR."),
    "a negative stride": pickled(TENSOR + b"K\0K\2\x85J\xff\xff\xff\xff\x85tR."),
    "depth": pickled(b")" + b"\x85" * 10**6 + b"."),
    "length of a text": pickled(b"X\xff\xff\xff\x7fabc."),
    "index of the memo": pickled(b"Nr\xff\xff\xff\x7f."),
    "length of a pickle": pickled(b"N" * 5_000_000 + b"."),
    "a number of a million digits": pickled(b"I" + b"9" * 10**6 + b"\n."),
    "names of any length": pickled(b"}X" + (10**6).to_bytes(4, "little") + b"a." * 500_000 + b"Ns."),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_bounded_time_and_memory(tmp_path, case):
    HOSTILE[case](tmp_path / "file.pth")
    start, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"file\.pth: "):
        take(tmp_path / "file.pth", tmp_path / "w.safetensors", "dualgcnnet_r50")
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_class_count_is_said(tmp_path, name):
    FORMATS["bare"](tmp_path / "file.pth", build(name, classes=5))
    with pytest.raises(CheckpointError, match="to be for 5 classes, the network has 3"):
        take(tmp_path / "file.pth", tmp_path / "w.safetensors", name)
    assert not (tmp_path / "w.safetensors").exists()


def test_file_of_another_architecture_is_refused(tmp_path):
    FORMATS["bare"](tmp_path / "file.pth", build("deeplabv3plus_wrn38"))
    with pytest.raises(CheckpointError, match=r"matched +0"):
        take(tmp_path / "file.pth", tmp_path / "w.safetensors", "dualgcnnet_r50")


@pytest.mark.parametrize("name", NETWORKS)
def test_classifier_initialises_the_backbone_alone(tmp_path, name):
    network, other = build(name), build(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    backbone = {k: v for k, v in state(other) if k.startswith(network.backbone_prefixes)}
    classifier = {"fc.weight": torch.ones(7, 8), "fc.bias": torch.ones(7)}
    torch.save({"state_dict": wrapped({**backbone, **classifier})}, tmp_path / "backbone.pth")
    before = {k: v.clone() for k, v in state(network)}
    report = published.load_backbone(network, tmp_path / "backbone.pth")
    assert report.dropped == ("fc.weight", "fc.bias")
    for key, value in state(network):
        assert torch.equal(value, other.state_dict()[key] if key in backbone else before[key]), key
    torch.save({**backbone, "head.x": torch.ones(1)}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"unexpected +1: head\.x"):
        published.load_backbone(network, tmp_path / "bad.pth")


def test_loading_a_backbone_needs_a_network_that_declares_one(tmp_path):
    with pytest.raises(CheckpointError, match="Linear declares no backbone_prefixes"):
        published.load_backbone(torch.nn.Linear(1, 1), tmp_path / "backbone.pth")
