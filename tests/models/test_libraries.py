"""Networks of transformers, segmentation_models_pytorch and timm against the libraries themselves."""

import json
import shutil

import pytest
import torch

from meta_ood import models
from meta_ood.config import InferParams
from meta_ood.data.labels import CITYSCAPES
from meta_ood.inference import average_logits
from meta_ood.inference.features import Tap
from meta_ood.inference.stored_scores import Scorer
from meta_ood.models import checkpoint, published
from tiny_networks import write_folder

pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own
PIXELS = ("segformer", "upernet", "beit", "dpt", "mobilevit")
MASKS = ("mask2former", "maskformer", "eomt")
ABOUT = {"name": "net", "architecture": "transformers", "variant": "baseline", "class_names": CITYSCAPES.names}


@pytest.fixture
def tiny(tmp_path):
    """Return a function that imports a tiny network: the library's model and processor, and ours from the file."""
    transformers = pytest.importorskip("transformers")

    def make(kind, **options):
        folder = tmp_path / kind
        model = write_folder(folder, kind)
        portable = models.portable("transformers", {"path": str(folder), **options})
        stored = tmp_path / f"{kind}.safetensors"
        published.import_weights(folder, stored, options=portable, **ABOUT)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        shutil.rmtree(folder)
        network, _ = checkpoint.load(stored)
        return model, processor, network.eval()

    return make


def image_of(height=64, width=64):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", PIXELS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(tiny, kind):
    model, processor, network = tiny(kind)
    image = image_of()
    inputs = processor(image, return_tensors="pt")
    logits = average_logits(network, image[None], InferParams())
    expected = model(inputs["pixel_values"]).logits
    if kind == "upernet":  # which up-samples by itself
        logits = models.upsample(logits, (64, 64), network.align_corners)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert logits.shape[2] * network.output_stride == 64 or kind == "upernet"
    # and so are the classes at full size
    (theirs,) = processor.post_process_semantic_segmentation(model(inputs["pixel_values"]), target_sizes=[(96, 64)])
    assert torch.equal(models.upsample(logits, (96, 64), network.align_corners)[0].argmax(0), theirs)


@pytest.mark.parametrize("kind", MASKS)
@torch.inference_mode()
def test_logits_of_mask_models_are_the_semantic_map_of_transformers(tiny, kind, monkeypatch):
    model, processor, network = tiny(kind)
    image = image_of()
    outputs = model(
        processor(image, return_tensors="pt", **({"do_pad": False} if kind == "eomt" else {}))["pixel_values"]
    )
    taken = []
    network.no_object.register_forward_hook(lambda module, given, output: taken.append(output))
    logits = network(image[None] / 255)
    # the library enlarges masks before it adds them up; here its own sum is compared at the masks' size
    size = outputs.masks_queries_logits.shape[2:]
    interpolate = torch.nn.functional.interpolate
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "interpolate",
            lambda x, size, **options: x if x.shape[1] == 12 else interpolate(x, size, **options),
        )  # fmt: skip
        (theirs,) = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[size], return_segmentation_scores=True
        )
    torch.testing.assert_close(logits[0].exp(), theirs.segmentation_scores, atol=1e-5, rtol=0)
    assert torch.equal(logits[0].argmax(0), theirs.segmentation)
    assert logits.shape[2] * network.output_stride == 64
    # the mass of no object, a direct sum
    expected = torch.zeros(size)
    for query in range(12):
        p = outputs.class_queries_logits[0, query].softmax(0)[-1]
        expected += p * outputs.masks_queries_logits[0, query].sigmoid()
    torch.testing.assert_close(taken[0][0, 0], expected, atol=1e-5, rtol=0)


def test_oneformer_is_told_its_task():
    pytest.importorskip("transformers")
    from meta_ood.models.transformers_segmentation import TransformersSegmentation
    from tiny_networks import model_of

    model = model_of("oneformer")
    task = [5, 3, 8, *[0] * 9]
    network = TransformersSegmentation(
        19, model.config.to_dict(), [[k] for k in range(19)], *[[0.0] * 3, [1.0] * 3], task=task
    )
    network.load_state_dict({f"model.{name}": value for name, value in model.state_dict().items()})
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        outputs = model(image, torch.tensor([task, task]))
        mass = outputs.class_queries_logits.softmax(-1)[..., :-1].transpose(
            1, 2
        ) @ outputs.masks_queries_logits.sigmoid().flatten(2)
        torch.testing.assert_close(network.eval()(image).exp().flatten(2), mass, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", MASKS)
@torch.inference_mode()
def test_features_of_mask_models_are_what_queries_are_multiplied_by(tiny, kind):
    """So the mask logits of each query are a linear function of them."""
    _, _, network = tiny(kind)
    masks = []
    network.model.register_forward_hook(lambda module, given, found: masks.append(found.masks_queries_logits))
    tap = Tap(network)
    (logits,) = tap(image_of()[None] / 255)
    assert tap.features.shape[2:] == logits.shape[2:]
    rows, expected = tap.features[0].flatten(1).T.double(), masks[0][0].flatten(1).T.double()
    assert len(rows) > 2 * rows.shape[1]
    torch.testing.assert_close(rows @ (torch.linalg.pinv(rows) @ expected), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["mask2former", "eomt"])
def test_gradients_reach_classes_and_masks(tiny, kind):
    _, _, network = tiny(kind)
    network(torch.rand(1, 3, 64, 64)).log_softmax(1).mean().backward()
    for name in ("class_predictor", "mask"):
        gradients = [p.grad for key, p in network.named_parameters() if name in key and p.grad is not None]
        assert any(gradient.abs().max() > 0 for gradient in gradients), name


def test_images_are_inferred_at_the_processor_s_size(tiny):
    _, _, network = tiny("segformer", size={"height": 32, "width": 96})
    network, image = Scorer(network), image_of(64, 128)[None]  # as the stage infer calls it
    assert average_logits(network, image, InferParams()).shape == (1, 19, 8, 24)
    assert average_logits(network, image, InferParams(size=(64, 64))).shape == (1, 19, 16, 16)
    _, _, network = tiny("segformer", size={"shortest_edge": 32, "longest_edge": 48})
    assert network.input_size(64, 128) == (24, 48)
    assert network.input_size(64, 80) == (32, 40)


def test_outputs_are_found_by_name_in_any_order_and_added_up(tmp_path):
    pytest.importorskip("transformers")
    labels = ["Bus", *reversed([name for name in CITYSCAPES.names if name != "bus"]), "van", "sign-back"]
    model = write_folder(tmp_path, "segformer", id2label=dict(enumerate(labels)), label2id={})
    network = models.build("transformers", 19, path=str(tmp_path), classes={"car": ["car", "van"]})
    network.model.load_state_dict(model.state_dict())
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        ours, theirs = network.eval()(image), model(network.normalisation(image)).logits
    for place, name in enumerate(CITYSCAPES.names):
        index = 0 if name == "bus" else labels.index(name)
        expected = theirs[:, index]
        if name == "car":
            expected = (expected.exp() + theirs[:, labels.index("van")].exp()).log()
        torch.testing.assert_close(ours[:, place], expected)


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    pytest.importorskip("transformers")
    folder = tmp_path / "net"
    write_folder(folder, "segformer", id2label={k: f"LABEL_{k}" for k in range(19)}, label2id={})
    options = {"path": str(folder)}

    def refused(message, **more):
        with pytest.raises(ValueError, match=message):
            models.portable("transformers", {**options, **more})

    refused(r"no output for 19 of 19 classes: road, .*options\.classes, as \{road: NAME\}; its id2label has LABEL_0")
    classes = {name: f"LABEL_{k}" for k, name in enumerate(CITYSCAPES.names)}
    refused(r"'lorry' is no class; known:", classes={**classes, "lorry": "LABEL_1"})
    refused(r"gives LABEL_0 to several classes", classes={**classes, "car": "LABEL_0"})
    options["classes"] = classes
    whole = models.portable("transformers", options)
    assert "path" not in whole
    # 1. weights: none, and a pickle only
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    kept = weights.rename(tmp_path / "kept")
    with pytest.raises(checkpoint.CheckpointError, match=r"expected model\.safetensors"):
        published.import_published(folder, "transformers", 19, whole)
    kept.rename(weights)
    with pytest.raises(checkpoint.CheckpointError, match="architecture: transformers"):
        published.import_published(folder, "erfnet", 19)
    # 2. not a segmentation network
    change(folder, "config.json", architectures=["SegformerForImageClassification"])
    refused("SegformerForImageClassification, which segments nothing; expected .*SegformerForSemanticSegmentation")
    with pytest.raises(checkpoint.CheckpointError, match=r"is not that of options\.path"):
        published.import_published(folder, "transformers", 19, whole)
    change(folder, "config.json", model_type="bert")
    refused(r"model_type 'bert' .*known: beit, ")
    # 3. missing files
    (folder / "preprocessor_config.json").unlink()
    change(folder, "config.json", model_type="segformer", architectures=None)
    refused(r"no preprocessor_config\.json")
    refused(r"config\.json: no such file; expected a local folder", path="nvidia/segformer-b0")
    with pytest.raises(ValueError, match=r"options\.path is missing"):
        models.build("transformers", 19)


@pytest.mark.parametrize("name", ["transformers", "smp/Unet", "timm/test_vit"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, name):
    monkeypatch.setattr("meta_ood.models.find_spec", lambda package: None)
    extra = name.partition("/")[0]
    with pytest.raises(ValueError, match=rf"pip install 'meta-ood\[{extra}\]'"):
        models.build(name, 19, **({"path": "x"} if extra == "transformers" else {}))


SMP = {"Unet": {}, "FPN": {}, "DeepLabV3Plus": {"decoder_channels": 16}, "Segformer": {"encoder_name": "mit_b0"}}


@pytest.mark.parametrize("name", SMP)
def test_smp_networks_are_the_library_s(name, tmp_path):
    library = pytest.importorskip("segmentation_models_pytorch")
    own = {"encoder_name": "resnet18", **SMP[name]}
    theirs = getattr(library, name)(**own, encoder_weights=None, classes=19).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    network, _ = published.import_published(tmp_path / "weights.pth", f"smp/{name}", 19, own)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        logits, expected = network.eval()(image), theirs(network.normalisation(image))
        odd = network(torch.rand(1, 3, 50, 70))
    torch.testing.assert_close(models.upsample(logits, (64, 96), network.align_corners), expected, atol=1e-5, rtol=0)
    assert logits.shape[2] * network.output_stride == 64
    assert odd.shape[2:] == (-(-50 // network.output_stride), -(-70 // network.output_stride))


def test_unknown_encoders_and_backbones_are_named():
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(ValueError, match=r"smp/Unet: .*resnet_18"):
        models.build("smp/Unet", 19, encoder_name="resnet_18")
    with pytest.raises(ValueError, match=r"no such model; did you mean .*vit_small_patch14_dinov2"):
        models.build("timm/vit_small_patch14_dino_v2", 19)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_timm_features_go_through_one_convolution(backbone, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(backbone, num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / "classifier.pth")
    network = models.build(f"timm/{backbone}", 5, frozen=True)
    published.load_backbone(network, tmp_path / "classifier.pth")
    size = theirs.pretrained_cfg["input_size"][1:]
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        pixels = network.normalisation(image)
        features = theirs.forward_features(pixels)
        if features.ndim == 3:  # tokens: those of the patches, after that of the class
            rows = size[0] // network.output_stride
            features = features[:, theirs.num_prefix_tokens :].transpose(1, 2).unflatten(2, (rows, -1))
        expected = torch.einsum("kd,ndhw->nkhw", network.decoder.weight[:, :, 0, 0], features)
        logits = network.eval()(image)
    torch.testing.assert_close(logits, expected + network.decoder.bias[:, None, None], atol=1e-5, rtol=0)
    # a frozen backbone stays in eval mode and gets no gradients; any size goes through
    assert not network.train().backbone.training
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {"decoder.weight", "decoder.bias"}
    assert network(torch.rand(1, 3, 72, 100)).shape[2:] == (
        -(-72 // network.output_stride),
        -(-100 // network.output_stride),
    )
