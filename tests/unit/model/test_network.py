# SPDX-License-Identifier: Apache-2.0
"""A finished classifier, read from a folder: its weights, its labels, where it is."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification
from transformers import logging as transformers_logging

from tests.unit.toys import LABELS, tiny_network
from training.common.errors import UserError
from training.model import network as network_module
from training.model.network import (
    commit_of,
    label_names_from,
    label_names_of,
    load_classifier,
    load_network,
    load_pretrained,
    load_weights,
    model_folder,
    quiet_transformers,
)

META = {"format": "pt"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_as_float32(saved, tmp_path, dtype):
    half = load_network(saved).model.to(dtype)
    half.save_pretrained(shutil.copytree(saved, tmp_path / "half"))
    loaded = load_network(tmp_path / "half").model.state_dict()
    assert all(
        torch.equal(loaded[name], value.float()) for name, value in half.state_dict().items()
    )


def test_shards_are_loaded_as_one_file_would_be(saved, tmp_path):
    whole, folder = load_network(saved).model, shutil.copytree(saved, tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    loaded = load_network(folder).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in whole.state_dict().items())
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match="cannot be loaded: No such file"):
        load_network(folder)


def test_weights_that_the_files_do_not_give_are_named(saved, tmp_path):
    model, lacking = load_classifier(str(saved), None)
    assert lacking == []
    folder = shutil.copytree(saved, tmp_path / "bare")
    model.vit.save_pretrained(folder)
    assert load_classifier(str(folder), None)[1] == ["classifier.bias", "classifier.weight"]
    with pytest.raises(
        UserError, match=r"bare has no trained head .*train RECIPE --model .*bare`$"
    ):
        load_network(folder)
    path = shutil.copytree(saved, tmp_path / "other") / "config.json"
    labels = {str(i): f"label {i}" for i in range(5)}
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": labels}))
    with pytest.raises(UserError, match="has no trained head"):  # another number of labels
        load_network(path.parent)


def test_weights_without_a_place_are_named_too(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "more")
    state = load_file(folder / "model.safetensors")
    state["registers"] = torch.ones(4, 32)
    save_file(state, folder / "model.safetensors", META)
    _, lacking, unknown = load_weights(AutoModelForImageClassification, str(folder), None)
    assert (lacking, unknown) == ([], ["registers"])
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("gelu", "no"))
    with pytest.raises(UserError, match="^model .* cannot be loaded: 'no'"):
        load_weights(AutoModelForImageClassification, str(folder), None)


def test_pickles_on_the_hub_are_named(monkeypatch):
    """As far as the Hub says what it has; else the first error stays."""
    names = ["config.json", "pytorch_model.bin"]

    def fail(*_: object, **__: object) -> None:
        raise UserError("model user/food cannot be loaded")

    monkeypatch.setattr(network_module, "load_pretrained", fail)
    monkeypatch.setattr(network_module.HfApi, "list_repo_files", lambda *_, **__: names)
    with pytest.raises(UserError, match="is not read here: .*`hf download user/food --local-dir"):
        load_classifier("user/food", None)
    names.append("model.safetensors")
    with pytest.raises(UserError, match="^model user/food cannot be loaded$"):
        load_classifier("user/food", None)
    monkeypatch.undo()
    monkeypatch.setattr(network_module, "load_pretrained", fail)
    with pytest.raises(UserError, match="^model user/food cannot be loaded$"):  # offline
        load_classifier("user/food", None)


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


@pytest.mark.parametrize("error", [OSError, ValueError, ImportError])
def test_what_transformers_raises_is_cut_to_one_line(error):
    class Kind:
        @staticmethod
        def from_pretrained(model_id: str, revision: str | None, **kwargs: object) -> None:
            raise error("several\n  lines " + "x" * 1000)

    with pytest.raises(
        UserError, match="^model user/food cannot be loaded: several lines x"
    ) as said:
        load_pretrained(Kind, "user/food", None)
    assert "\n" not in str(said.value) and len(str(said.value)) < 450


def test_the_commit_is_the_folder_in_the_cache(monkeypatch, tmp_path):
    asked = []

    def download(repo: str, name: str, revision: str | None) -> str:
        asked.append((repo, name, revision))
        return f"/cache/models--user--food/snapshots/{COMMIT}/{name}"

    monkeypatch.setattr(network_module, "hf_hub_download", download)
    assert commit_of("user/food", "v1") == COMMIT
    assert asked == [("user/food", "config.json", "v1")]
    assert commit_of(str(tmp_path), None) is None and len(asked) == 1


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
    for name in ("a/b/c", "name", "./user/other", "/nowhere", "~/nowhere"):
        with pytest.raises(UserError, match=f"^{name} does not exist: give a run"):
            model_folder(name)
    with pytest.raises(UserError, match="holds no model"):
        model_folder(str(tmp_path))


def test_a_path_is_not_looked_for_on_the_hub(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "runs" / "sample" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_folder("~/runs/sample") == tmp_path / "runs" / "sample" / "model"
    with pytest.raises(
        UserError, match="^runs/smaple does not exist.*; did you mean runs/sample.$"
    ):
        model_folder("runs/smaple")
    with pytest.raises(UserError, match=r"\(runs is a folder here, so it is not looked for on the"):
        model_folder("runs/zebra")
    with pytest.raises(UserError, match="^'' does not exist"):
        model_folder("")


def test_transformers_is_quiet_inside_only():
    level = transformers_logging.get_verbosity()
    with pytest.raises(KeyError), quiet_transformers():
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
        raise KeyError
    assert transformers_logging.get_verbosity() == level
