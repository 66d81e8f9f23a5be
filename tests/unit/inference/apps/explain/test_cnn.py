# SPDX-License-Identifier: Apache-2.0
"""What is shown of a CNN."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageClassification

from inference.apps.explain.cnn import filters
from tests.unit.explained import save_cnn


@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_the_first_convolution_is_the_networks_own(tmp_path, name):
    model = AutoModelForImageClassification.from_pretrained(save_cnn(tmp_path, name=name))
    found = filters(model)
    layer = model.get_submodule(found["module"])
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert layer is convolutions[0] and found["convolutions"] == len(convolutions)
    assert found["shape"] == list(layer.weight.shape)
    assert found["params"] == sum(each.numel() for each in layer.parameters())
    assert found["kernels"] == sorted({each.kernel_size[0] for each in convolutions})
    image = Image.open(io.BytesIO(base64.b64decode(found["sheet"].split(",")[1])))
    assert list(image.size) == found["sheet_size"]
    # Its first tile: the first filter without its mean.
    weight = layer.weight[0].detach()
    weight = weight - weight.mean()
    height, width = weight.shape[1:]
    expected = ((weight / weight.abs().max() + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(image)[:height, :width] - expected).max() <= 1


def test_no_more_filters_than_fit_are_shown():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 100, 4), nn.Conv2d(100, 2, 1))
    found = filters(model)
    assert (found["shown"], found["module"], found["kernels"]) == (64, "0", [1, 4])
    assert found["sheet_size"] == [16 * 5 - 1, 4 * 5 - 1]


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Conv2d(4, 2, 3)], ids=["none", "no colours"])
def test_a_network_without_filters_of_colours_has_none_to_show(model):
    assert filters(model) is None
