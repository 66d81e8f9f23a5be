# SPDX-License-Identifier: Apache-2.0
"""Files of weights: their digest, pickles, and weights that no file gives."""

import hashlib
import shlex
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.toys import tiny_network
from training.common.errors import UserError
from training.model.network import load_network
from training.model.weights import head_is_among, refuse_pickle, refuse_untrained, weights_sha256


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_digest_is_of_the_weights_that_are_loaded(tmp_path, monkeypatch):
    assert weights_sha256(None) is None and weights_sha256("user/name") is None
    assert weights_sha256(tmp_path) is None
    parts = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts[1].write_bytes(b"two")
    parts[0].write_bytes(b"one")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    both = weights_sha256(str(tmp_path))
    assert both == sha256((sha256(b"one") + sha256(b"two")).encode())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_sha256("~") == both
    parts[1].write_bytes(b"2")
    assert weights_sha256(tmp_path) != both
    (tmp_path / "model.safetensors").write_bytes(b"whole")  # comes before shards
    assert weights_sha256(tmp_path) == sha256(b"whole")


# ---- pickles ----------------------------------------------------------------------------------


def test_safetensors_beside_a_pickle_are_enough(tmp_path):
    refuse_pickle(str(tmp_path), ["pytorch_model.bin", "model.safetensors"])
    refuse_pickle(str(tmp_path), ["pytorch_model.bin", "model-00001-of-00002.safetensors"])
    refuse_pickle(str(tmp_path), ["config.json"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickled", 'it\'s $HOME "here"'])
def test_the_cure_for_a_pickle_works(tmp_path, name):
    network, folder = tiny_network(), tmp_path / name
    network.model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    weights, before = load_file(folder / "model.safetensors"), network.model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle, which can run code when it is loaded") as error:
        load_network(folder)
    command = str(error.value).split("make safetensors of it once: ")[1]
    python, *words = shlex.split(command)
    assert python == "python" and "\n" not in command
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    loaded = load_network(folder).model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in before.items())


def test_a_pickle_on_the_hub_is_downloaded_first_and_shards_are_left_to_transformers():
    with pytest.raises(UserError, match="hf download user/food --local-dir food`, then python -c"):
        refuse_pickle("user/food", ["pytorch_model.bin"])
    with pytest.raises(UserError, match=r"in pytorch_model\.bin only.*save_pretrained of its own"):
        refuse_pickle("user/food", ["pytorch_model.bin.index.json"])


# ---- weights that no file gives ---------------------------------------------------------------


def test_an_untrained_head_is_told_from_missing_weights():
    model = tiny_network().model
    names = [name for name, _ in model.named_parameters()]
    refuse_untrained(model, "x", [])
    with pytest.raises(
        UserError, match=r"^model x has no trained head .* give classifier.weight\)"
    ):
        refuse_untrained(model, "x", ["classifier.weight"])
    with pytest.raises(UserError, match="^the files of model x do not give .* and 37 more, as"):
        refuse_untrained(model, "x", names)
    assert head_is_among(model, names) and not head_is_among(model, names[:3])
