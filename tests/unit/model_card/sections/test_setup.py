# SPDX-License-Identifier: Apache-2.0
"""The tables of the set-up: training and data as they really were."""

import pytest

from model_card.facts import STEPWISE, FactError, MissingFactError
from model_card.front_matter import validate_card
from model_card.render import render_card
from tests.unit.card_files import facts_of, files


def test_a_card_does_not_hide_that_training_images_were_encoded_again():
    both, reduced = files(), "quality 90, 4:2:0"
    assert reduced not in render_card(facts_of(both))  # a run from before there was a cache
    both["run"]["data"]["train_cache"] = None
    assert reduced not in render_card(facts_of(both))
    cache = {"short_side": 256, "jpeg_quality": 90, "subsampling": "4:2:0", "num_kept": 24}
    both["run"]["data"]["train_cache"] = cache
    text = render_card(facts_of(both))
    validate_card(text)
    assert "short side of more than 256 pixels were reduced" in text and reduced in text
    del cache["jpeg_quality"]
    with pytest.raises(MissingFactError, match="run.json has no data.train_cache.jpeg_quality: "):
        facts_of(both)
    both["run"]["data"]["train_cache"] = 256
    with pytest.raises(FactError, match="data.train_cache is 256, not an object"):
        facts_of(both)


def test_a_card_says_what_was_trained():
    both = files()
    training = both["run"]["training"]
    assert "| Trained | all weights |" in render_card(facts_of(both))  # an older run
    training |= {"num_trainable_parameters": 667493, "lora": None}
    assert "| all weights; 667,493 of 85,876,325 parameters |" in render_card(facts_of(both))
    training["tune"] = "lora"
    with pytest.raises(MissingFactError, match="training.lora"):
        facts_of(both)
    training["lora"] = {"rank": 16, "alpha": 8.0, "dropout": 0.1, "peft": "0.21.2"}
    with pytest.raises(MissingFactError, match="run.json has no training.lora.target_modules: "):
        facts_of(both)
    training["lora"]["target_modules"] = ["q_proj", "v_proj"]
    text = render_card(facts_of(both))
    validate_card(text)
    assert (
        "LoRA, rank 16, alpha 8, dropout 0.1, on `q_proj`, `v_proj`, and the head in full (peft "
        "0.21.2); 667,493 of 85,876,325 parameters." in text
    )
    rates = [{"learning_rate": 0.01, "top1": 0.86}]
    training["tune"] = "probe_then_lora"
    with pytest.raises(MissingFactError, match="run.json has no training.probe: "):
        facts_of(both)
    training["probe"] = {"learning_rate": 0.01, "epochs": 3.0, "selection_top1": rates}
    text = render_card(facts_of(both))
    validate_card(text)
    assert (
        "0.21.2); 667,493 of 85,876,325 parameters, after 3 epochs of a linear head on frozen features; its "
        "learning rate 0.01 of 1, chosen on the selection slice. Merged: the files hold plain"
        in text
    )
    lora, training["lora"] = training["lora"], None
    with pytest.raises(MissingFactError, match="run.json has no training.lora: "):
        facts_of(both)
    training |= {"tune": "adapters", "lora": lora}
    with pytest.raises(FactError, match="training.tune is 'adapters', not one of 'full', "):
        facts_of(both)
    training["tune"] = "lora"
    training["lora"]["target_modules"] = []
    with pytest.raises(FactError, match="target_modules|training.lora"):
        facts_of(both)


def test_the_card_says_how_a_vit_was_made_of_another_network():
    both = files()
    assert "As a ViT" not in render_card(facts_of(both))  # an older run
    done = {"model_type": "dinov2", "done": "LayerScale folded into the output projections"}
    done |= {"positions": [37, 16], "difference": 7.2e-07, "head": False}
    both["run"]["model"]["as_vit"] = done
    text = render_card(facts_of(both))
    validate_card(text)
    assert (
        "| As a ViT | from `dinov2`, before the training: LayerScale folded into the output projections; "
        "positions interpolated from 37 x 37 to 16 x 16 patches, bicubic without antialias; on an image "
        "of noise the class token differed by at most 7.2e-07 from the original's |" in text
    )
    done["positions"] = [16, 16]
    assert "; positions as they were; " in render_card(facts_of(both))
    done["positions"] = [16]
    with pytest.raises(FactError, match=r"model.as_vit is"):
        facts_of(both)
    del done["difference"], done["positions"]
    with pytest.raises(MissingFactError, match="run.json has no model.as_vit.positions"):
        facts_of(both)


def test_the_card_says_how_weights_began_and_what_is_not_known():
    both = files("sample")
    assert "none: weights drawn at random |" in render_card(facts_of(both))
    both["run"]["model"]["weight_init"] = "mimetic"
    both["run"]["training"]["images_per_second"] = None
    text = render_card(facts_of(both))
    assert "attention by mimetic initialisation (arXiv:2305.09828) |" in text
    assert "| Speed | not known: no step was left after a resume |" in text
    del both["run"]["model"]["weight_init"]  # a run of an older version
    assert "none: weights drawn at random |" in render_card(facts_of(both))


def test_the_card_says_what_is_not_plain_fine_tuning():
    both = files()
    text = render_card(facts_of(both))
    assert "| Further | none |" in text
    assert "| Length | 10 epochs, 1,400 optimiser steps |" in text
    both["run"]["model"]["head_init_scale"] = 0.0
    both["run"]["training"] |= {
        "stopped_early": True,
        "optimization": {
            "layer_decay": 0.75, "drop_path": 0.1, "ema_decay": 0.9999, "early_stopping_patience": 3,
        },
    }  # fmt: skip
    text = render_card(facts_of(both))
    for words in (
        "| Length | stopped early after 1,400 optimiser steps of 10 epochs that were planned |",
        "| Further | layer-wise learning-rate decay 0.75, stochastic depth up to 0.1, moving average "
        "of the weights with decay 0.9999, early stopping after 3 scorings without a better one, "
        "new head's first weights times 0.0 |",
    ):
        assert words in text


def test_the_card_says_which_weights_were_trained():
    both = files()
    assert "| Trained | all weights |" in render_card(facts_of(both))  # an older run
    rates = [{"learning_rate": rate, "top1": top1} for rate, top1 in ((0.01, 0.86), (1e9, None))]
    probe = {"learning_rate": 0.01, "epochs": 3.0, "selection_top1": rates}
    both["run"]["training"] |= {"tune": "linear_probe", "probe": probe, "augmentation": {}}
    text = render_card(facts_of(both))
    validate_card(text)
    chosen = "learning rate 0.01 of 2, chosen on the selection slice |"
    assert f"| Trained | a linear head on frozen features; {chosen}" in text
    assert "| Augmentation | none |" in text and "1,234.5 features per second" in text
    assert "fine-tuned" not in text.split("## Load it")[0]
    both["run"]["training"]["tune"] = "probe_then_full"
    text = render_card(facts_of(both))
    assert (
        f"| Trained | all weights, after 3 epochs of a linear head on frozen features; its {chosen}"
        in text
    )
    assert "1,234.5 images per second" in text
    both["run"]["training"]["probe"] = None
    with pytest.raises(MissingFactError, match="run.json has no training.probe: "):
        facts_of(both)


def test_the_card_of_a_logistic_regression_has_no_batches_and_rates():
    both = files()
    probe = {
        "solver": "logistic_regression", "strength": 0.1, "strengths": [{"strength": 0.1}] * 9,
        "folds": 5, "num_images": 300, "num_scored": 299, "fitted_on": "train and selection",
    }  # fmt: skip
    both["run"]["training"] |= {"tune": "linear_probe", "probe": probe, "augmentation": {}}
    both["run"]["training"] |= dict.fromkeys(
        key.removeprefix("training.") for key in STEPWISE.values()
    )
    both["run"]["training"]["images_per_second"] = None
    both["run"]["selection"] |= {"metric": "nll", "n": 299}
    both["run"]["selection"]["cross_validation"] = {"folds": 5, "images": 300}
    text = render_card(facts_of(both))
    validate_card(text)
    for words in (
        "logistic regression, L2 strength 0.1 of 9, chosen by 5-fold cross-validation over the 300 images of "
        "train and selection that it was then fitted on |",
        "- The strength was chosen by negative log-likelihood in 5-fold cross-validation over all 300",
        "on 299 images,",
        "| Optimiser | L-BFGS in float64 to the optimum, ",
        "| Speed | features were computed once |",
    ):
        assert words in text
    assert "| Learning rate |" not in text and "| Length |" not in text
    both["run"]["training"]["tune"] = "probe_then_full"
    with pytest.raises(MissingFactError, match="run.json has no training.total_train_batch_size: "):
        facts_of(both)
