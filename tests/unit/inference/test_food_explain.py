# SPDX-License-Identifier: Apache-2.0
"""What an answer rests on: the paper's rules, the networks that are explained, and what a pipeline gives."""

import copy
import threading

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
    ViTForImageClassification,
)

from inference import food_explain
from inference.food_explain import (
    GRAD_CAM,
    LRP,
    explain,
    log_odds,
    logit,
    overlay,
    relevance,
    vit_parts,
)
from tests.unit.pictures import LABELS, photo
from training.model.config_block import merge_block

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
SMALL |= {"intermediate_size": 48, "image_size": 32, "num_labels": 5, "initializer_range": 0.3}


def network(config) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # as made they are 0
                parameter.normal_(std=0.1)
    return model


def pictures(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def maps_of(model, pixels, labels=((0, 1),)):
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits
    return explain(model, pixels, torch.tensor(labels).expand(len(pixels), -1), logits)


# ---- AttnLRP -------------------------------------------------------------------------------------


def reference(model, pixels, label) -> torch.Tensor:
    """AttnLRP by the paper's propositions, each relevance handed down by hand in float64; one image.

    Without biases, relevance of a linear layer's input is x * (W' (R / z)), eps 0 (eq. 8); of a product
    of two matrices it is half for each (prop. 3.3); of softmax x * (R - s sum R) (prop. 3.1); of
    LayerNorm and GELU the identity rule (prop. 3.4).
    """
    model = copy.deepcopy(model).double()
    parts = vit_parts(model)
    x = parts.embeddings(pixels[None].double())[0].detach()
    steps, heads = [], parts.blocks[0].num_heads

    def down(r, z, weight, given):  # through a linear layer
        return given * ((r / z) @ weight)

    def norm(module, values):  # centring is linear; the deviation is a constant
        centred = values - values.mean(-1, keepdim=True)
        scale = (values.var(-1, keepdim=True, unbiased=False) + module.eps).rsqrt()
        return centred * scale * module.weight + module.bias, scale

    def norm_down(r, z, module, scale, values):
        message = r / z * module.weight * scale
        return values * (message - message.mean(-1, keepdim=True))

    def cut(values):
        return values.unflatten(-1, (heads, -1)).transpose(0, 1)

    for b in parts.blocks:
        n, scale = norm(b.layernorm_before, x)
        q, k, v = (cut(p(n)) for p in (b.q_proj, b.k_proj, b.v_proj))
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        a = scores.softmax(-1)
        mixed = a @ v
        flat = mixed.transpose(0, 1).flatten(1)
        after = b.o_proj(flat)
        y = x + after
        n2, scale2 = norm(b.layernorm_after, y)
        inner = b.fc1(n2)
        active = b.activation(inner)
        out = b.fc2(active)
        steps.append((b, x, n, scale, q, k, v, scores, a, mixed, flat, after, y, n2, scale2,
                      inner, active, out))  # fmt: skip
        x = y + out
    n, scale = norm(parts.layernorm, x)
    head = parts.heads[0]
    r = torch.zeros_like(n)
    r[0] = n[0] * head.weight[label]  # R of the logit is the logit
    r = norm_down(r, n, parts.layernorm, scale, x)
    for b, x, n, scale, q, k, v, scores, a, mixed, flat, after, y, n2, scale2, inner, active, out in (
        reversed(steps)
    ):  # fmt: skip
        total = y + out
        r_out, r_y = r * out / total, r * y / total
        r_inner = down(r_out, out, b.fc2.weight, active)  # identity through GELU
        r_n2 = down(r_inner, inner, b.fc1.weight, n2)
        r_y = r_y + norm_down(r_n2, n2, b.layernorm_after, scale2, y)
        r_after, r_x = r_y * after / y, r_y * x / y
        r_flat = down(r_after, after, b.o_proj.weight, flat)
        r_mixed = cut(r_flat)
        ratio = r_mixed / mixed
        r_a = a * (ratio @ v.transpose(1, 2)) / 2
        r_v = v * (a.transpose(1, 2) @ ratio) / 2
        r_s = scores * (r_a - a * r_a.sum(-1, keepdim=True))
        ratio = r_s / scores * q.shape[-1] ** -0.5
        r_q, r_k = q * (ratio @ k) / 2, k * (ratio.transpose(1, 2) @ q) / 2
        r_n = 0
        for projection, back, z in ((b.q_proj, r_q, q), (b.k_proj, r_k, k), (b.v_proj, r_v, v)):
            flat_r, flat_z = (t.transpose(0, 1).flatten(1) for t in (back, z))
            r_n = r_n + down(flat_r, flat_z, projection.weight, n)
        r = r_x + norm_down(r_n, n, b.layernorm_before, scale, x)
    return r.sum(-1)


def test_relevance_is_that_of_the_paper_handed_down_by_hand():
    model = network(ViTConfig(**SMALL))
    pixels = pictures(2)
    found, logits = relevance(vit_parts(model), pixels, torch.tensor([[3], [1]]), logit)
    for i, label in enumerate((3, 1)):
        expected = reference(model, pixels[i], label)
        assert torch.allclose(found[i, 0].double(), expected, rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(logits, model(pixel_values=pixels).logits, rtol=1e-5, atol=1e-5)


def test_the_map_of_the_odds_is_that_of_the_log_probability():
    model = network(ViTConfig(**SMALL))
    parts, pixels, labels = vit_parts(model), pictures(), torch.tensor([[2]] * 3)
    of_odds, logits = relevance(parts, pixels, labels)
    of_log_p, _ = relevance(parts, pixels, labels, lambda each, n: logit(each.log_softmax(1), n))
    rest = 1 - logits.softmax(1)[:, 2]
    torch.testing.assert_close(of_odds[:, 0] * rest[:, None], of_log_p[:, 0], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.classifier.bias[2] += 100  # as good as certain
    certain, logits = relevance(parts, pixels, labels)
    assert logits.softmax(1)[:, 2].eq(1).all() and log_odds(logits, labels[:, 0]).isfinite().all()
    torch.testing.assert_close(certain, of_odds, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "values", [{"problem_type": "multi_label_classification"}, {"num_labels": 1}]
)
def test_labels_that_do_not_exclude_each_other_are_explained_by_their_logits(values):
    model = network(ViTConfig(**{**SMALL, **values}))
    maps, _ = maps_of(model, pictures(), ((0,),))
    expected, _ = relevance(vit_parts(model), pictures(), torch.tensor([[0]] * 3), logit)
    expected = expected[..., 1:].clamp(min=0).view(3, 1, 4, 4)
    torch.testing.assert_close(maps, expected / expected.sum((2, 3), keepdim=True))


# ---- networks ------------------------------------------------------------------------------------


def deit():
    torch.manual_seed(0)
    return DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL)).eval()


CNNS = {
    "resnet": lambda: network(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    ),
    "convnext": lambda: network(
        ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=5)
    ),
}


@pytest.mark.parametrize("make", [lambda: network(ViTConfig(**SMALL)), deit], ids=["vit", "deit"])
def test_vits_are_explained_by_attnlrp(make):
    maps, method = maps_of(make(), pictures())
    assert method == LRP and maps.shape == (3, 2, 4, 4)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, 2))
    assert maps.min() == 0 and not torch.allclose(maps[:, 0], maps[:, 1], atol=1e-3)


@pytest.mark.parametrize("name", CNNS)
def test_networks_that_end_in_a_picture_are_explained_by_grad_cam(name):
    model = CNNS[name]()
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    pixels = pictures(2, 64)
    maps, method = maps_of(model, pixels, ((0, 3),))
    assert method == GRAD_CAM and maps.shape[:2] == (2, 2) and maps.shape[2] > 1
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    # By hand: the last stage's output, weighted by the mean of its gradient.
    seen = {}
    body = model.base_model.encoder
    handle = body.stages[-1].register_forward_hook(lambda m, i, o: seen.update(layer=o))
    logits = model(pixel_values=pixels).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), seen["layer"])
    by_hand = (gradient.mean((2, 3), keepdim=True) * seen["layer"]).sum(1).relu()
    by_hand = by_hand / by_hand.sum((1, 2), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(maps[:, 1], by_hand.detach())


@pytest.mark.parametrize(
    "config",
    [
        Dinov2Config(**{**SMALL, "mlp_ratio": 2}),
        SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=32, window_size=4),
    ],
    ids=["dinov2", "swin"],
)
def test_others_are_refused_in_one_line(config):
    with pytest.raises(ValueError, match="cannot be explained: a map is made of") as refused:
        maps_of(network(config), pictures())
    assert "\n" not in str(refused.value)


def test_a_network_without_a_head_is_refused():
    model = ViTForImageClassification(ViTConfig(**{**SMALL, "num_labels": 0})).eval()
    with pytest.raises(ValueError, match="has no trained head"):
        vit_parts(model)


def test_a_network_with_another_forward_pass_is_refused():
    model = network(ViTConfig(**SMALL))
    pixels = pictures()
    logits = 2 * model(pixel_values=pixels).logits.detach() + 3
    with pytest.raises(ValueError, match="not those of the forward pass"):
        explain(model, pixels, torch.tensor([[0]] * 3), logits)


class QuantisedLinear(torch.nn.Module):
    """As torch's: no `nn.Linear`, and its weights are asked for by calls."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def weight(self):
        return self.layer.weight

    def bias(self):
        return self.layer.bias

    def forward(self, values):
        return self.layer(values)


@pytest.mark.parametrize("part", ["body", "head"])
def test_quantised_layers_are_refused_with_the_cure(part):
    model = network(ViTConfig(**SMALL))
    where, name = {"body": (model.vit.layers[1].mlp, "fc2"), "head": (model, "classifier")}[part]
    setattr(where, name, QuantisedLinear(getattr(where, name)))
    with pytest.raises(ValueError, match="Linear cannot be explained: load the model in float32"):
        maps_of(model, pictures())


def test_what_changes_the_answers_is_named():
    model = network(ViTConfig(**SMALL, hidden_dropout_prob=0.3)).train()
    with pytest.raises(ValueError, match="in training mode, .*call model.eval"):
        maps_of(model, pictures())
    with torch.no_grad():
        model.eval().classifier.bias[0] = torch.nan
    with pytest.raises(ValueError, match="its scores are not finite numbers"):
        maps_of(model, pictures())


# ---- conditions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit():
    return network(ViTConfig(**SMALL))


def test_frozen_weights_and_inference_mode_give_the_same(vit):
    expected, _ = maps_of(vit, pictures())
    with torch.inference_mode():
        inside, _ = maps_of(vit, pictures())
        made_inside = copy.deepcopy(vit)
    again, _ = maps_of(made_inside, pictures())
    frozen = copy.deepcopy(vit).requires_grad_(False)
    for found in (inside, again, maps_of(frozen, pictures())[0]):
        assert torch.equal(found, expected)
    assert all(p.grad is None for p in vit.parameters())
    assert vit.config._attn_implementation == "sdpa"


def test_bfloat16_gives_nearly_the_same(vit):
    expected, _ = maps_of(vit, pictures())
    half = copy.deepcopy(vit).to(torch.bfloat16)
    found, _ = maps_of(half, pictures().bfloat16())
    assert found.dtype == torch.float32
    assert (found - expected).abs().sum((2, 3)).max() < 0.2
    with torch.autocast("cpu", torch.bfloat16):
        logits = vit(pixel_values=pictures()).logits
        inside, _ = explain(vit, pictures(), torch.tensor([[0, 1]] * 3), logits)
    assert (inside - expected).abs().max() < 1e-5


def test_a_batch_gives_what_each_image_gives(vit):
    together, _ = maps_of(vit, pictures())
    for i, image in enumerate(pictures()):
        alone, _ = maps_of(vit, image[None])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-6)


def test_threads_do_not_touch_each_other(vit):
    expected, _ = maps_of(vit, pictures())
    found, plain = [], []

    def work():
        for _ in range(5):
            found.append(maps_of(vit, pictures())[0])
            with torch.inference_mode():
                plain.append(vit(pixel_values=pictures()).logits)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and all(torch.equal(each, expected) for each in found)
    assert all(torch.equal(each, plain[0]) for each in plain)


def test_nothing_that_speaks_for_a_label_is_a_map_of_zeros(vit, monkeypatch):
    monkeypatch.setattr(
        food_explain,
        "relevance",
        lambda p, x, n, target: (-torch.ones(3, 2, 17), vit(x).logits.detach()),
    )
    maps, _ = maps_of(vit, pictures())
    assert maps.shape == (3, 2, 4, 4) and not maps.any()
    picture = overlay(torch.full((3, 32, 32), 200, dtype=torch.uint8), maps[0, 0].numpy())
    assert np.asarray(picture).max() == 60


# ---- pipeline ------------------------------------------------------------------------------------


def test_the_pipeline_adds_map_and_overlay(classify):
    plain = classify(photo(), top_k=2)
    answer = classify(photo(), top_k=2, explain=True)
    assert answer["labels"] == plain and answer["answered"] is None
    found = answer["explanation"]
    assert {key: found[key] for key in ("label", "name", "score")} == plain[0]
    assert found["map"].shape == (4, 4) and found["map"].sum() == pytest.approx(1)
    assert found["overlay"].size == (32, 32) and found["method"] == "AttnLRP"
    assert classify(photo(), top_k=2) == plain


def test_labels_that_are_asked_for_come_in_their_order(classify):
    asked = [LABELS[2], LABELS[0]]
    several = classify([photo(), photo(seed=5)], explain=asked, top_k=1, batch_size=2)
    assert [[each["label"] for each in one["explanation"]] for one in several] == [asked, asked]
    rows = {row["label"]: row for row in classify(photo(), top_k=len(LABELS))}
    one = classify(photo(), explain=LABELS[2], top_k=1)["explanation"]
    assert one["score"] == pytest.approx(rows[LABELS[2]]["score"])
    np.testing.assert_allclose(one["map"], several[0]["explanation"][0]["map"], atol=1e-6)


def test_explaining_goes_with_the_other_options(classify, model):
    merge_block(model.config, thresholds={"0.8": 0.1}, sets={"0.9": 0.1})
    try:
        both = classify(photo(), abstain=0.8, explain=True)
    finally:
        del model.config.food_classification
    assert both["answered"] is True and both["explanation"]["label"] == both["labels"][0]["label"]
    failed = classify(["no such file", photo()], explain=True, on_error="return")
    assert failed[0]["labels"] == [] and "no such file" in failed[0]["error"]
    assert failed[0]["explanation"] is None
    assert "explanation" in failed[1]
    with pytest.raises(ValueError, match="is not known to this model"):
        classify(photo(), explain="no_dish")


def test_what_was_asked_at_construction_is_taken_back_at_a_call(model, processor):
    from inference.food_classification import FoodClassificationPipeline

    explaining = FoodClassificationPipeline(model=model, image_processor=processor, explain=True)
    assert "explanation" in explaining(photo())
    for off in (False, None):
        plain = explaining(photo(), explain=off)
        assert isinstance(plain, list) and explaining([photo()], explain=off) == [plain]
    assert "explanation" in explaining(photo())  # it was of the call
