# SPDX-License-Identifier: Apache-2.0
"""Building the folder to publish: what is in it, what must not be, and when it is refused."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import pipeline

from tests.unit.card_files import format_1
from tests.unit.toys import LABELS, train, write_image_folder, write_recipe
from training.common.errors import UserError
from training.hub import release
from training.hub.contents import CODE, CUSTOM_PIPELINES, HANDLER, MANIFEST, check_release
from training.hub.release import refuse_secrets, release_run, without_paths
from training.model.names import names_of

FILES = {
    "README.md",
    "config.json",
    "evaluation.json",
    "food_answers.py",
    "food_classification.py",
    "food_distance.py",
    "food_explain.py",
    "food_images.py",
    "food_inputs.py",
    "model.safetensors",
    "predictions.csv",
    "preprocessor_config.json",
    "run.json",
}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_list_of_files(tiny_run):
    folder = tiny_run / "release"
    assert {path.name for path in folder.rglob("*")} == {*FILES, MANIFEST}
    assert list(check_release(folder)) == sorted(FILES)


def test_nothing_is_pickled_and_weights_are_float32(tiny_run):
    for path in (tiny_run / "release").iterdir():
        if path.suffix == ".safetensors":
            assert {str(v.dtype) for v in load_file(path).values()} == {"torch.float32"}
        else:
            path.read_text(encoding="utf-8")  # a pickle is no text


def test_config_names_the_one_custom_pipeline(tiny_run):
    config = read(tiny_run / "release" / "config.json")
    assert config["custom_pipelines"] == CUSTOM_PIPELINES
    assert list(CUSTOM_PIPELINES) == ["food-classification"]
    assert "auto_map" not in config and "_name_or_path" not in config
    # It is added for the release; the run's own model stays plain.
    assert "custom_pipelines" not in read(tiny_run / "model" / "config.json")


def test_the_code_is_that_of_this_repository(tiny_run):
    for path in release.code_sources():
        assert (tiny_run / "release" / path.name).read_bytes() == path.read_bytes()


def test_no_path_of_this_machine(tiny_run, tiny_data):
    run = read(tiny_run / "release" / "run.json")
    assert run["recipe"]["dataset"] == run["data"]["dataset"] == "dishes"
    assert "output_dir" not in run["recipe"]
    private = [tiny_run, tiny_run.parent, tiny_data, tiny_data.parent, Path.cwd(), Path.home()]
    for name in FILES - {"model.safetensors"}:
        text = (tiny_run / "release" / name).read_text(encoding="utf-8")
        assert not [path for path in private if str(path) in text], name


def test_local_folders_go_by_their_last_name():
    record = {
        "recipe": {
            "output_dir": "/a/b",
            "dataset": "/data/mine",
            "model": "/models/mine",
            "resume_from_checkpoint": "/a/b/checkpoint-4",
            "display_names": "/data/names.csv",
            "seed": 1,
        },
        "data": {"dataset": "mine"},
        "model": {"id": "mine"},
    }
    assert without_paths(record)["recipe"] == {
        "dataset": "mine",
        "model": "mine",
        "resume_from_checkpoint": "checkpoint-4",
        "display_names": "names.csv",
        "seed": 1,
    }
    assert record["recipe"]["output_dir"] == "/a/b"  # the run keeps its own


def test_the_manifest_holds_the_sums(tiny_run):
    folder = tiny_run / "release"
    expected = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in FILES}
    assert read(folder / MANIFEST) == check_release(folder) == expected


def test_an_unchanged_release_is_replaced_by_the_same(tiny_run, released):
    before = {path.name: path.read_bytes() for path in released.iterdir()}
    release_run(tiny_run, released)  # loads it back as well
    assert {path.name: path.read_bytes() for path in released.iterdir()} == before
    assert [path.name for path in released.parent.iterdir()] == ["release"]  # nothing half built


def test_a_release_changed_by_hand_is_not_overwritten(tiny_run, released, without_loading):
    (released / "README.md").write_text("hours of work")
    with pytest.raises(UserError, match="was changed since it was built"):
        release_run(tiny_run, released)
    assert (released / "README.md").read_text() == "hours of work"


def test_another_folder_is_not_overwritten(tiny_run, tmp_path, without_loading):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is not a release"):
        release_run(tiny_run, tmp_path / "photos")
    with pytest.raises(UserError, match="is a file: give a folder"):
        release_run(tiny_run, tmp_path / "photos" / "one.jpg")
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"x"
    (tmp_path / "empty").mkdir()
    release_run(tiny_run, tmp_path / "empty")
    check_release(tmp_path / "empty")


def test_an_unfinished_run_is_refused(run, tmp_path):
    record = read(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "finished": None}))
    with pytest.raises(UserError, match="is not a finished run: train it to its end first"):
        release_run(run, tmp_path / "out")
    (run / "run.json").write_text(json.dumps(record))
    (run / "evaluation.json").unlink()
    with pytest.raises(UserError, match="is not a finished run"):
        release_run(run, tmp_path / "out")
    with pytest.raises(UserError, match="run.json is missing: is .* a finished run"):
        release_run(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_give_the_recorded_answer_are_not_released(run, tmp_path):
    path = run / "predictions.csv"
    lines = path.read_text().splitlines()
    fields = lines[1].split(",")
    lines[1] = ",".join([*fields[:3], str(float(fields[3]) + 0.1)])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RuntimeError, match="pipeline gives"):
        release_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_release_with_a_handler(tiny_run, tmp_path, monkeypatch):
    modules = set(sys.modules)
    release_run(tiny_run, tmp_path / "out", handler=True)
    assert set(check_release(tmp_path / "out")) == FILES | set(HANDLER)
    for path in release.handler_sources():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "### On an Inference Endpoint" in card and "SHA-256 of `handler.py`" in card
    assert "Endpoint" not in (tiny_run / "release" / "README.md").read_text(encoding="utf-8")
    # What was imported to try it is forgotten, and nothing of it stays behind.
    new = {name for name in set(sys.modules) - modules if "." not in name}
    assert not new & {"handler", *(Path(name).stem for name in CODE)}
    assert str(tmp_path / "out") not in sys.path
    release_run(tiny_run, tmp_path / "out")  # and without it again
    assert set(check_release(tmp_path / "out")) == FILES


def test_a_handler_that_does_not_give_the_recorded_answer_is_not_released(
    run, tmp_path, monkeypatch
):
    other = tmp_path / "handler.py"
    other.write_text(
        "class EndpointHandler:\n"
        "    def __init__(self, path):\n"
        "        import food_images  # of the release\n"
        "        assert food_images.__file__.startswith(path)\n"
        "    def __call__(self, data):\n"
        "        assert data['inputs'] and data['parameters']['top_k'] == 3\n"
        "        return [{'label': 'pizza', 'score': -1.0}]\n"
    )
    monkeypatch.setattr(release, "handler_sources", lambda: [other])
    with pytest.raises(RuntimeError, match="the handler gives"):
        release_run(run, tmp_path / "out", handler=True)
    assert not (tmp_path / "out").exists()


def test_a_token_in_the_handler_stops_the_release(run, tmp_path, monkeypatch, without_loading):
    (tmp_path / "handler.py").write_text(f"TOKEN = {TOKEN!r}\n")
    monkeypatch.setattr(release, "handler_sources", lambda: [tmp_path / "handler.py"])
    with pytest.raises(UserError, match="handler.py of the release holds a token"):
        release_run(run, tmp_path / "out", handler=True)


TOKEN = "hf_" + "aB3" * 12  # no token of anybody's


def test_a_token_stops_the_release(run, tmp_path, without_loading):
    record = read(run / "run.json")
    record["recipe"]["run_name"] = f"try with {TOKEN}"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="run.json of the release holds a token") as error:
        release_run(run, tmp_path / "out")
    assert TOKEN not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["/images", "", "\\", " "])
def test_a_path_stops_the_release(tmp_path, ending):
    for private in (tmp_path / "run", Path.cwd(), Path.home()):
        folder = tmp_path / "release"
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"run_name": f"{private}{ending}"}))
        with pytest.raises(UserError, match=f"run.json of the release holds the path {private}"):
            refuse_secrets(folder, tmp_path / "run")


def test_longer_names_are_no_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    (tmp_path / "run.json").write_text('{"a": "/rooted/trees", "b": "https://x.org/root/y"}')
    refuse_secrets(tmp_path, tmp_path / "run")


@pytest.mark.slow
def test_a_run_with_mixed_labels_is_released_with_softmax_scores(tmp_path):
    """Soft targets would make it `multi_label_classification`, whose scores are sigmoids."""
    data = write_image_folder(tmp_path / "dishes", train=8, validation=1)
    mixed = {
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing_factor": 0.1,
        "auto_augment": "randaugment",
    }
    recipe = write_recipe(tmp_path / "mixed.yaml", dataset=data, **mixed)
    train(recipe, "--output_dir", tmp_path / "run")
    record = read(tmp_path / "run" / "run.json")["training"]["augmentation"]
    assert (record["mixup"], record["cutmix"]) == (0.8, 1.0)
    release = tmp_path / "run" / "release"
    assert read(release / "config.json")["problem_type"] == "single_label_classification"
    scores = pipeline("image-classification", model=str(release))(
        str(tmp_path / "run" / "example.jpg"), top_k=None
    )
    assert len(scores) == 3 and sum(row["score"] for row in scores) == pytest.approx(1, abs=1e-5)


def test_an_older_run_is_released_as_it_is(tiny_run, run, tmp_path, without_loading):
    """Its evaluation.json is of the first format: copied byte by byte, and its card is the same."""
    today = read(run / "evaluation.json")
    (run / "evaluation.json").write_text(json.dumps(format_1(today)))
    release_run(run, tmp_path / "out")
    old = (run / "evaluation.json").read_bytes()
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == old
    card = (tmp_path / "out" / "README.md").read_bytes()
    assert card == (tiny_run / "release" / "README.md").read_bytes()


def test_a_release_has_the_names_of_its_run(tiny_run):
    block = read(tiny_run / "model" / "config.json")["food_classification"]
    assert block.items() >= {"format": 1, **names_of(LABELS)}.items()
    assert read(tiny_run / "release" / "config.json")["food_classification"] == block
    card = (tiny_run / "release" / "README.md").read_text(encoding="utf-8")
    assert "in a language that you choose: `en`, `ko`.\n" in card
    assert "| Cheese plate (`cheese_plate`) |" in card


def test_a_run_from_before_there_were_names_is_released_with_those_of_the_table(run, tmp_path):
    config = read(run / "model" / "config.json")
    del config["food_classification"]
    (run / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    release_run(run, tmp_path / "out")
    names = read(tmp_path / "out" / "config.json")["food_classification"]["names"]
    assert names == names_of(LABELS)["names"]


def test_a_release_with_names_of_its_own(run, tmp_path):
    (tmp_path / "names.csv").write_text(
        "label;de\npizza;Pizza\ncheese_plate;Käseplatte\ncheesecake;Käsekuchen\n", encoding="utf-8"
    )
    release_run(run, tmp_path / "out", display_names=str(tmp_path / "names.csv"))
    block = read(tmp_path / "out" / "config.json")["food_classification"]
    own = names_of(LABELS, str(tmp_path / "names.csv"))
    assert block.items() >= {"format": 1, **own}.items() and block["held_out"]
    food = pipeline(model=str(tmp_path / "out"), trust_remote_code=True, language="de")
    assert {row["name"] for row in food(str(run / "example.jpg"))} == {
        "Pizza", "Käseplatte", "Käsekuchen",
    }  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "`de`: given by whoever trained this model" in card
    (tmp_path / "names.csv").write_text("label,de\npizza,Pizza\n")
    with pytest.raises(UserError, match="no row for 2 of 3 labels"):
        release_run(run, tmp_path / "other", display_names=str(tmp_path / "names.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.csv", "out", "run"]


def test_the_manifest_lists_what_was_built(tiny_run, tmp_path, monkeypatch):
    """One more file needs no other change: here, one that appears while the release is built."""
    monkeypatch.setattr(
        release, "load_back", lambda folder, run: (folder / "parity.json").write_text("{}")
    )
    release_run(tiny_run, tmp_path / "out")
    assert set(check_release(tmp_path / "out")) == FILES | {"parity.json"}
