"""What a CNN shows beside a ViT: its first filters, and the grid that is left of the photograph."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference.apps.explain.encoding import png_url, tiles

FILTERS = 64  # of the first layer that are shown


def filters(model: nn.Module) -> dict[str, Any] | None:
    """Describe the first convolution of a network; None where it has none that takes colours.

    Returns:
        {"module", "shape", "params", "shown", "sheet" (a data: URL), "sheet_size", "convolutions"}.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    if not layers or layers[0][1].in_channels != 3:
        return None
    name, layer = layers[0]
    weight = layer.weight.detach().float()
    shown = min(FILTERS, len(weight))
    # Of a filter the mean is of no interest: it is what it makes of a plain colour.
    centred = weight[:shown] - weight[:shown].mean((1, 2, 3), keepdim=True)
    sheet = tiles(centred.cpu().numpy(), 16)
    return {
        "module": name,
        "shape": list(weight.shape),
        "params": sum(parameter.numel() for parameter in layer.parameters()),
        "shown": shown,
        "sheet": png_url(sheet),
        "sheet_size": [sheet.shape[1], sheet.shape[0]],
        "convolutions": len(layers),
        "kernels": sorted({layer.kernel_size[0] for _, layer in layers}),
    }
