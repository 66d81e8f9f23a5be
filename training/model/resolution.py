"""Another resolution than the checkpoint's: position embeddings, patches, image processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from training.common.errors import UserError

INTERPOLATED = ("vit", "deit")  # model types whose position embeddings are a plain learnt grid


def patch_size(config: Any) -> int | None:
    """Read from a config the pixels a side of a transformer's patches; None for a CNN.

    ConvNeXt's config has a `patch_size` too, the stride of its stem.
    """
    size = getattr(config, "patch_size", None)
    return size if isinstance(size, int) and hasattr(config, "num_attention_heads") else None


def at_resolution(model: PreTrainedModel, image_size: int) -> PreTrainedModel:
    """Adapt a network, with its weights, to images of `image_size` pixels a side.

    ViT and DeiT get interpolated position embeddings. Any other network stays as it is and is
    tried at that size: a CNN has no positions, and DINOv2, Swin and BEiT interpolate or pad while
    they run.

    Raises:
        UserError: the patch size does not divide `image_size`, or the network does not run at it.
    """
    config, patch = model.config, patch_size(model.config)
    sides = [getattr(config, key, 0) for key in ("image_size", "patch_size")]
    if config.model_type in INTERPOLATED and not all(isinstance(side, int) for side in sides):
        raise UserError(
            f"image_size {image_size}: only square images and patches can be interpolated, and the model "
            f"has {sides[0]} and {sides[1]}; leave image_size out"
        )
    if patch and image_size % patch:  # a rim of every image would never be seen
        raise UserError(f"image_size {image_size} is not a multiple of the patch size {patch}")
    try:
        if config.model_type in INTERPOLATED:
            same = image_size == config.image_size
            return model if same else resize_positions(model, image_size)
        pixels = torch.zeros(1, getattr(config, "num_channels", 3), image_size, image_size)
        with torch.no_grad():  # no inference_mode: BEiT keeps tensors that it makes here
            model.eval()(pixel_values=pixels)
    except (ValueError, RuntimeError, TypeError) as error:  # the last: beyond 64 bits
        reason = " ".join(str(error).split())
        raise UserError(
            f"image_size {image_size}: {type(model).__name__} does not run at that size ({reason}); leave "
            "image_size out, or give one that it was made for"
        ) from error
    if hasattr(config, "image_size") and not hasattr(config, "num_attention_heads"):
        config.image_size = image_size  # nothing in a CNN is built from it
    return model


def resize_positions(model: PreTrainedModel, image_size: int) -> PreTrainedModel:
    """Build a ViT or DeiT again with its position embeddings interpolated, bicubic and antialiased.

    That is timm's way (`resample_abs_pos_embed`), done once, before training. transformers' own
    `interpolate_pos_encoding` does it at every forward pass without antialias, which is another
    bicubic kernel (a of -0.75, not -0.5): from 14 x 14 to 24 x 24 the two differ by 0.02 standard
    deviations of the embeddings on average for a smooth grid, by 0.05 for noise.
    """
    config, state = model.config, model.state_dict()
    key = next(name for name in state if name.endswith("position_embeddings"))
    old_side = config.image_size // config.patch_size
    prefix = state[key].shape[1] - old_side**2  # class token, and DeiT's distillation token
    tokens, grid = state[key][:, :prefix], state[key][:, prefix:]
    grid = grid.transpose(1, 2).reshape(1, -1, old_side, old_side)
    side = image_size // config.patch_size
    grid = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    state[key] = torch.cat([tokens, grid.flatten(2).transpose(1, 2)], 1)
    config.image_size = image_size
    resized = AutoModelForImageClassification.from_config(config)
    resized.load_state_dict(state)
    return resized


def resize_processor(processor: Any, image_size: int) -> Any:
    """Change an image processor to another size; a resize before a centre crop grows in proportion.

    `processor` itself is changed and returned, for `image_size` pixels a side.

    ConvNeXt's form (`crop_pct`) says only the final size: below 384 pixels it resizes to that over
    `crop_pct` and crops, from 384 on it resizes without a crop.
    """
    square = {"height": image_size, "width": image_size}
    size = dict(processor.size)
    if getattr(processor, "do_center_crop", None):
        scale = image_size / dict(processor.crop_size)["height"]
        processor.size = {key: round(value * scale) for key, value in size.items() if value}
        processor.crop_size = square
    elif getattr(processor, "crop_pct", None) and size.get("shortest_edge"):
        processor.size = {"shortest_edge": image_size}
    else:
        processor.size = square
    return processor
