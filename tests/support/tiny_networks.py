"""Folders of tiny transformers networks with random weights, made offline."""

from pathlib import Path
from typing import Any

import torch

from meta_ood.data.labels import CITYSCAPES

LABELS = {"id2label": dict(enumerate(CITYSCAPES.names)), "label2id": {n: i for i, n in enumerate(CITYSCAPES.names)}}
_SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
# the library normalises in 32 groups of channels
_MASKS = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 16}
_MASKS |= {"dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2}
_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}


def _config(kind: str, **options: Any) -> Any:
    import transformers

    swin = transformers.SwinConfig(**_SWIN, out_features=_STAGES)
    match kind:
        case "segformer":
            small = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
            return transformers.SegformerConfig(**small, decoder_hidden_size=16, **options)
        case "upernet":
            small = {"hidden_size": 16, "auxiliary_channels": 8, "auxiliary_in_channels": 32}
            return transformers.UperNetConfig(backbone_config=swin, **small, **options)
        case "mask2former":
            return transformers.Mask2FormerConfig(backbone_config=swin, **_MASKS, num_queries=12, **options)
        case "maskformer":
            detr = transformers.DetrConfig(
                **{"d_model": 32, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 12},
                **{"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2},
                **{"decoder_attention_heads": 2},
            )
            maskformer_swin = transformers.MaskFormerSwinConfig(**_SWIN, out_features=_STAGES)
            small = {"fpn_feature_size": 32, "mask_feature_size": 32, "decoder_config": detr}
            return transformers.MaskFormerConfig(backbone_config=maskformer_swin, **small, **options)
        case "eomt":
            small = {**_VIT, "image_size": 64, "num_queries": 12, "num_blocks": 2, "num_upscale_blocks": 1}
            return transformers.EomtConfig(**small, num_register_tokens=0, **options)
        case "beit":
            small = {**_VIT, "image_size": 64, "out_indices": [0, 1, 2, 3], "pool_scales": [1, 2]}
            return transformers.BeitConfig(**small, use_relative_position_bias=True, **options)
        case "dpt":
            small = {**_VIT, "patch_size": 16, "image_size": 64, "fusion_hidden_size": 16}
            small |= {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16]}
            return transformers.DPTConfig(**small, **options)
        case "mobilevit":
            small = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "aspp_out_channels": 16}
            return transformers.MobileViTConfig(**small, num_attention_heads=2, **options)
        case "oneformer":
            small = {"hidden_dim": 32, "conv_dim": 32, "mask_dim": 32, "encoder_feedforward_dim": 16}
            small |= {"dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2}
            small |= {"query_dec_layers": 1, "num_queries": 12, "task_seq_len": 12, "text_encoder_width": 16}
            return transformers.OneFormerConfig(backbone_config=swin, **small, **options)
    raise ValueError(kind)


def model_of(kind: str, **options: Any) -> Any:
    """Return a tiny model of the library with random weights of seed 0, in eval mode."""
    import transformers

    masks = {"maskformer": "MaskFormerForInstanceSegmentation"}
    for each in ("mask2former", "oneformer", "eomt"):
        auto = transformers.AutoModelForUniversalSegmentation
        masks[each] = auto
    torch.manual_seed(0)
    config = _config(kind, **{**LABELS, **options})
    if kind == "maskformer":
        model = transformers.MaskFormerForInstanceSegmentation(config)
    elif kind in masks:
        model = transformers.AutoModelForUniversalSegmentation.from_config(config)
    else:
        model = transformers.AutoModelForSemanticSegmentation.from_config(config)
    return model.eval()


def write_folder(folder: Path, kind: str, **options: Any) -> Any:
    """Write a tiny model with its image processor as ``save_pretrained`` does; return it."""
    import transformers

    model = model_of(kind, **options)
    model.save_pretrained(folder)
    names = {"upernet": "Segformer", "dpt": "DPT", "mobilevit": "MobileViT"}
    names |= {"maskformer": "MaskFormer", "mask2former": "Mask2Former"}
    name = names.get(kind, kind.capitalize())
    # frames as they are; means that are not ImageNet's
    values = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    values = {"do_center_crop": False} if kind == "mobilevit" else values
    getattr(transformers, f"{name}ImageProcessor")(do_resize=False, **values).save_pretrained(folder)
    return model
