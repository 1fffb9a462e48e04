"""Networks of segmentation_models_pytorch, at their own stride and without any download."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation, batches_of_one_explained, padded

# The library's classes, but DPT, whose decoder takes more than features.
NAMES: tuple[str, ...] = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PAN",
    "UPerNet",
)
NAMES += ("Segformer",)


class SmpSegmentation(nn.Module):
    """One of the library's networks with fresh weights, without the up-sampling of its head.

    Entries of the state dict are named as in the library's own files: ``encoder.*``, ``decoder.*`` and
    ``segmentation_head.*``. Images are padded to a multiple of the encoder's stride.

    Args:
        name: Of the library's class, one of :data:`NAMES`.
        num_classes: C.
        mean, std: Normalisation of the input; most encoders' ImageNet weights use the default.
        **options: Options of the library's class, such as ``encoder_name``; ``encoder_weights`` is always None.
    """

    align_corners = True  # as the library's heads up-sample

    def __init__(
        self,
        name: str,
        num_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **options: Any,
    ) -> None:
        super().__init__()
        import segmentation_models_pytorch as library  # here: the import takes seconds

        try:
            model = getattr(library, name)(**{**options, "encoder_weights": None, "classes": num_classes})
        except KeyError as error:  # the library's error for encoders that it does not know
            raise ValueError(f"smp/{name}: {error.args[0]}") from None
        self.encoder, self.decoder, self.segmentation_head = model.encoder, model.decoder, model.segmentation_head
        self.output_stride = int(getattr(self.segmentation_head[1], "scale_factor", 1))
        self.segmentation_head[1] = nn.Identity()
        self.normalisation = Normalisation(mean, std)
        # encoders "tu-..." are timm's, one level deeper
        is_timm = options.get("encoder_name", "").startswith("tu-")
        self.backbone_prefixes = ("encoder.model.",) if is_timm else ("encoder.",)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``."""
        height, width, stride = *image.shape[2:], self.output_stride
        with batches_of_one_explained():
            features = self.encoder(padded(self.normalisation(image), self.encoder.output_stride))
            logits: Tensor = self.segmentation_head(self.decoder(features))
        return logits[:, :, : -(-height // stride), : -(-width // stride)]
