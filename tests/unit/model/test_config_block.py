# SPDX-License-Identifier: Apache-2.0
"""Our block of config.json: read, merged, dropped, in a config and in a file's JSON."""

import json

import pytest
from transformers import AutoConfig, ViTConfig

from training.common.errors import UserError
from training.model import config_block
from training.model.config_block import drop_block, merge_block, read_block

NAMES = {"en": {"pho": "Pho"}, "ko": {"pho": "베트남 쌀국수"}}


@pytest.fixture(params=["config", "json"])
def config(request):
    return ViTConfig() if request.param == "config" else {"model_type": "vit"}


def test_keys_are_set_one_by_one(config):
    assert read_block(config) == {}
    merge_block(config, names=NAMES)
    assert read_block(config) == {"format": 1, "names": NAMES}
    merge_block(config, names_from={"en": "vit-food101"})
    assert read_block(config)["names"] == NAMES  # what others said stays
    merge_block(config, names=None)
    assert read_block(config) == {"format": 1, "names_from": {"en": "vit-food101"}}
    merge_block(config, names_from=None)
    assert read_block(config) == {}


def test_a_block_without_a_key_is_none_at_all(config):
    before = json.dumps(config) if isinstance(config, dict) else config.to_json_string()
    merge_block(config, names=None, names_from=None)
    drop_block(config)
    assert (json.dumps(config) if isinstance(config, dict) else config.to_json_string()) == before


def test_what_is_read_is_a_copy(config):
    merge_block(config, names=NAMES)
    read_block(config)["names"] = {}
    assert read_block(config)["names"] == NAMES


def test_a_later_key_is_a_line(config, monkeypatch):
    with pytest.raises(ValueError, match="sharpness: not in KEYS"):
        merge_block(config, sharpness=1.5)
    monkeypatch.setitem(config_block.KEYS, "sharpness", "what the logits were divided by")
    merge_block(config, names=NAMES)
    merge_block(config, sharpness=1.5)
    assert read_block(config) == {"format": 1, "names": NAMES, "sharpness": 1.5}


def test_it_is_saved_and_loaded(tmp_path):
    config = ViTConfig()
    merge_block(config, names=NAMES)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["food_classification"] == {"format": 1, "names": NAMES}
    assert read_block(AutoConfig.from_pretrained(tmp_path)) == {"format": 1, "names": NAMES}


@pytest.mark.parametrize("block", [{"format": 2}, {}, "en", ["en"], 1])
def test_another_format_is_one_line(block):
    for config in ({"food_classification": block}, ViTConfig(food_classification=block)):
        with pytest.raises(UserError, match="and this code reads 1: use the code that came") as e:
            read_block(config)
        assert "\n" not in str(e.value)
        with pytest.raises(UserError):
            merge_block(config, names=NAMES)
        drop_block(config)  # it can always be taken out
        assert read_block(config) == {}
