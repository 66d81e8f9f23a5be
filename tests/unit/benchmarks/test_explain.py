# SPDX-License-Identifier: Apache-2.0
"""The measurement of maps: its methods and measures on a network whose answer lies in one patch."""

import copy
import hashlib
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from inference.food_explain import explain, relevance

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "explain.md"
RESULTS = BENCHMARKS / "results" / "explain.json"
SIDE, PATCH, DISHES = 32, 8, 4


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def scene(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with one pattern in it: pictures, which of `DISHES` patterns, and its patch (row, column).

    It lies in the middle columns, which are what is left of a picture beside another.
    """
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randn(DISHES, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(9)) * 2
    pixels = torch.randn(count, 3, SIDE, SIDE, generator=draw) * 0.3
    labels = torch.randint(DISHES, (count,), generator=draw)
    places = torch.stack(
        [torch.randint(4, (count,), generator=draw), torch.randint(1, 3, (count,), generator=draw)],
        1,
    )
    for each, label, (row, column) in zip(pixels, labels, places.tolist(), strict=True):
        each[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += patterns[
            label
        ]
    return pixels, labels, places


@pytest.fixture(scope="module")
def trained() -> ViTForImageClassification:
    """A small ViT that has learnt to name the pattern."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
        image_size=SIDE, patch_size=PATCH, num_labels=DISHES, initializer_range=0.05,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(90):
        pixels, labels, _ = scene(48, step)
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def asked(module, trained):
    """The network, pictures that it answers rightly, their labels and where the pattern lies."""
    subject = module("explain_methods").Subject.of(trained)
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


def test_relevance_of_a_log_probability_is_that_of_the_logits_together(module, asked):
    subject, pixels, labels, _ = asked
    every = torch.arange(DISHES).expand(len(pixels), -1)
    found, logits = relevance(subject.parts, pixels, every)
    mean = (logits.softmax(-1)[..., None] * found).sum(1)
    due = (found[torch.arange(len(labels)), labels] - mean)[:, 1:].unflatten(1, (4, 4))
    ours = module("explain_methods").attn_lrp_log(subject, pixels, labels)
    assert torch.allclose(ours, due, atol=1e-4)


def test_relevance_finds_the_patch_that_decides(module, asked):
    subject, pixels, labels, places = asked
    for method in (module("explain_methods").attn_lrp, module("explain_methods").attn_lrp_log):
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


# ---- photographs, record and page ----------------------------------------------------------------


def test_photographs_that_the_run_has_used_are_left_out_and_counted(module, tmp_path):
    paths = []
    for name in ("same", "resized", "new"):
        path = tmp_path / "pie" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        paths.append((path, "pie"))
    used = tmp_path / "images.csv"
    digest = hashlib.sha256(b"same").hexdigest()
    rows = [f"train,pie,{digest},train/pie/1.jpg", "test,pie,00,test/pie/resized.png"]
    used.write_text("split,label,sha256,path\n" + "\n".join([*rows, "train,tart,01,a/new.jpg"]))
    left, causes = module("explain").unseen(paths, used)
    assert left == [paths[2]] and causes == {"content": 1, "name": 1}


def test_a_record_is_of_one_network_and_one_protocol(module):
    benchmark, pages = module("explain"), module("pages")
    facts = {"network": {"sha256": "1"}, "protocol": {"kept": [0.1]}}
    content = benchmark.add({}, facts, "one", {"a": 1})
    content = benchmark.add(content, facts, "two", {"a": 2})
    assert content == {**facts, "methods": {"one": {"a": 1}, "two": {"a": 2}}}
    with pytest.raises(pages.UsageError, match="another network"):
        benchmark.add(content, {**facts, "network": {"sha256": "2"}}, "three", {})


def test_a_model_without_its_run_is_refused(module, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert module("explain").main([str(tmp_path / "model"), "--dataset", str(tmp_path)]) == 2
    assert "nothing says what it was trained on" in capsys.readouterr().out


def test_something_to_measure_is_asked_for(module, capsys):
    with pytest.raises(SystemExit):
        module("explain").parse([])
    assert "--dataset; or --table" in capsys.readouterr().err


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A finished run of the small ViT, and beside it `dishes`, of which it has used two photographs."""
    folder, names = tmp_path / "run", [f"dish_{i}" for i in range(DISHES)]
    model = copy.deepcopy(trained)
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {}
    model.save_pretrained(folder / "model")
    half = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=half, image_std=half).save_pretrained(folder / "model")
    pixels, labels, _ = scene(82, 2000)
    pixels = ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    for number, (each, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        path = tmp_path / "dishes" / "validation" / names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(path)
    first, second = sorted((tmp_path / "dishes").glob("*/*/*"))[:2]
    used = [
        f"train,other,{hashlib.sha256(first.read_bytes()).hexdigest()},train/other/x.png",
        f"train,{second.parent.name},00,train/{second.parent.name}/{second.stem}.jpg",
    ]
    (folder / "images.csv").write_text("\n".join(["split,label,sha256,path", *used]))
    record = {
        "model": {"architecture": "ViTForImageClassification", "num_parameters": 1, "id": "toy",
                  "image_size": SIDE},
        "training": {"tune": "full"},
        "data": {"num_train": 1, "num_selection": 0, "label_names": names},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_measured_and_an_interrupted_command_goes_on(
    module, run, tmp_path, monkeypatch, capsys
):
    benchmark, methods = module("explain"), module("explain_methods").METHODS
    dishes, record = tmp_path / "dishes", tmp_path / "explain.json"
    words = [str(run / "model"), "--dataset", str(dishes), "--json", str(record)]
    first = {name: methods[name] for name in ("random", benchmark.OURS)}
    monkeypatch.setattr(benchmark, "FEWEST", 8)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "METHODS", {**first, "never": (stop, True)})
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(words)
    found = benchmark.recorded(record)
    assert list(found["methods"]) == ["random", benchmark.OURS]
    assert found["photographs"]["left_out"] == {"content": 1, "name": 1}
    assert 40 < found["photographs"]["right"] <= 80
    monkeypatch.setattr(
        benchmark, "METHODS", {**first, "input x gradient": methods["input x gradient"]}
    )
    capsys.readouterr()
    assert benchmark.main(words) == 0
    assert capsys.readouterr().out.startswith("input x gradient: recorded\nNetwork `run`")
    again = benchmark.recorded(record)
    assert all(again["methods"][name] == found["methods"][name] for name in first)
    monkeypatch.setattr(
        benchmark, "METHODS", {**first, "centre": methods["Gaussian in the middle"]}
    )
    monkeypatch.setattr(benchmark, "SPREAD", 1)
    assert benchmark.main(words) == 2 and "another protocol" in capsys.readouterr().out


def test_too_few_photographs_and_unknown_dishes_are_refused(module, run, tmp_path, capsys):
    words = [str(run), "--dataset", str(tmp_path / "dishes"), "--json", str(tmp_path / "x.json")]
    benchmark = module("explain")
    folder = tmp_path / "dishes" / "validation"
    for path in list(folder.glob("*/*"))[10:]:
        path.unlink()
    assert benchmark.main(words) == 2 and "give more photographs" in capsys.readouterr().out
    (folder / "soup").mkdir()
    (folder / "soup" / "1.png").write_bytes(b"")
    assert benchmark.main(words) == 2 and "does not know soup" in capsys.readouterr().out


def test_the_page_is_the_record_and_names_no_machine(module):
    benchmark, text = module("explain"), RESULTS.read_text(encoding="utf-8")
    content = json.loads(text)
    assert benchmark.MARKS.get(PAGE.read_text(encoding="utf-8")) == benchmark.page_part(content), (
        "run `python benchmarks/explain.py --table --write docs/explain.md` and read the prose again"
    )
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert set(content["methods"]) == set(module("explain_methods").METHODS)
