"""From small logits to full-size maps of the softmax, without ever building the softmax."""

from meta_ood.pixels.maps import PixelMaps, Workspace, pixel_maps

__all__ = ["PixelMaps", "Workspace", "pixel_maps"]
