"""Outputs of a network for images that are too large to go through it at once."""

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample


def outputs_of(network: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Return the logits of a network; of a scorer, which gives several outputs, all."""
    found: Tensor | tuple[Tensor, ...] = network(pixels)
    return [found] if isinstance(found, Tensor) else list(found)


def tiled_outputs(network: nn.Module, pixels: Tensor, tile: int, grid: tuple[int, int]) -> list[Tensor]:
    """Return :func:`outputs_of` overlapping windows, blended on one grid: ``(N, C, h, w) float32`` each.

    Each point of the grid takes the bilinear values of the windows around it, weighted by its distance from their
    borders.

    Args:
        network: In eval mode.
        pixels: ``(N, 3, H, W)`` in [0, 1].
        tile: Side of a window [px].
        grid: ``(h, w)`` of the result, spread over the image as the network's ``align_corners`` says.
    """
    align: bool = getattr(network, "align_corners", True)
    height, width = pixels.shape[2:]
    rows = _positions(height, grid[0], align).to(pixels.device)
    columns = _positions(width, grid[1], align).to(pixels.device)
    totals: list[Tensor] = []
    weights = torch.zeros(grid, device=pixels.device)
    for top, bottom in _windows(height, tile):
        for left, right in _windows(width, tile):
            # 1. the window's own outputs, at the network's stride
            outputs = [output.float() for output in outputs_of(network, pixels[:, :, top:bottom, left:right])]
            # 2. the points of the grid that lie in the window
            down = torch.nonzero((rows >= top - 0.5) & (rows < bottom - 0.5))[:, 0]
            across = torch.nonzero((columns >= left - 0.5) & (columns < right - 0.5))[:, 0]
            if not len(down) or not len(across):
                continue
            # 3. their bilinear values there, and 4. the sums of those over the windows, weighted
            y, y_weight = _within(rows[down], top, bottom, align)
            x, x_weight = _within(columns[across], left, right, align)
            points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(len(pixels), -1, -1, -1)
            weight = y_weight[:, None] * x_weight
            totals = totals or [output.new_zeros(*output.shape[:2], *grid) for output in outputs]
            for total, output in zip(totals, outputs, strict=True):
                values = grid_sample(output, points, padding_mode="border", align_corners=align)  # (N, C, h', w')
                total[:, :, down[:, None], across] += values * weight
            weights[down[:, None], across] += weight
    return [total / weights for total in totals]


def _positions(size: int, points: int, align: bool) -> Tensor:
    """Return where the points of a grid lie along an axis [px]; pixel centres are integers."""
    if align:
        return torch.linspace(0, size - 1, points)
    return (torch.arange(points) + 0.5) * (size / points) - 0.5


def _windows(size: int, tile: int) -> list[tuple[int, int]]:
    """Return windows that cover an axis and overlap by a quarter or more."""
    if size <= tile:
        return [(0, size)]
    number = 1 + -(-(size - tile) * 4 // (tile * 3))
    starts = [round(i * (size - tile) / (number - 1)) for i in range(number)]
    return [(start, start + tile) for start in starts]


def _within(where: Tensor, low: int, high: int, align: bool) -> tuple[Tensor, Tensor]:
    """Return positions in a window in [-1, 1] as grid_sample takes them, and blending weights."""
    size = high - low
    own = where - low
    place = own * (2 / max(size - 1, 1)) - 1 if align else (2 * own + 1) / size - 1
    # at least half a pixel, so that the weights of the image's border do not vanish
    weight = torch.minimum(own + 1, size - own).clamp(min=0.5)
    return place, weight
