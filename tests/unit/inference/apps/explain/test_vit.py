# SPDX-License-Identifier: Apache-2.0
"""The numbers of the page against what the network itself computes, and against sums done by hand."""

import base64
import copy
import math

import numpy as np
import pytest
import torch

from inference.apps.explain import vit as explain_vit
from inference.apps.explain.vit import anatomy, lattice, parameters, walk
from inference.food_explain import vit_parts
from tests.unit.explained import pixels, step_of, unpacked, vit

KINDS = ("ViT", "DeiT", "ViTMSN")
BLOCK = 1  # shown from inside


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return vit(kind=request.param)


@pytest.fixture(scope="module")
def found(model):
    return anatomy(model, vit_parts(model), pixels(), BLOCK)


@pytest.fixture(scope="module")
def own(model):
    """What transformers says of itself, and what its modules of the block gave."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    block, seen = vit_parts(model).blocks[BLOCK], {}
    for key in ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"):
        getattr(block, key).register_forward_hook(
            lambda _module, _inputs, output, key=key: seen.update({key: output[0]})
        )
    with torch.no_grad():
        output = model(pixel_values=pixels(), output_attentions=True, output_hidden_states=True)
    return output, seen


def first(model) -> int:
    return 2 if model.config.model_type == "deit" else 1


# ---- walk ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_walk_is_the_networks_own_forward_pass(model, own):
    parts = vit_parts(model)
    steps = list(walk(parts, parts.embeddings(pixels())[0]))
    torch.testing.assert_close(
        parts.logits(steps[-1].after[None]), own[0].logits, rtol=1e-4, atol=1e-5
    )
    assert len(steps) == model.config.num_hidden_layers == len(own[0].attentions)
    for number, step in enumerate(steps):
        torch.testing.assert_close(step.attention[None], own[0].attentions[number])
        torch.testing.assert_close(
            step.before[None], own[0].hidden_states[number], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(step.attention.sum(-1), torch.ones_like(step.attention[..., 0]))
    seen = own[1]
    for ours, theirs in (("attended", "o_proj"), ("inner", "fc1"), ("added", "fc2")):
        torch.testing.assert_close(getattr(steps[BLOCK], ours), seen[theirs], rtol=1e-4, atol=1e-4)


# ---- what enters ---------------------------------------------------------------------------------


def test_patches_and_tokens_are_counted(model, found):
    assert found["patches"] == {
        "rows": 4, "columns": 4, "count": 16, "size": [8, 8], "numbers": 8 * 8 * 3,
        "tokens": 16 + first(model), "first": first(model),
    }  # fmt: skip


def test_the_main_directions_are_those_of_the_filters(model, found):
    projection = model.get_submodule(found["embedding"]["module"])
    weight = projection.weight.detach().flatten(1).double().numpy()
    values = np.linalg.svd(weight - weight.mean(0), compute_uv=False) ** 2
    assert found["embedding"]["shown"] == 28
    assert found["embedding"]["share"] == pytest.approx(values[:28].sum() / values.sum(), rel=1e-4)
    assert found["embedding"]["shape"] == [32, 3, 8, 8]
    assert found["embedding"]["params"] == 32 * 3 * 8 * 8 + 32


def test_the_class_token_is_the_networks_own(model, found):
    token = model.get_parameter(found["class_token"]["parameter"])
    assert found["class_token"]["length"] == pytest.approx(token.norm().item())
    projection = model.get_submodule(found["embedding"]["module"])
    lengths = projection(pixels()).detach().flatten(2)[0].norm(dim=0)
    assert found["class_token"]["patch_length"] == pytest.approx(float(lengths.mean()), rel=1e-4)


def test_positions_are_compared_two_by_two(model, found):
    positions = found["positions"]
    table = model.get_parameter(positions["parameter"]).detach()[0, -16:].double().numpy()
    assert positions["shape"] == [1, 16 + first(model), 32]
    alike = np.empty((16, 16))
    adjacent = 0
    for a in range(16):
        for b in range(16):
            lengths = math.sqrt((table[a] ** 2).sum() * (table[b] ** 2).sum())
            alike[a, b] = (table[a] * table[b]).sum() / lengths
        nearest = max((b for b in range(16) if b != a), key=lambda b, a=a: alike[a, b])
        adjacent += max(abs(a // 4 - nearest // 4), abs(a % 4 - nearest % 4)) == 1
    assert positions["kept"] == list(range(16))
    assert np.abs(unpacked(positions["alike"]) - alike).max() <= step_of(positions["alike"])
    assert positions["adjacent"] == pytest.approx(adjacent / 16)


# ---- attention and stream ------------------------------------------------------------------------


def test_the_class_tokens_attention_is_the_networks_own(model, found, own):
    attention, n = found["attention"], first(model)
    theirs = torch.stack(own[0].attentions)[:, 0, :, 0].numpy()  # (layers, heads, tokens)
    assert (attention["layers"], attention["heads"]) == theirs.shape[:2]
    patches = theirs[..., n:]
    ours = unpacked(attention["rows"]) * np.array(attention["largest"])[..., None]
    assert np.abs(ours - patches).max() <= 0.5 / 255 + 1e-5
    np.testing.assert_allclose(attention["own"], theirs[..., 0], rtol=1e-4)
    np.testing.assert_allclose(attention["own_mean"], theirs[..., 0].mean(1), rtol=1e-4)
    # All that the class token gives is 1: to itself, to the patches, and DeiT's to its other token.
    others = theirs[..., 1:n].sum(-1)
    np.testing.assert_allclose(patches.sum(-1) + attention["own"] + others, 1, rtol=1e-4)
    for layer, spread in enumerate(attention["spread"]):
        chances = patches[layer].astype(float) / patches[layer].sum(-1, keepdims=True)
        by_head = [math.exp(-sum(p * math.log(p) for p in row if p > 0)) for row in chances]
        assert spread == pytest.approx(sum(by_head) / len(by_head), rel=1e-3)
        assert 1 <= spread <= 16


def test_the_lengths_are_those_of_the_hidden_states(model, found, own):
    steps, n = found["stream"]["steps"], first(model)
    hidden = own[0].hidden_states[:-1]  # the last has gone through the LayerNorm where there is one
    assert len(steps) == len(hidden) + 1
    for step, states in zip(steps, hidden, strict=False):
        lengths = states[0].norm(dim=-1)
        assert step["class_token"] == pytest.approx(float(lengths[0]), rel=1e-4)
        middle = float(lengths[n:].median())
        assert step["patch"] == pytest.approx(middle, rel=1e-4)
        assert step["longest"] == pytest.approx(float(lengths[n:].max()) / middle, rel=1e-4)
    assert found["stream"]["long"] == max(step["longest"] for step in steps[1:])


def test_a_patch_that_is_far_longer_than_the_others_is_told():
    model = vit()
    with torch.no_grad():
        model.vit.embeddings.position_embeddings[0, 6] *= 200
    stream = anatomy(model, vit_parts(model), pixels(), 0)["stream"]
    assert stream["long"] > stream["limit"]


# ---- one block -----------------------------------------------------------------------------------


def test_q_k_v_and_the_softmax_rows_are_the_networks_own(model, found, own):
    block, (output, seen) = found["block"], own
    heads, width = block["heads"], block["head_width"]
    assert (block["number"], heads, width, block["scale"]) == (BLOCK, 4, 8, 8**0.5)
    for key in ("q", "k", "v"):
        theirs = seen[f"{key}_proj"].unflatten(-1, (heads, width)).transpose(0, 1)
        packed = block["qkv"][key]
        assert np.abs(unpacked(packed) - theirs.numpy()).max() <= step_of(packed)
    attention = output.attentions[BLOCK][0].numpy()
    assert block["kept"] == list(range(attention.shape[-1]))
    ours = unpacked(block["rows"]) * np.array(block["largest"])[..., None]
    assert np.abs(ours - attention).max() <= 0.5 / 255 + 1e-5


def test_the_modules_of_the_block_are_named_and_counted(model, found):
    block = found["block"]
    for each in block["modules"]:
        module = model.get_submodule(each["name"])
        assert list(module.weight.shape) == each["shape"]
        assert sum(p.numel() for p in module.parameters()) == each["params"]
    start = block["modules"][0]["name"].rsplit(".", 1)[0] + "."
    own = sum(p.numel() for name, p in model.named_parameters() if name.startswith(start))
    assert block["params"] == own == sum(each["params"] for each in block["modules"])


def test_the_values_before_gelu_are_counted(found, own):
    activation, inner = found["block"]["activation"], own[1]["fc1"].double().numpy()
    assert activation["name"] == "GELU" and activation["num_values"] == inner.size
    edges = np.linspace(activation["low"], activation["high"], len(activation["counts"]) + 1)
    inside = inner.clip(activation["low"], activation["high"])
    assert sum(activation["counts"]) == inner.size
    # A value on an edge may fall on either side of it.
    assert np.abs(np.array(activation["counts"]) - np.histogram(inside, edges)[0]).sum() <= 4
    assert activation["negative"] == pytest.approx((inner < 0).mean(), abs=2 / inner.size)
    bent = ((inner < 0) & (inner > -3)).mean()
    assert activation["bent"] == pytest.approx(bent, abs=2 / inner.size)
    gelu = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in inner.flat])
    relu = inner.clip(0).ravel()
    expected = np.linalg.norm(gelu - relu) / np.linalg.norm(gelu)
    assert activation["difference"] == pytest.approx(expected, rel=1e-4)
    for x, y in activation["curve"]:
        assert y == pytest.approx(x * (1 + math.erf(x / math.sqrt(2))) / 2, abs=1e-5)


def test_the_block_adds_what_its_parts_add(found, own):
    block, seen = found["block"], own[1]
    for key, module in (("attended", "o_proj"), ("added", "fc2")):
        length = float(seen[module].norm(dim=-1).mean())
        assert block[key] == pytest.approx(length, rel=1e-4)
        assert found["stream"]["steps"][BLOCK + 1][key] == block[key]
    before = float(own[0].hidden_states[BLOCK][0].norm(dim=-1).mean())
    assert block["before"] == pytest.approx(before, rel=1e-4)


# ---- head, table ---------------------------------------------------------------------------------


def test_the_head_is_named(model, found):
    head = found["head"]
    assert len(head["modules"]) == first(model)
    modules = [model.get_submodule(name) for name in head["modules"]]
    assert head["params"] == sum(p.numel() for m in modules for p in m.parameters())
    assert (head["width"], head["labels"]) == (32, model.config.num_labels)
    model.get_submodule(head["layernorm"])


def test_the_table_of_parameters_adds_up(model):
    rows = parameters(model)
    assert sum(row["params"] for row in rows) == sum(p.numel() for p in model.parameters())
    assert len({row["name"] for row in rows}) == len(rows)
    repeated = [row for row in rows if "*" in row["name"]]
    assert repeated and all(row["times"] == 3 for row in repeated)
    assert all(row["times"] == 1 for row in rows if "*" not in row["name"])


def test_two_networks_have_other_numbers():
    one, two = (anatomy(m, vit_parts(m), pixels(), 1) for m in (vit(seed=0), vit(seed=1)))
    for key in ("embedding", "class_token", "positions", "attention", "stream", "block"):
        assert one[key] != two[key], key


# ---- many patches --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, columns, first_patch, heads",
    [
        (4, 4, 1, 2),
        (14, 14, 1, 12),
        (24, 24, 2, 16),
        (37, 37, 1, 16),
        (60, 20, 1, 24),
        (1, 1, 1, 1),
    ],
)
def test_what_can_be_asked_for_keeps_within_its_bytes(rows, columns, first_patch, heads):
    kept = lattice(rows, columns, first_patch, heads)
    tokens = first_patch + rows * columns
    assert len(kept) * tokens * heads <= explain_vit.VIEW_BYTES
    assert kept == sorted(set(kept)) and kept[: first_patch + 1] == list(range(first_patch + 1))
    assert kept[-1] < tokens
    if tokens * tokens * heads <= explain_vit.VIEW_BYTES:
        assert kept == list(range(tokens))


def test_a_page_of_many_patches_keeps_within_its_bytes(monkeypatch):
    monkeypatch.setattr(explain_vit, "VIEW_BYTES", 350)
    model = vit()
    found = anatomy(model, vit_parts(model), pixels(), 0)
    assert found["block"]["kept"] == [0, 1, 3, 9, 11]  # every second row and column of 4
    assert found["positions"]["kept"] == list(range(16))  # 16 * 16 fit
    for packed in (found["block"]["rows"], found["positions"]["alike"]):
        assert len(base64.b64decode(packed["data"])) <= 5 * 17 * 4
