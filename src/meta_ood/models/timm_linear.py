"""A backbone of timm with a linear decoder: one 1x1 convolution on its last feature map.

With a DINOv2 backbone this is the decoder of Oquab et al., 2023, section 7.4, and of Kerssies et al., 2024, who also
train the backbone.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from meta_ood.models.pixels import Normalisation, padded


class TimmLinear(nn.Module):
    """A backbone of timm and a linear decoder, with fresh weights.

    Entries of the state dict are timm's below ``backbone.``, and ``decoder.*``.

    Args:
        backbone: Name of a timm model, such as ``vit_base_patch14_dinov2``.
        num_classes: C.
        frozen: Whether the backbone stays as it is, in eval mode, and the decoder alone is trained.
        mean, std: Normalisation of the input; None: that of timm's weights for this backbone.
        **options: Further options of ``timm.create_model``.
    """

    backbone: Any  # timm's classes have no type in common but nn.Module
    align_corners = False
    backbone_prefixes = ("backbone.",)
    last_layers = ("head.", "fc.", "classifier.")  # of timm's classifiers

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        frozen: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        import timm  # here: the import takes a second

        if not timm.is_model(backbone):
            close = difflib.get_close_matches(backbone, timm.list_models(), n=3)
            meant = f"; did you mean {', '.join(close)}?" if close else ""
            raise ValueError(f"timm/{backbone}: timm {timm.__version__} has no such model{meant}")
        self.backbone = _create(backbone, options)
        if not hasattr(self.backbone, "prune_intermediate_layers"):
            raise ValueError(f"timm/{backbone}: this model has no forward_intermediates, which gives feature maps")
        self.backbone.prune_intermediate_layers(1, prune_head=True)
        last, weights = self.backbone.feature_info[-1], self.backbone.pretrained_cfg
        self.output_stride = int(last["reduction"])
        self.decoder = nn.Conv2d(last["num_chs"], num_classes, 1)
        self.normalisation = Normalisation(mean or weights["mean"], std or weights["std"])
        self._frozen = frozen
        self.backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``."""
        pixels = padded(self.normalisation(image), self.output_stride)
        (features,) = self.backbone.forward_intermediates(pixels, indices=1, norm=True, intermediates_only=True)
        logits: Tensor = self.decoder(features)
        return logits


def _create(backbone: str, options: dict[str, Any]) -> Any:
    """Return timm's model, for images of any size where it can."""
    import timm

    # ViTs, then Swin; other models know neither option
    for any_size in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(backbone, pretrained=False, num_classes=0, **{**any_size, **options})
        except TypeError as error:
            unknown = error
    raise unknown
