# SPDX-License-Identifier: Apache-2.0
"""Why this dish: which parts of a picture a network's answer rests on; uploaded beside `food_classification`.

    answer = classify("dinner.jpg", explain=True)
    answer["explanation"]["map"]      # (rows, columns), share of each patch in what speaks for the dish
    answer["explanation"]["overlay"]  # a PIL image: what the network saw, dark where nothing speaks for it

ViT and DeiT: AttnLRP (arXiv:2402.05602) of the answer's odds against all others, written from the paper's
rules. A relevance is a gradient times its input, with four changes in the backward pass: LayerNorm's
deviation and the slope of GELU count as constants, and of each product of two values (Q K, A V) each
factor gets half. The forward pass is done once more in float32 by the network's own weights, so nothing of
the network is changed or switched, and other threads may use it meanwhile. Networks that end in a
picture-shaped layer, as CNNs do: Grad-CAM (arXiv:1610.02391). Others are refused.

It imports the standard library, numpy, torch, Pillow and transformers only.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

LRP, GRAD_CAM = "AttnLRP", "Grad-CAM"

# Networks whose forward pass `relevance` does by itself; it compares the outcome with the network's.
VITS = ("vit", "deit", "vit_msn")

# How far its logits may lie from the network's own, as a share of the largest: float32 differs by some
# 1e-6, TF32 by 1e-3, bfloat16 by some 1e-2. Another forward pass would be off by far more.
TOLERANCE = {torch.float32: 0.01}
TOLERANCE_OF_HALVES = 0.1


# ---- a ViT's parts -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """The modules of one block, under the names of transformers 5; 4 has others for the same."""

    layernorm_before: nn.LayerNorm
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    layernorm_after: nn.LayerNorm
    fc1: nn.Linear
    activation: Callable[[torch.Tensor], torch.Tensor]
    fc2: nn.Linear
    num_heads: int


@dataclass(frozen=True)
class VitParts:
    """A ViT in the order of its forward pass."""

    embeddings: nn.Module
    blocks: tuple[Block, ...]
    layernorm: nn.LayerNorm
    heads: tuple[nn.Linear, ...]  # one for each token before the patches that is classified

    def logits(self, tokens: torch.Tensor, fixed: bool = False) -> torch.Tensor:
        """Classify the tokens (batch, num_tokens, width) that the last block gives; see `layer_norm`."""
        tokens = layer_norm(self.layernorm, tokens, fixed)
        found = [linear(head, tokens[:, i]) for i, head in enumerate(self.heads)]
        return torch.stack(found).mean(0)


def vit_parts(model: nn.Module) -> VitParts | None:
    """Find the parts of a ViT or DeiT for image classification; None of any other network."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    if model.config.model_type not in VITS:
        return None
    body = model.base_model
    layers = body.layers if hasattr(body, "layers") else body.encoder.layer
    heads = [getattr(model, name, None) for name in ("cls_classifier", "distillation_classifier")]
    heads = heads if heads[0] is not None else [getattr(model, "classifier", None)]
    if any(head is None or isinstance(head, nn.Identity) for head in heads):
        raise ValueError(
            f"{type(model).__name__} has no trained head: there is no answer to explain; train it first"
        )
    blocks = tuple(_block(layer, model.config.num_attention_heads) for layer in layers)
    return VitParts(body.embeddings, blocks, body.layernorm, tuple(heads))


def _block(layer: nn.Module, num_heads: int) -> Block:
    if hasattr(layer, "mlp"):  # transformers 5
        attention, mlp = layer.attention, layer.mlp
        projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        layers = mlp.fc1, mlp.activation_fn, mlp.fc2
    else:
        inner = layer.attention.attention
        projections = inner.query, inner.key, inner.value, layer.attention.output.dense
        first, activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
        layers = first, activation, layer.output.dense
    return Block(layer.layernorm_before, *projections, layer.layernorm_after, *layers, num_heads)


def linear(module: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """Apply a linear layer in float32, whatever its weights are kept in."""
    if not isinstance(module, nn.Linear):  # as quantised ones are none
        kind = f"{type(module).__module__}.{type(module).__name__}"
        raise ValueError(f"{kind} cannot be explained: load the model in float32, adapters merged")
    bias = None if module.bias is None else _float32(module.bias)
    return F.linear(values, _float32(module.weight), bias)


def layer_norm(module: nn.LayerNorm, values: torch.Tensor, fixed: bool = False) -> torch.Tensor:
    """Apply a LayerNorm in float32; `fixed`: its deviation counts as a constant in the backward pass."""
    centred = values - values.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    scale = (variance + module.eps).rsqrt()
    scale = scale.detach() if fixed else scale
    return centred * scale * _float32(module.weight) + _float32(module.bias)


def _float32(parameter: torch.Tensor) -> torch.Tensor:
    if not parameter.is_floating_point():
        raise ValueError(f"weights of {parameter.dtype} cannot be explained: load them as float32")
    return _for_backward(parameter.detach()).float()


def _for_backward(weight: torch.Tensor | None) -> torch.Tensor | None:
    """Clone a weight that was made in inference mode: it cannot take part in a backward pass."""
    return weight.clone() if weight is not None and weight.is_inference() else weight


def split_heads(values: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Cut (batch, tokens, width) into (batch, heads, tokens, width of a head)."""
    return values.unflatten(-1, (num_heads, -1)).transpose(1, 2)


# ---- AttnLRP -------------------------------------------------------------------------------------


class _Share(torch.autograd.Function):
    """Hand on values as they are, and only a share of their gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, parts: int) -> torch.Tensor:
        ctx.parts = parts
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient / ctx.parts, None


def lrp_block(block: Block, tokens: torch.Tensor) -> torch.Tensor:
    """Do a block's forward pass, so that gradient times input is AttnLRP's relevance."""
    normed = layer_norm(block.layernorm_before, tokens, fixed=True)
    q, k, v = (
        split_heads(linear(projection, normed), block.num_heads)
        for projection in (block.q_proj, block.k_proj, block.v_proj)
    )
    # Of A V, A and V get half each; A's half is halved once more between Q and K.
    q, k, v = _Share.apply(q, 4), _Share.apply(k, 4), _Share.apply(v, 2)
    attention = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    mixed = (attention @ v).transpose(1, 2).flatten(2)
    tokens = tokens + linear(block.o_proj, mixed)
    inner = linear(block.fc1, layer_norm(block.layernorm_after, tokens, fixed=True))
    active = block.activation(inner)
    slope = active / torch.where(inner == 0, torch.ones_like(inner), inner)
    return tokens + linear(block.fc2, inner * slope.detach())


def logit(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Pick one logit of each image: (batch, num_classes) and (batch,) give (batch,)."""
    return logits.gather(1, label[:, None])[:, 0]


def log_odds(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Compute log(p / (1 - p)) of one label's probability p of each image; shapes as `logit`.

    What speaks for it is, but for its scale, what speaks for log p. Of an answer that is as good as
    certain log p has no gradient left, and this has.
    """
    others = logits.scatter(1, label[:, None], -torch.inf)
    return logit(logits, label) - others.logsumexp(1)


def relevance(
    parts: VitParts,
    pixel_values: torch.Tensor,
    labels: torch.Tensor,
    target: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = log_odds,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what each token contributes to some labels.

    Args:
        pixel_values: (batch, channels, height, width), as the network takes them.
        labels: (batch, num_labels), of each image those that are asked for.
        target: what of a label is explained, as `log_odds` or `logit`.

    Returns:
        Relevance (batch, num_labels, num_tokens), signed, of the tokens that enter the first block;
        and the logits of this forward pass (batch, num_classes).
    """
    with _gradients(pixel_values.device):
        with torch.no_grad():
            tokens = parts.embeddings(pixel_values.clone()).float()
        out = tokens.requires_grad_()
        for block in parts.blocks:
            out = lrp_block(block, out)
        logits = parts.logits(out, fixed=True)
        found = []
        for one in labels.clone().T:  # what was made in inference mode cannot be kept for it
            chosen = target(logits, one).sum()  # images do not touch each other
            (gradient,) = torch.autograd.grad(chosen, tokens, retain_graph=True)
            found.append((gradient * tokens).sum(-1).detach())
        return torch.stack(found, 1), logits.detach()


# ---- Grad-CAM ------------------------------------------------------------------------------------


def grad_cam(
    model: nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute Grad-CAM at the last picture-shaped layer: (batch, num_labels, rows, columns), and logits.

    Raises:
        ValueError: no layer is followed by nothing but pooling and a head; the line says so.
    """
    seen: list[torch.Tensor] = []  # the last output of more than one position
    with _gradients(pixel_values.device):
        own = _private_copy(getattr(model, "_orig_mod", model), {})
        for module in own.modules():
            module.register_forward_hook(lambda _module, _inputs, output: _note(output, seen))
        logits = own(pixel_values=pixel_values.clone().requires_grad_()).logits
        if not seen or seen[-1].dim() != 4:
            raise ValueError(
                f"{type(model).__name__} cannot be explained: a map is made of ViT, DeiT and networks "
                "whose last layer before pooling and head is a picture, as CNNs have"
            )
        layer, found = seen[-1], []
        for one in labels.clone().T:
            chosen = logit(logits, one).sum()
            (gradient,) = torch.autograd.grad(chosen, layer, retain_graph=True)
            weights = gradient.float().mean((2, 3), keepdim=True)
            found.append((weights * layer.float()).sum(1).relu().detach())
        return torch.stack(found, 1), logits.detach()


def _note(output: Any, seen: list[torch.Tensor]) -> None:
    """Keep an output that has positions: (batch, channels, rows, columns) or (batch, tokens, width)."""
    if not isinstance(output, torch.Tensor) or not output.requires_grad:
        return
    if (output.dim() == 4 and output.shape[2:].numel() > 1) or output.dim() == 3:
        seen.append(output)


def _private_copy(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """Copy modules but not their weights, so that a hook or a setting of the copy is nobody else's."""
    if module not in made:
        made[module] = twin = copy.copy(module)
        vars(twin).pop("forward", None)  # a compiled one calls `module` itself
        for hooks in [name for name in vars(twin) if name.startswith("_forward_hooks")]:
            setattr(twin, hooks, copy.copy(getattr(module, hooks)))
        weights, buffers = module._parameters.items(), module._buffers.items()
        twin._parameters = {name: _for_backward(each) for name, each in weights}
        # In training batch normalisation writes into these.
        twin._buffers = {name: None if each is None else each.clone() for name, each in buffers}
        twin._modules = {}
        for name, child in module._modules.items():
            twin._modules[name] = None if child is None else _private_copy(child, made)
    return made[module]


@contextmanager
def _gradients(device: torch.device) -> Iterator[None]:
    """Allow a backward pass in full precision, where a pipeline has forbidden it."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


# ---- maps ----------------------------------------------------------------------------------------


def explain(
    model: nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, str]:
    """Map what speaks for some labels.

    Args:
        pixel_values: (batch, channels, height, width), normalised, in the network's dtype.
        labels: (batch, num_labels), numbers of labels.
        logits: (batch, num_classes) that the network itself gave for these images.

    Returns:
        Maps (batch, num_labels, rows, columns), float32 on the CPU: each patch's share in what speaks
        for the label, so that a map adds up to 1, or to 0 where nothing does. And `LRP` or `GRAD_CAM`.

    Raises:
        ValueError: no method is known for this network; one line.
    """
    parts = vit_parts(model)
    if parts is None:
        found, again = grad_cam(model, pixel_values, labels)
    else:
        # Labels that do not exclude each other have no odds against each other.
        alone = logits.shape[1] == 1 or model.config.problem_type == "multi_label_classification"
        target = logit if alone else log_odds
        found, again = relevance(parts, pixel_values, labels, target)
        found = on_grid(found, *grid_of(parts, pixel_values))
    allowed = TOLERANCE.get(logits.dtype, TOLERANCE_OF_HALVES) * logits.abs().max().clamp(min=1)
    if not (again - logits).abs().max() <= allowed:  # nor is NaN
        why = "its answers are not those of the forward pass that its config.json describes"
        if not logits.isfinite().all():
            why = "its scores are not finite numbers"
        elif model.training:
            why = "it is in training mode, where dropout changes answers: call model.eval() first"
        raise ValueError(f"{type(model).__name__} cannot be explained: {why}")
    found = found.clamp(min=0)
    total = found.sum((2, 3), keepdim=True)
    found = (found / total.where(total > 0, torch.ones_like(total))).float().cpu()
    return found, GRAD_CAM if parts is None else LRP


def grid_of(parts: VitParts, pixel_values: torch.Tensor) -> tuple[int, int]:
    """Count the rows and columns of patches."""
    patch = parts.embeddings.patch_embeddings.projection.kernel_size
    return tuple(side // step for side, step in zip(pixel_values.shape[2:], patch, strict=True))


def on_grid(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Lay out (..., num_tokens) as (..., rows, columns), without the tokens before the patches."""
    return tokens[..., -rows * columns :].unflatten(-1, (rows, columns))


def overlay(pixels: torch.Tensor, shares: np.ndarray) -> Image.Image:
    """Draw a map over what the network saw: in colour where it matters most, grey and dark elsewhere.

    Args:
        pixels: uint8 (3, height, width), before normalising.
        shares: (rows, columns); drawn as shares of the largest.
    """
    photo = pixels.permute(1, 2, 0).cpu().numpy().astype(np.float32)
    heat = torch.from_numpy(shares / max(shares.max(), 1e-12))[None, None]
    heat = F.interpolate(heat, photo.shape[:2], mode="bilinear", align_corners=False)
    heat = heat[0, 0].clamp(0, 1).numpy()[..., None]
    grey = photo.mean(2, keepdims=True) * 0.3
    return Image.fromarray((grey + (photo - grey) * heat).round().astype(np.uint8))


# ---- what a pipeline asks ------------------------------------------------------------------------


def labels_asked(
    config: Any, asked: Any, names: Sequence[Mapping[str, str]] = ()
) -> tuple[int, ...]:
    """Find the numbers of the labels that are to be explained; () where it is the best one.

    Args:
        asked: True for the best label; a label, or several in a list.
        names: what labels are called, by language; they are found by their names too.

    Raises:
        ValueError: an unknown label, or what may be several; the line names those that may be meant.
    """
    numbers = {label: number for number, label in config.id2label.items()}
    if len(numbers) < len(config.id2label):
        raise ValueError("two labels of this model are equal: rename one in its config.json")
    if asked is True:
        return ()
    wanted = [asked] if isinstance(asked, str) else asked
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise ValueError(f"explain must be True, a label or a list of labels, not {asked!r}")
    known: dict[str, set[str]] = {}
    called: dict[str, set[str]] = {}
    for label in numbers:
        known.setdefault(_folded(label), set()).add(label)
        for by_label in names:
            called.setdefault(_folded(by_label.get(label, label)), set()).add(label)
    return tuple(_number_of(each, {**called, **known}, numbers) for each in wanted)


def _number_of(given: Any, known: Mapping[str, set[str]], numbers: Mapping[str, int]) -> int:
    """Find a label as it is written, else by `known`: the labels of each folded label or name."""
    if isinstance(given, str):
        found = [given] if given in numbers else sorted(known.get(_folded(given), ()))
        if len(found) == 1:
            return int(numbers[found[0]])
        if found:
            raise ValueError(f"label {given!r} may be {' or '.join(found)}: give one of these")
    close = difflib.get_close_matches(_folded(str(given)), known, n=3, cutoff=0.5)
    near = list(dict.fromkeys(label for each in close for label in sorted(known[each])))
    few = ", ".join([*numbers][:5]) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
    cure = f"is it {' or '.join(near)}?" if near else f"give one of {few}"
    raise ValueError(f"label {given!r} is not known to this model: {cure}")


def _folded(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("-", " ").casefold().split())


def explanation_of(
    model: nn.Module,
    pixels: torch.Tensor,  # uint8 (batch, 3, height, width)
    pixel_values: torch.Tensor,  # the same, normalised
    logits: torch.Tensor,
    asked: tuple[int, ...],  # as `labels_asked` gave them
) -> dict[str, torch.Tensor]:
    """Explain a batch: what `described` makes words and pictures of, with the batch first."""
    best = logits.argmax(1, keepdim=True)
    labels = torch.tensor(asked, device=logits.device).expand(len(logits), -1) if asked else best
    maps, method = explain(model, pixel_values, labels, logits)
    ours = torch.full((len(maps),), method == LRP)
    return {"maps": maps, "explained": labels.cpu(), "pixels": pixels.cpu(), "by_lrp": ours}


def described(
    outputs: Mapping[str, torch.Tensor], rows: Sequence[Mapping[str, Any]], config: Any
) -> list[dict[str, Any]]:
    """Say what one image's maps are of.

    Args:
        outputs: of `explanation_of`, for one image.
        rows: {"label", "name", "score"} of every label.

    Returns:
        For each label that was asked for its row, and `map`, `overlay` and `method`. A map of a label
        with a small score tells little: it shows what speaks for a dish that the network does not see.
    """
    by_label = {row["label"]: row for row in rows}
    found = []
    for number, shares in zip(outputs["explained"][0].tolist(), outputs["maps"][0], strict=True):
        shares = shares.numpy()
        method = LRP if outputs["by_lrp"][0] else GRAD_CAM
        picture = {"map": shares, "overlay": overlay(outputs["pixels"][0], shares)}
        found.append({**by_label[config.id2label[number]], **picture, "method": method})
    return found
