"""The head: the linear layer that scores the labels, found in any network, renewed or reordered."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from training.common.errors import UserError


def heads_of(model: PreTrainedModel) -> list[nn.Linear]:
    """Find the layers that score the labels: one, or two where DeiT or LeViT were distilled.

    A layer of the backbone is not one of them, even if it is as wide as there are labels.

    Raises:
        UserError: no linear layer after the backbone has as many outputs.
    """
    backbone = set() if model.base_model is model else set(model.base_model.modules())
    after = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in backbone]
    found = [layer for layer in after if layer.out_features == model.config.num_labels]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no linear layer that scores the labels: give another model"
        )
    return found


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Find the layer that scores the labels; the last one where there are two.

    Raises:
        UserError: as `heads_of`.
    """
    return heads_of(model)[-1]


def renew_head(model: PreTrainedModel) -> None:
    """Draw the head's weights anew, as transformers does, from torch's global generator; bias 0."""
    for head in heads_of(model):
        nn.init.trunc_normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def scale_head(model: PreTrainedModel, scale: float) -> None:
    """Multiply the head's weights and biases by `scale`.

    A head near 0 first predicts all labels alike, and sends little noise into the backbone. It is 0
    in ViT (https://arxiv.org/abs/2010.11929, appendix B.1.1) and 0.001 in BEiT and ConvNeXt (timm's
    `head_init_scale`), which multiply weights and biases as well.
    """
    with torch.no_grad():
        for head in heads_of(model):
            for parameter in head.parameters():
                parameter.mul_(scale)


def divide_scores(model: PreTrainedModel, temperature: float) -> None:
    """Divide the network's scores by a temperature, in its heads: both where DeiT was distilled.

    Float32 differs from a division of the scores themselves by some 1e-5 of a logit.
    """
    scale_head(model, 1 / temperature)


def reorder_head(model: PreTrainedModel, rows: list[int]) -> None:
    """Reorder the labels of the head: the new label i is the old label `rows[i]`."""
    with torch.no_grad():
        for head in heads_of(model):
            head.weight.copy_(head.weight[rows])
            if head.bias is not None:
                head.bias.copy_(head.bias[rows])
