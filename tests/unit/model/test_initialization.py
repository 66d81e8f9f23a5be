# SPDX-License-Identifier: Apache-2.0
"""A ViT's first weights: mimetic attention against its definition, and where it is refused."""

import math

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.initialization import factors, initialize_mimetic, sine_positions

SIZE, HEADS = 96, 4
VALUES = {
    "hidden_size": SIZE, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "intermediate_size": 64, "image_size": 32, "patch_size": 8,
}  # fmt: skip


def build(seed: int = 0, **values: object) -> ViTForImageClassification:
    args = ModelArguments(model_config=VALUES, **values)
    return build_network(args, ["a", "b"], seed).model


def test_the_products_are_noise_around_an_identity():
    for layer in build(weight_init="mimetic").vit.layers:
        attention = layer.attention
        output = (attention.o_proj.weight @ attention.v_proj.weight).T
        # 0.4 Z - 0.4 I: the mean of 96 entries of sd 0.4 / sqrt(96) is known to 0.004.
        assert output.diagonal().mean().item() == pytest.approx(-0.4, abs=0.02)
        rest = output + 0.4 * torch.eye(SIZE)
        assert rest.std().item() == pytest.approx(0.4 / math.sqrt(SIZE), rel=0.05)
        assert abs(rest.mean().item()) < 0.003
        queries, keys = (p.weight.chunk(HEADS) for p in (attention.q_proj, attention.k_proj))
        for query, key in zip(queries, keys, strict=True):
            product = query.T @ key
            assert torch.linalg.matrix_rank(product) == SIZE // HEADS
            assert product.diagonal().mean() > 5 * product.mean().abs()
            assert product.diagonal().mean() > 0.2  # what the first 24 of 96 singular values keep


def test_a_head_is_the_best_of_its_rank():
    """Eckart and Young: what is left over are the smaller singular values of the product."""
    torch.manual_seed(1)
    left, right = factors(32, 0.7, 0.7, rank=8)
    torch.manual_seed(1)
    product = 0.7 * torch.randn(32, 32) / math.sqrt(32) + 0.7 * torch.eye(32)
    left_over = torch.linalg.svdvals(product)[8:].square().sum().sqrt()
    assert torch.dist(left @ right.T, product).item() == pytest.approx(left_over.item(), rel=1e-4)
    left, right = factors(32, 0.4, -0.4, rank=32)
    assert torch.linalg.matrix_rank(left @ right.T) == 32


def test_positions_tell_rows_and_columns_apart():
    grid = sine_positions(4, 16)
    assert grid.shape == (16, 16) and len(torch.unique(grid, dim=0)) == 16
    rows, columns = grid.view(4, 4, 2, 8).unbind(2)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert torch.equal(columns, columns[:1].expand_as(columns))
    assert torch.equal(rows[:, 0], columns[0])
    near, far = (grid[0] @ grid[i] for i in (1, 15))
    assert near > far


def test_what_is_not_attention_stays_as_transformers_draws_it():
    plain, mimetic = (build(weight_init=name).state_dict() for name in ("normal", "mimetic"))
    changed = {name for name in plain if not torch.equal(plain[name], mimetic[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed if "layers" in name} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip
    assert {name for name in changed if "layers" not in name} == {
        "vit.embeddings.position_embeddings"
    }
    assert all(name.endswith(("weight", "position_embeddings")) for name in changed)


def test_the_seed_draws_it():
    one, again, other = (build(seed, weight_init="mimetic").state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    name = "vit.layers.0.attention.q_proj.weight"
    assert not torch.equal(one[name], other[name])


def test_a_size_that_is_no_multiple_of_four_is_refused():
    values = VALUES | {"hidden_size": 18, "num_attention_heads": 3}
    with pytest.raises(UserError, match="hidden_size is not a multiple of 4"):
        build_network(ModelArguments(model_config=values, weight_init="mimetic"), ["a", "b"], 0)
    model = ViTForImageClassification(ViTConfig(**values))
    with pytest.raises(ValueError, match="multiple of 4"):
        initialize_mimetic(model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weight_init", "xavier"], "^weight_init is 'xavier': give normal or mimetic"),
        (
            ["--model", "user/vit", "--model_config", "null", "--weight_init", "mimetic"],
            "^weight_init mimetic and model user/vit",
        ),
    ],
)
def test_where_it_is_refused(words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        parse_recipe(["from_scratch", "--output_dir", str(tmp_path / "run"), *words])
