# SPDX-License-Identifier: Apache-2.0
"""A finished classifier, read from a folder: its weights, its labels, where it is."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import logging as transformers_logging

from tests.unit.toys import LABELS, tiny_network
from training.common.errors import UserError
from training.model.network import (
    label_names_from,
    label_names_of,
    load_network,
    model_folder,
    quiet_transformers,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    network = tiny_network()
    network.model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    return folder


def test_a_saved_network_comes_back_as_it_was(saved):
    network, before = load_network(saved), tiny_network().model.state_dict()
    assert not network.model.training and network.head == "kept"
    assert (network.revision, network.license) == (None, None)  # of a folder nobody knows them
    assert (network.preprocessing.height, network.preprocessing.width) == (32, 32)
    for name, value in network.model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


def test_labels_are_in_the_order_of_their_ids(saved):
    assert label_names_from(saved) == LABELS
    ids = {i: f"label {i}" for i in (2, 10, 0, 1)}
    assert label_names_of(SimpleNamespace(id2label=ids)) == [f"label {i}" for i in (0, 1, 2, 10)]


def test_what_cannot_be_loaded_is_one_line(saved, tmp_path):
    broken = shutil.copytree(saved, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="broken cannot be loaded: ") as error:
        load_network(broken)
    assert "\n" not in str(error.value)


def test_a_processor_that_does_something_else_is_named(saved, tmp_path):
    other = shutil.copytree(saved, tmp_path / "other")
    path = other / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_resize": False}))
    with pytest.raises(UserError, match="the image processor of .*other does not fit: do_resize"):
        load_network(other)


def test_where_the_model_of_a_path_is(tiny_run, tmp_path, monkeypatch):
    assert model_folder(str(tiny_run)) == tiny_run / "model"
    assert model_folder(str(tiny_run / "release")) == tiny_run / "release"
    assert model_folder("user/name") is None
    monkeypatch.chdir(tmp_path)  # a folder here comes before a Hub id of that name
    shutil.copytree(tiny_run / "model", tmp_path / "user" / "name")
    assert model_folder("user/name") == Path("user/name")
    with pytest.raises(UserError, match="a/b/c does not exist"):
        model_folder("a/b/c")
    with pytest.raises(UserError, match="holds no model"):
        model_folder(str(tmp_path))


def test_transformers_is_quiet_inside_only():
    level = transformers_logging.get_verbosity()
    with quiet_transformers():
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
    assert transformers_logging.get_verbosity() == level
