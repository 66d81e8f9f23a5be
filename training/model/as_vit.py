"""Checkpoints that are a ViT in other clothes, as a `ViTForImageClassification` with the same class token.

Each architecture is an entry of `CONVERTED`: which keys of its config a ViT has too, which say nothing
about the class token, and which have one value only at which the two are the same. All else is refused
by name: a key of the config, a weight of the files. What is left is renamed, a LayerScale is folded into
the matrix before it, and the class token is compared with that of the original at the size that is asked for.
docs/backbones.md has the table for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
    ViTConfig,
)

from training.common.errors import UserError
from training.model.head import renew_head
from training.model.network import load_weights

# Keys of a config that ViT has under the same name and with the same meaning.
SHARED = (
    "hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act layer_norm_eps "
    "attention_probs_dropout_prob initializer_range patch_size num_channels qkv_bias"
).split()

# What transformers has called the parts of a block over the years, and what they are called here.
NAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)

# A LayerScale and the layer before it, whose rows it multiplies.
FOLDED = {"layer_scale1.lambda1": "attention.o_proj", "layer_scale2.lambda1": "mlp.fc2"}

# Weights on which no class token depends, of the pretraining and of a head that is left out.
ASIDE = re.compile(r"(^|\.)(mask_token$|pooler\.|decoder\.|classifier\.)")

# Largest difference of the class tokens, of their largest number; rounding is some hundred times less.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Clothes:
    """What is to be known of an architecture to make a ViT of it.

    Attributes:
        shared: keys of its config that ViT has with the same meaning.
        idle: keys on which no class token depends.
        only: key -> the one value at which it computes what ViT does.
        as_is: key -> value that lets it run without what its pretraining does to an image.
        forward: further arguments that let it take images of any size.
        done: what is done to it, in words.
    """

    shared: tuple[str, ...] = tuple(SHARED)
    idle: tuple[str, ...] = ()
    only: Mapping[str, Any] = field(default_factory=dict)
    as_is: Mapping[str, Any] = field(default_factory=dict)
    forward: Mapping[str, Any] = field(default_factory=dict)
    done: str = "weights renamed"


CONVERTED: dict[str, Clothes] = {
    "dinov2": Clothes(
        # layerscale_value is only what a new network begins with
        idle=(
            "layerscale_value use_mask_token apply_layernorm reshape_hidden_states out_features "
            "out_indices stage_names mlp_ratio"
        ).split(),
        # Dropout stands in other places, and ViT has no stochastic depth: both act in training.
        only={"use_swiglu_ffn": False, "drop_path_rate": 0, "hidden_dropout_prob": 0},
        done="LayerScale folded into the output projections",
    ),
    "vit_mae": Clothes(
        idle=(
            "mask_ratio norm_pix_loss decoder_hidden_size decoder_intermediate_size "
            "decoder_num_attention_heads decoder_num_hidden_layers"
        ).split(),
        only={"hidden_dropout_prob": 0},  # its embeddings have no dropout
        as_is={"mask_ratio": 0.0},
        forward={"interpolate_pos_encoding": True},
        done="the encoder alone, without masking",
    ),
    "vit_msn": Clothes(
        shared=(*SHARED, "hidden_dropout_prob"), forward={"interpolate_pos_encoding": True}
    ),
}

# Architectures that people take for a ViT, and what ViT has no place for.
REFUSED = {
    "dinov2_with_registers": "its register tokens take part in attention",
    "dinov3_vit": "its positions rotate queries and keys, and it has register tokens",
    "ijepa": "it has no class token, and a head on the mean of the patches",
    "deit": "its distillation token takes part in attention (a plain DeiT is saved as a ViT)",
    "beit": "its attention has relative positions",
    "data2vec-vision": "its attention has relative positions",
    "clip": "it has a layer norm before the blocks",
    "clip_vision_model": "it has a layer norm before the blocks",
    "siglip": "it has no class token: attention pools the patches",
    "siglip_vision_model": "it has no class token: attention pools the patches",
    "siglip2": "it has no class token: attention pools the patches",
}


def load_as_vit(
    model_id: str, revision: str | None, config: Any, image_size: int, labels: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint and make a `ViTForImageClassification` of it, with a new head.

    Args:
        model_id: a folder with config.json, or a Hub id.
        revision: commit, tag or branch on the Hub; None is the newest.
        config: the checkpoint's; it is changed.
        image_size: pixels a side.
        labels: values of the new config that describe the labels.

    Returns:
        The network, in float32, and what was done: `model_type`; `done`, in words; `positions`, old
        and new patches a side; `difference`, the largest of the class token to that of the original,
        on one image of noise; `head`, whether the files have one, which is left out.

    Raises:
        UserError: the checkpoint is not exactly a ViT, cannot be loaded, or `image_size` does not fit.
    """
    clothes = clothes_of(config, model_id)
    values = vit_values(clothes, config, model_id)
    old, side = config_side(config, model_id), _patches_a_side(image_size, values, model_id)
    for key, value in clothes.as_is.items():
        setattr(config, key, value)
    source, lacking, unknown = load_weights(AutoModel, model_id, revision, config)
    name = type(source).__name__
    _refuse_weights(lacking, unknown, model_id, name)
    pixels, before = _class_token(source, image_size, clothes.forward)
    state = {plain_name(key): value for key, value in source.state_dict().items()}
    del source
    fold_layer_scale(state)
    positions = state["embeddings.position_embeddings"]
    state["embeddings.position_embeddings"] = interpolate_positions(positions, old, side)
    vit = ViTConfig(**values, image_size=image_size, **labels)
    model = _filled(vit, state, f"{model_id} ({name})")
    with torch.no_grad():
        after = model.eval().vit(pixel_values=pixels)[0][:, 0]
    difference = (after - before).abs().max().item()
    if not difference <= TOLERANCE * before.abs().max().item():
        raise UserError(
            f"as_vit: the class token of {model_id} as a ViT differs by {difference:g} from {name}'s, so "
            "that it is not used: check that its weights are finite, or leave as_vit out"
        )
    return model, {
        "model_type": config.model_type,
        "done": clothes.done,
        "positions": [old, side],
        "difference": difference,
        "head": any("classifier." in key for key in unknown),
    }


def clothes_of(config: Any, model_id: str) -> Clothes:
    """Find how the architecture of a config becomes a ViT; `model_id` only names it in an error.

    Raises:
        UserError: it does not; the line says why where that is known.
    """
    kind = config.model_type
    if kind in CONVERTED:
        return CONVERTED[kind]
    known = ", ".join(CONVERTED)
    why = REFUSED.get(kind, f"as_vit knows {known}, and vit itself")
    raise UserError(
        f"as_vit: {model_id} is {kind}, which is not exactly a ViT: {why}; leave as_vit out (--as_vit "
        "false) to train it as it is"
    )


def vit_values(clothes: Clothes, config: Any, model_id: str) -> dict[str, Any]:
    """Choose the values of a ViTConfig, but for `image_size`, that compute what `config` does.

    Raises:
        UserError: a key has another value than the one at which both compute the same, or is not known
            here and says something.
    """
    found = config.to_dict()
    for key, wanted in {**clothes.only, "num_channels": 3}.items():
        if found.get(key, wanted) != wanted:
            raise UserError(
                f"as_vit: {key} of {model_id} is {found[key]}, and a ViT can do {wanted} only: leave as_vit "
                "out (--as_vit false), or give another checkpoint"
            )
    known = {*PretrainedConfig().to_dict(), *clothes.shared, *clothes.idle, *clothes.only}
    known |= {"image_size", "custom_pipelines"}
    for key, value in found.items():
        # What says nothing: null, false, or an empty list or mapping, as pruned_heads of older files.
        if key not in known and value is not None and value is not False and value not in ([], {}):
            raise UserError(
                f"as_vit: the config of {model_id} has {key}: {value}, which is not known here and may change "
                "what is computed: leave as_vit out (--as_vit false), or give another checkpoint"
            )
    values = {key: found[key] for key in clothes.shared if key in found}
    if "intermediate_size" not in values:
        values["intermediate_size"] = int(found["hidden_size"] * found["mlp_ratio"])
    values["patch_size"] = _one_side("patch_size", found["patch_size"], model_id)
    return values


def config_side(config: Any, model_id: str) -> int:
    """Count the patches a side of the checkpoint's own position embeddings.

    Raises:
        UserError: images or patches are not square.
    """
    sides = [_one_side(key, getattr(config, key), model_id) for key in ("image_size", "patch_size")]
    return sides[0] // sides[1]


def _one_side(key: str, value: Any, model_id: str) -> int:
    sides = {*value} if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int) or side < 1:
        raise UserError(
            f"as_vit: {key} of {model_id} is {value}, and only square images and patches can be "
            "interpolated: leave as_vit out (--as_vit false), or give another checkpoint"
        )
    return side


def _patches_a_side(image_size: int, values: dict[str, Any], model_id: str) -> int:
    patch = values["patch_size"]
    side, rest = divmod(image_size, patch)
    if rest:  # a rim of every image would never be seen
        below, above = side * patch, (side + 1) * patch
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"image_size {image_size} is not a multiple of the patch size {patch} of {model_id}: give "
            f"{near}"
        )
    return side


def _refuse_weights(lacking: list[str], unknown: list[str], model_id: str, name: str) -> None:
    """Refuse files that do not give all weights of `name`, or give some that it has no place for."""
    for names, how in ((lacking, "do not give"), (unknown, "also give")):
        if odd := [key for key in names if not ASIDE.search(key)]:
            shown = ", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
            raise UserError(
                f"as_vit: the files of {model_id} {how} {shown}, where the {name} of its config.json "
                f"{'needs them' if names is lacking else 'has no place for them'}: restore the files, or "
                "give another checkpoint"
            )


def _class_token(
    source: PreTrainedModel, image_size: int, forward: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the class token of an image of noise: the image (1, 3, size, size), the token (1, width)."""
    draw = torch.Generator().manual_seed(0)  # the global one draws the head
    try:
        pixels = torch.randn(1, 3, image_size, image_size, generator=draw)
        with torch.no_grad():
            return pixels, source.eval()(pixel_values=pixels, **forward)[0][:, 0]
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"image_size {image_size}: {type(source).__name__} does not run at that size ({reason}); "
            "give another"
        ) from error


def plain_name(name: str) -> str:
    """Rename a parameter of an encoder of any version of transformers to the name that it has here.

    >>> plain_name("encoder.layer.0.attention.attention.query.weight")
    'layers.0.attention.q_proj.weight'
    """
    for pattern, new in NAMES:
        name = re.sub(pattern, new, name)
    return name


def fold_layer_scale(state: dict[str, torch.Tensor]) -> None:
    """Multiply each LayerScale into the rows of the layer before it: gamma (W x + b) = (gamma W) x + gamma b.

    `state` is changed, one matrix after the other.
    """
    for name in [name for name in state if name.endswith(tuple(FOLDED))]:
        block, scale = re.fullmatch(r"(.*)\.(\w+\.\w+)", name).groups()
        layer, gamma = f"{block}.{FOLDED[scale]}", state.pop(name)
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
        state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma


def interpolate_positions(positions: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """Interpolate position embeddings as `Dinov2Model`, and every ViT of transformers, does as it runs.

    That is bicubic without antialias, and so not what `resize_positions` does to a network that was
    trained on one size: DINOv2 has learnt to be run with positions of this kind.

    Args:
        positions: (1, 1 + old^2, width), the class token's first.
        old, new: patches a side; the same is the identity.

    Returns:
        (1, 1 + new^2, width).
    """
    if old == new:
        return positions
    grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1).contiguous()


def _filled(config: ViTConfig, state: dict[str, torch.Tensor], of: str) -> PreTrainedModel:
    """Build a ViT around tensors, which are not copied; the head is new.

    Raises:
        UserError: a tensor has no place in ViT, or a place no tensor.
    """
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(config)
    places = {plain_name(key): key for key in model.vit.state_dict()}
    state = {key: value for key, value in state.items() if not ASIDE.search(key)}
    if odd := sorted({*places} ^ {*state}):
        raise UserError(
            f"as_vit: {', '.join(odd[:3])} of {of} and of a ViT do not match: leave as_vit out (--as_vit "
            "false), or give another checkpoint"
        )
    model.vit.load_state_dict(
        {places[key]: value for key, value in state.items()}, strict=True, assign=True
    )
    model.classifier.to_empty(device="cpu")
    renew_head(model)
    return model
