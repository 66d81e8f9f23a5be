# SPDX-License-Identifier: Apache-2.0
"""The measurement of maps: its methods and measures on a network whose answer lies in one patch."""

import copy
import importlib
import re
from pathlib import Path

import pytest
import torch

from inference.food_explain import explain
from tests.unit.benchmarks.one_patch import DISHES, PATCH, SIDE, scene, trained

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def asked(module):
    """The network, pictures that it answers rightly, their labels and where the pattern lies."""
    subject = module("explain_methods").Subject.of(trained())
    pixels, labels, places = scene(80, 1000)
    right = subject.logits(pixels).argmax(1) == labels
    assert right.float().mean() > 0.9
    return subject, pixels[right], labels[right], places[right]


def oracle(places):
    """A method that knows where the patterns lie."""

    def method(subject, pixel_values, labels):
        found = torch.zeros(len(pixel_values), SIDE // PATCH, SIDE // PATCH)
        found[torch.arange(len(found)), places[:, 0], places[:, 1]] = 1
        return found

    return method


# ---- methods -------------------------------------------------------------------------------------


def test_its_forward_pass_is_the_networks_own(module, asked):
    subject, pixels, *_ = asked
    seen = module("explain_methods").trace(subject.parts, pixels)
    assert torch.allclose(seen.logits, subject.logits(pixels), atol=1e-5)
    assert len(seen.attentions) == 4
    assert torch.allclose(seen.attentions[0].sum(-1), torch.ones(()), atol=1e-5)


def test_ours_is_what_the_pipeline_draws(module, asked):
    subject, pixels, labels, _ = asked
    scores = module("explain_methods").attn_lrp(subject, pixels, labels)
    maps, _ = explain(subject.model, pixels, labels[:, None], subject.logits(pixels))
    assert torch.allclose(module("explain_measures").shown(scores), maps[:, 0], atol=1e-6)


def test_relevance_finds_the_patch_that_decides(module, asked):
    subject, pixels, labels, places = asked
    for method in (module("explain_methods").attn_lrp, module("explain_methods").attn_lrp_logit):
        hit = (
            method(subject, pixels, labels).flatten(1).argmax(1) == places[:, 0] * 4 + places[:, 1]
        )
        assert hit.float().mean() > 0.8  # 1 of 16 by chance


def test_gradients_are_those_of_transformers(module, asked):
    """Grad-CAM, Chefer's, input x gradient, and the head on patches by the network's own modules."""
    methods, (subject, pixels, labels, _) = module("explain_methods"), asked
    model = copy.deepcopy(subject.model)
    model.set_attn_implementation("eager")
    kept = {}
    body = model.base_model
    layers = body.layers if hasattr(body, "layers") else body.encoder.layer
    for name, layer in (("entered", layers[0]), ("normed", layers[-1].layernorm_before)):
        hook = layer.register_forward_pre_hook if name == "entered" else layer.register_forward_hook
        hook(lambda *seen, name=name: kept.update({name: seen[-1]}))
    out = model(pixel_values=pixels, output_attentions=True, output_hidden_states=True)
    entered, normed = kept["entered"][0], kept["normed"]
    inputs = (entered, normed, *out.attentions)
    of_entered, of_normed, *of_attentions = torch.autograd.grad(
        out.logits[torch.arange(len(labels)), labels].sum(), inputs
    )

    def same(method, due):
        return torch.allclose(method(subject, pixels, labels).flatten(1), due[:, 1:], atol=1e-4)

    assert same(methods.input_x_gradient, (entered * of_entered).sum(-1))
    assert same(methods.grad_cam, (normed * of_normed).clamp(min=0).sum(-1))
    assert same(methods.hires_cam, (normed * of_normed).sum(-1))
    found = torch.eye(17)
    for attention, gradient in zip(out.attentions, of_attentions, strict=True):
        found = found + (attention * gradient).clamp(min=0).mean(1) @ found
    assert same(methods.chefer, found[:, 0])
    logits = model.classifier(body.layernorm(out.hidden_states[-1]))
    assert same(methods.head_on_patches, logits.softmax(-1)[torch.arange(len(labels)), :, labels])


def test_gradient_rollout_keeps_the_largest_tenth(module, asked):
    methods, (subject, pixels, labels, _) = module("explain_methods"), asked
    seen = methods.trace(subject.parts, pixels[:1])
    gradients = torch.autograd.grad(seen.logits[0, labels[0]], seen.attentions)
    found = torch.eye(17)
    for attention, gradient in zip(seen.attentions, gradients, strict=True):
        weights = (attention * gradient)[0].mean(0).clamp(min=0).detach()
        largest = weights.flatten().topk(29).indices  # 289 entries, 260 of them left out
        matrix = torch.zeros(289).index_put((largest,), weights.flatten()[largest]).view(17, 17)
        matrix = matrix + torch.eye(17)
        found = matrix / matrix.sum(1, keepdim=True) @ found
    scores = methods.gradient_rollout(subject, pixels[:1], labels[:1])
    assert torch.allclose(scores.flatten(), found[0, 1:], atol=1e-6)


def test_every_method_gives_a_score_for_each_patch_by_the_label_or_not(module, asked):
    subject, pixels, labels, _ = asked
    methods = module("explain_methods").METHODS
    assert len(methods) >= 8
    for name, (method, by_label) in methods.items():
        first, again = (method(subject, pixels, each) for each in (labels, labels))
        other = method(subject, pixels, (labels + 1) % DISHES)
        assert first.shape == (len(pixels), 4, 4) and first.isfinite().all(), name
        assert not first.requires_grad and torch.equal(first, again), name
        assert torch.equal(first, other) != by_label, name


def test_attention_of_one_block_and_of_all_of_them(module, asked):
    methods, (subject, pixels, labels, _) = module("explain_methods"), asked
    attentions = [a.mean(1)[:1] for a in methods.trace(subject.parts, pixels).attentions]
    last = methods.last_attention(subject, pixels, labels)[0]
    assert torch.allclose(last.flatten(), attentions[-1][0, 0, 1:], atol=1e-6)
    found = torch.eye(17)
    for each in attentions:
        found = (each[0] + torch.eye(17)) / 2 @ found
    rolled = methods.rollout(subject, pixels, labels)[0]
    assert torch.allclose(rolled.flatten(), found[0, 1:], atol=1e-5)


def test_other_networks_are_refused(module):
    from transformers import ResNetConfig, ResNetForImageClassification

    model = ResNetForImageClassification(ResNetConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4))
    with pytest.raises(ValueError, match="no ViT"):
        module("explain_methods").Subject.of(model)


# ---- measures ------------------------------------------------------------------------------------


def test_whoever_knows_the_patch_wins_and_its_opposite_loses(module, asked):
    measures, (subject, pixels, labels, places) = module("explain_measures"), asked
    best = oracle(places)(subject, pixels, labels)
    drawn = module("explain_methods").random(subject, pixels, labels)
    found = {
        name: measures.insertion_deletion(scores, subject, pixels, labels)
        for name, scores in (("best", best), ("random", drawn), ("worst", -best))
    }
    # At random half of the patches name the pattern more often than two of them.
    best, drawn, worst = (found[name]["difference"] for name in ("best", "random", "worst"))
    assert best > 0.5 > 0 > drawn > worst
    low, high = found["best"]["interval"]
    assert low < best < high and len(found["best"]["each"]) == len(pixels)


def test_with_all_patches_the_probability_is_the_networks(module, asked):
    measures, (subject, pixels, labels, _) = module("explain_measures"), asked
    every = torch.arange(16).expand(len(pixels), -1)
    found = measures.probability_with(subject, pixels, labels, every.flip(1))
    own = subject.logits(pixels).softmax(-1).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(found, own, atol=1e-5)


def test_pictures_of_two_dishes(module, asked):
    measures, (subject, pixels, labels, _) = module("explain_measures"), asked
    pairs = measures.two_dishes(subject, pixels, labels)
    assert 0 < len(pairs.labels) <= pairs.tried and (pairs.labels[:, 0] != pairs.labels[:, 1]).all()
    joined = measures.beside(subject, pixels[:1], pixels[1:2])
    assert torch.equal(joined[..., :16], pixels[:1, ..., 8:24])
    assert torch.equal(joined[..., 16:], pixels[1:2, ..., 8:24])
    best = subject.logits(pairs.pixel_values).topk(2).indices
    assert all(set(a) == set(b) for a, b in zip(best.tolist(), pairs.labels.tolist(), strict=True))


def test_asking_for_a_half(module, asked):
    measures, methods = module("explain_measures"), module("explain_methods")
    subject, pixels, labels, _ = asked
    pairs = measures.two_dishes(subject, pixels, labels)
    by_picture = dict(
        zip((each.numpy().tobytes() for each in pairs.pixel_values), pairs.labels, strict=True)
    )

    def knowing(subject, pixel_values, labels):
        found = torch.zeros(len(labels), 4, 4)
        for each, picture, label in zip(found, pixel_values, labels, strict=True):
            start = 0 if by_picture[picture.numpy().tobytes()][0] == label else 2
            each[:, start : start + 2] = 1
        return found

    assert measures.pointing(knowing, subject, pairs) == {
        "side": 1, "side_error": 0, "shift": 1, "shift_error": 0, "empty": 0,
    }  # fmt: skip
    wrong = measures.pointing(lambda *each: 1 - knowing(*each), subject, pairs)
    assert (wrong["side"], wrong["shift"]) == (0, -1)
    for control in (methods.random, methods.centre, methods.rollout):
        found = measures.pointing(control, subject, pairs)
        assert (found["shift"], found["side"]) == (0, 0.5)
    nothing = measures.pointing(lambda *each: -knowing(*each), subject, pairs)
    assert nothing["empty"] == 2 * len(pairs.labels) and nothing["side"] == 0.5
    assert measures.pointing(methods.attn_lrp, subject, pairs)["shift"] > 0.2


def test_random_weights_change_what_depends_on_them_and_nothing_else(module, asked):
    measures, methods = module("explain_measures"), module("explain_methods")
    subject, pixels, labels, _ = asked
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    few = pixels[:8], labels[:8]
    for control in (methods.random, methods.centre):
        found = measures.randomisation(control, subject, *few)
        assert found == {"head": pytest.approx(1), "blocks": pytest.approx(1)}
    assert measures.randomisation(methods.rollout, subject, *few)["head"] == pytest.approx(1)
    found = measures.randomisation(methods.attn_lrp, subject, *few)
    assert max(found.values()) < 0.7
    assert all(
        torch.equal(before[name], value) for name, value in subject.model.state_dict().items()
    )
    twin = measures.randomised(subject, 3, 0)
    kept = {name for name in before if "embeddings" in name or re.search(r"layers?\.0\.", name)}
    assert kept and all(torch.equal(before[n], twin.model.state_dict()[n]) for n in kept)
    drawn = [name for name in before if name.endswith("weight") and "norm" not in name]
    drawn = [name for name in drawn if "classifier" in name or re.search(r"layers?\.[123]\.", name)]
    assert len(drawn) == 1 + 3 * 6
    assert not any(torch.equal(before[n], twin.model.state_dict()[n]) for n in drawn)


def test_rank_correlation(module):
    spearman = module("explain_measures").spearman
    rising = torch.arange(16.0).view(4, 4)
    assert spearman(rising, rising**3) == pytest.approx(1)
    assert spearman(rising, -rising) == pytest.approx(-1)
    assert spearman(rising, torch.ones(4, 4)) == 0


def test_what_takes_longer_costs_more(module, asked):
    measures, methods = module("explain_measures"), module("explain_methods")
    subject, pixels, labels, _ = asked
    found = measures.cost(methods.attn_lrp, subject, pixels, labels)
    assert found["smallest"] <= found["ratio"] <= found["largest"] and found["ratio"] > 1
    assert measures.cost(methods.centre, subject, pixels, labels)["ratio"] < found["ratio"]
