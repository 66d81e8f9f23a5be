"""The unmodified recipe of DINOv2 by its Hub id, from a loopback Hub: what is read, recorded and released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.integration.conftest import food101

pytestmark = pytest.mark.slow

ID = "facebook/dinov2-small"


def checkpoint_files(folder: Path) -> Path:
    """dinov2-small's layout, names and processor: a Dinov2Model of 518 pixels, gamma within +-2."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**shape, image_size=518))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lambda1"):
                parameter.uniform_(-2, 2)
    model.save_pretrained(folder)
    processor = {
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "BitImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 256},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- dino\n---\n# DINOv2\n")
    return folder


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory) -> Path:
    hub.add_repo(ID, checkpoint_files(tmp_path_factory.mktemp("dinov2") / "model"))
    folder = tmp_path_factory.mktemp("runs") / "dinov2"
    env = hub.env(tmp_path_factory.mktemp("home"), token=None) | {"OMP_NUM_THREADS": "1"}
    small = ["--max_steps", "2", "--total_train_batch_size", "32", "--probe_epochs", "1"]
    small += ["--use_cpu", "--dataloader_num_workers", "0", "--selection_fraction", "0.25"]
    done = food101("train", "vit_small_dinov2", *small, "--output_dir", str(folder), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert (
        "LayerScale folded into the output projections; positions 37 x 37 interpolated to" in said
    )
    return folder


def test_what_was_read_is_recorded(hub, run):
    model = json.loads((run / "run.json").read_text())["model"]
    assert (model["id"], model["revision"]) == (ID, hub.commits(ID)[-1].oid)
    assert (model["license"], model["head"]) == ("apache-2.0", "new")
    assert (model["architecture"], model["image_size"]) == ("ViTForImageClassification", 224)
    done = model["as_vit"]
    assert (done["model_type"], done["positions"], done["head"]) == ("dinov2", [37, 16], False)
    assert done["difference"] < 1e-5


def test_the_release_is_a_plain_vit(run):
    config = json.loads((run / "release" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("vit", ["ViTForImageClassification"])
    assert (config["image_size"], config["patch_size"]) == (224, 14)
    assert config["layer_norm_eps"] == 1e-6
    assert not any("lambda" in name for name in load_file(run / "release" / "model.safetensors"))
    card = (run / "release" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0\n" in card and f"base_model: {ID}\n" in card
    assert "positions interpolated from 37 x 37 to 16 x 16 patches" in card
