"""Segmentation networks of Hugging Face transformers, from a local folder and without any download.

A folder is what ``save_pretrained`` writes: config.json, preprocessor_config.json and safetensors. Weights files and
detectors hold what is needed of the first two among their options, and work without the folder.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from meta_ood.data.files import read_json
from meta_ood.data.labels import CITYSCAPES
from meta_ood.data.registry import known_names
from meta_ood.models.pixels import Normalisation, upsample

_log = logging.getLogger(__name__)

# The module whose output at a pixel is multiplied by the embedding of a query to its mask.
_DECODER = "model.model.pixel_level_module.decoder.mask_projection"
# Model types whose outputs are class and mask of each query -> module of the features, unless options.features names
# another. All other types give a logit of each class at each pixel.
MASK_TYPES = {
    "eomt": "model.upscale_block",
    "eomt_dinov3": "model.upscale_block",
    "mask2former": _DECODER,
    "maskformer": _DECODER,
    "oneformer": _DECODER,
}
# Those that take images of one size only, a square of their `image_size`.
FIXED_TYPES = ("beit", "data2vec-vision", "dpt", "eomt", "eomt_dinov3")
# Entries of config.json that are not kept: paths of a machine, code from elsewhere.
_LEFT_OUT = ("_name_or_path", "auto_map")
_TASK = "the task is semantic"  # what OneFormer is told
# Every call of the library gets these: nothing is downloaded, and no code of a folder is run.
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def read_folder(path: str, classes: Mapping[str, str | Sequence[str]] | None = None, **options: Any) -> dict[str, Any]:
    """Return the options of :class:`TransformersSegmentation` for the network of a folder.

    Args:
        path: The folder.
        classes: Class of Cityscapes -> name of its output in ``id2label``, or several names whose probabilities are
            added; needed for classes that have no output of the same name.
        **options: Options that take precedence over what the folder says.

    Raises:
        ValueError: If the folder holds no segmentation network, or a class has no output; says what to do.
    """
    import transformers

    folder = Path(path)
    config = _read_config(folder)
    own = _class_name(config, folder)
    if own not in (config.get("architectures") or [own]):
        kinds = ", ".join(config["architectures"])
        raise ValueError(f"{folder}: holds a {kinds}, which segments nothing; expected the folder of a {own}")
    settings = _settings(config)
    # 1. the image processor, for values in [0, 255]; our networks take values in [0, 1]
    try:
        images = transformers.AutoImageProcessor.from_pretrained(folder, **_LOCAL)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no preprocessor_config.json that can be read: {error}") from None
    one = 255 * images.rescale_factor if images.do_rescale else 255.0
    mean, std = (images.image_mean, images.image_std) if images.do_normalize else ([0.0] * 3, [1.0] * 3)
    found: dict[str, Any] = {
        "config": config,
        "outputs": _outputs(folder, settings.id2label, classes or {}),
        "mean": [value / one for value in mean],
        "std": [value / one for value in std],
    }
    if images.do_resize:
        found["size"] = dict(images.size)
    if getattr(images, "do_flip_channel_order", False):
        found["bgr"] = True
    # 2. OneFormer's task: token ids, 0 after the text
    if config["model_type"] == "oneformer":
        tokens = transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL)(_TASK)["input_ids"]
        found["task"] = [*tokens, *[0] * (settings.task_seq_len - len(tokens))]
    return found | options


def read_weights(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return a folder's weights, named as in :class:`TransformersSegmentation`, and the names of those not used.

    The library reads them, as it knows how names differ between its versions; from safetensors only.

    Raises:
        ValueError: If a file is missing or damaged, a weight is missing or of another shape, or its config.json is not
            `config`.
    """
    import transformers

    if _read_config(folder) != config:
        raise ValueError(f"{folder}: config.json is not that of options.path; import the weights of that folder")
    network = getattr(transformers, _class_name(config, folder))
    try:
        model, report = network.from_pretrained(
            folder,
            config=_settings(config),
            dtype=torch.float32,
            use_safetensors=True,  # never a pickle
            output_loading_info=True,
            **_LOCAL,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder}: no weights that can be read; expected model.safetensors: {error}") from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights are missing: {', '.join(missing[:6])}")
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    return tensors, tuple(sorted(report["unexpected_keys"]))


class TransformersSegmentation(nn.Module):
    """A segmentation network of transformers with fresh weights.

    Entries of its state dict are the library's, below ``model.``.

    Mask models predict for each of Q queries a class, or none, and a mask. The mass of class c at a pixel is the sum
    over the queries of P(c | query) · P(pixel in the query's mask) (Cheng et al., MaskFormer, 2021, section 3.4), and
    its logit is the logarithm: gradients reach classes and masks. The mass of no object ``(N, 1, h, w)`` goes through
    the submodule ``no_object``, whose output a forward hook can take.

    Args:
        num_classes: C.
        config: The contents of config.json.
        outputs: The indices of each class's outputs; probabilities of several are added.
        mean, std: Normalisation of an input in [0, 1].
        size: The size [px] at which whole images are inferred, in the words of the library's image processors:
            ``height`` and ``width``, or ``shortest_edge`` and perhaps ``longest_edge``; None: as they are.
        bgr: Whether the network takes blue first.
        task: Token ids of OneFormer's task.
    """

    align_corners = False  # as transformers up-samples

    def __init__(
        self,
        num_classes: int,
        config: Mapping[str, Any],
        outputs: Sequence[Sequence[int]],
        mean: Sequence[float],
        std: Sequence[float],
        size: Mapping[str, int] | None = None,
        bgr: bool = False,
        task: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        import transformers

        if len(outputs) != num_classes:
            raise ValueError(f"outputs of {len(outputs)} classes, expected {num_classes}")
        if size is not None and not ({"height", "width"} <= {*size} or "shortest_edge" in size):
            raise ValueError(f"size: got {dict(size)}, expected height and width, shortest_edge, or null")
        settings = _settings(config)
        self.model = getattr(transformers, _class_name(config, "config"))._from_config(settings, dtype=torch.float32)
        self.normalisation = Normalisation(mean, std)
        self.no_object = nn.Identity()
        self.features = MASK_TYPES.get(settings.model_type, "")
        self.backbone_prefixes = (f"model.{self.model.base_model_prefix}.",)
        self._outputs, self._size, self._bgr = outputs, size, bgr
        self._task: Tensor | None
        self.register_buffer("_task", None if task is None else torch.tensor([task], dtype=torch.float32), False)
        self._fixed = (settings.image_size, settings.image_size) if settings.model_type in FIXED_TYPES else None
        # UperNet's and BEiT's loss on features is not ours: it is never run
        if (auxiliary := getattr(self.model, "auxiliary_head", None)) is not None:
            auxiliary.requires_grad_(False)
        self.output_stride = self._measured_stride()

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size [px] at which a whole image of `height` and `width` is inferred."""
        size = self._size
        if size is None:
            return height, width
        if "height" in size:
            return size["height"], size["width"]
        # the aspect ratio stays; the longest edge has the last word
        scale = size["shortest_edge"] / min(height, width)
        if longest := size.get("longest_edge"):
            scale = min(scale, longest / max(height, width))
        return round(scale * height), round(scale * width)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, h, w)``."""
        # 1. the input as the network was trained with it
        pixels = self.normalisation(image.flip(1) if self._bgr else image)
        if self._fixed:
            pixels = upsample(pixels, self._fixed, align_corners=False)
        # 2. a logit, or for mask models the mass, of each of the library's classes
        kind = self.model.config.model_type
        if kind in MASK_TYPES:
            task = {} if self._task is None else {"task_inputs": self._task.expand(len(pixels), -1)}
            found = self.model(pixel_values=pixels, **task)
            mass = _class_mass(found.class_queries_logits, found.masks_queries_logits)
            self.no_object(mass[:, -1:])
            logits = mass[:, :-1].clamp_min(torch.finfo(mass.dtype).tiny).log()
        elif kind == "upernet":  # which up-samples to full size by itself
            logits = self.model.decode_head(self.model.backbone(pixels).feature_maps)
        else:
            logits = self.model(pixel_values=pixels).logits
        # 3. our classes
        if all(len(own) == 1 for own in self._outputs):
            return logits[:, [own[0] for own in self._outputs]]
        return torch.stack([logits[:, own].logsumexp(1) for own in self._outputs], 1)

    def _measured_stride(self) -> int:
        """Return H / h: for mask models of the config, for others from a pass over tensors without values."""
        settings = self.model.config
        if settings.model_type in MASK_TYPES:  # whose pass looks at values
            if settings.model_type.startswith("eomt"):
                return max(1, int(settings.patch_size) >> int(settings.num_upscale_blocks))
            return int(getattr(settings, "common_stride", 4))
        names = chain(self.named_parameters(), self.named_buffers())
        state = {name: torch.empty_like(value, device="meta") for name, value in names}
        side = self._fixed[0] if self._fixed else 256
        image = torch.empty(1, 3, side, side, device="meta")
        with torch.no_grad():
            logits: Tensor = torch.func.functional_call(self.eval(), state, (image,))
        self.train()
        return max(1, round(side / logits.shape[2]))


def _class_mass(classes: Tensor, masks: Tensor) -> Tensor:
    """Return the mass of each class ``(N, K + 1, h, w) float32``, no object last, of class and mask logits."""
    with torch.autocast(classes.device.type, enabled=False):  # small masses differ by their logarithm
        return torch.einsum("nqk,nqhw->nkhw", classes.float().softmax(-1), masks.float().sigmoid())


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a local folder as save_pretrained of transformers writes it")
    return {key: value for key, value in read_json(path).items() if key not in _LEFT_OUT}


def _class_name(config: Mapping[str, Any], where: object) -> str:
    """Return the name of the library's class for a config; ValueError if it has none for segmentation."""
    from transformers.models.auto import modeling_auto as auto

    masks = {kind: auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES[kind] for kind in MASK_TYPES}
    known: dict[str, str] = {**auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, **masks}
    kind = config.get("model_type")
    if kind not in known:
        raise ValueError(f"{where}: model_type {kind!r} segments nothing by class; {known_names(kind, known)}")
    return known[kind]


def _settings(config: Mapping[str, Any]) -> Any:
    """Return the library's config object."""
    from transformers import CONFIG_MAPPING

    settings = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    if getattr(settings, "use_pretrained_backbone", False):
        settings.use_pretrained_backbone = False  # which would be downloaded
    if config["model_type"] == "oneformer":
        settings.is_training = False  # else it wants texts
    return settings


def _outputs(folder: Path, id2label: Mapping[int, str], classes: Mapping[str, str | Sequence[str]]) -> list[list[int]]:
    """Return for each class of Cityscapes the indices of its outputs, and report the outputs that are not used."""
    for name in classes:
        if name not in CITYSCAPES.names:
            raise ValueError(f"options.classes: {name!r} is no class; {known_names(name, CITYSCAPES.names)}")
    by_name = {_plain(label): index for index, label in id2label.items()}
    wanted = {name: classes.get(name, name) for name in CITYSCAPES.names}
    several = {name: [own] if isinstance(own, str) else list(own) for name, own in wanted.items()}
    missing = {name: own for name, own in several.items() if not own or {_plain(o) for o in own} - {*by_name}}
    if missing:
        raise ValueError(
            f"{folder}: no output for {len(missing)} of {len(wanted)} classes: {', '.join(missing)}. "
            f"Name them in options.classes, as {{{next(iter(missing))}: NAME}}; its id2label has "
            f"{', '.join(id2label.values())}"
        )
    outputs = [[by_name[_plain(label)] for label in own] for own in several.values()]
    used = list(chain.from_iterable(outputs))
    if twice := sorted({id2label[index] for index in used if used.count(index) > 1}):
        raise ValueError(f"{folder}: options.classes gives {', '.join(twice)} to several classes, expected one each")
    if rest := [label for index, label in id2label.items() if index not in used]:
        _log.warning("%s: no class takes the outputs %s", folder, ", ".join(rest))
    return outputs


def _plain(name: str) -> str:
    """Return a class name without what differs between spellings.

    Examples:
        >>> _plain("Traffic-Light") == _plain("traffic light")
        True
    """
    return name.lower().replace("-", " ").replace("_", " ").strip()
