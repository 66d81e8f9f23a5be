"""Push a release to the loopback Hub with the real client, and load it back by its name."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.integration.conftest import ROOT, food101
from tests.loopback_hub import READ_TOKEN, WRITE_TOKEN
from training.hub.contents import CODE

pytestmark = pytest.mark.slow
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


def push(run, tmp_path, repo_id, *words, token=WRITE_TOKEN, release=None):
    env = run.hub.env(tmp_path / "home", token=token)
    return food101("push", release or run.release, "--repo_id", repo_id, *words, env=env)


@pytest.fixture(scope="module")
def pushed(real_run, tmp_path_factory):
    done = push(real_run, tmp_path_factory.mktemp("push"), "user/food-vit", "--rescore", "40")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_one_private_verified_commit(real_run, pushed):
    hub = real_run.hub
    assert hub.is_private("user/food-vit")
    commits = hub.commits("user/food-vit")
    assert len(commits) == 2  # the repository's own first one, and ours
    assert FILES == set(commits[-1].paths)
    assert hub.tags("user/food-vit") == {"v1.0": commits[-1].oid}
    assert "40 of 202 test images scored again" in pushed.stdout
    for name in FILES - {"README.md"}:
        assert hub.files("user/food-vit")[name] == (real_run.release / name).read_bytes()
    assert not any(r.has_token for r in hub.requests if r.host == "storage")


def test_the_card_names_the_repository_and_pins_the_tag(real_run, pushed):
    card = real_run.hub.files("user/food-vit")["README.md"].decode()
    assert 'model="user/food-vit"' in card and 'revision="v1.0"' in card
    assert "user/repo" not in card
    for name in CODE:
        assert hashlib.sha256((real_run.release / name).read_bytes()).hexdigest() in card


def test_a_second_push_is_a_no_op(real_run, pushed, tmp_path):
    before = real_run.hub.commits("user/food-vit")
    done = push(real_run, tmp_path, "user/food-vit", "--rescore", "5")
    assert done.returncode == 0, done.stderr
    assert "nothing to push" in done.stdout
    assert real_run.hub.commits("user/food-vit") == before


def test_public_only_when_asked(real_run, tmp_path):
    done = push(real_run, tmp_path, "kitchen/food-vit", "--public", "--rescore", "5")
    assert done.returncode == 0, done.stderr
    assert not real_run.hub.is_private("kitchen/food-vit")


def test_dry_run_sends_nothing(real_run, tmp_path):
    before = len(real_run.hub.requests)
    done = push(real_run, tmp_path, "user/dry", "--dry_run", token=None)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[-1]: line.split()[0] for line in done.stdout.splitlines()}
    assert set(lines) == FILES
    weights = (real_run.release / "model.safetensors").read_bytes()
    assert lines["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert len(real_run.hub.requests) == before


@pytest.mark.parametrize(
    ("repo_id", "token", "said"),
    [
        ("user/a", None, "no token"),
        ("user/a", READ_TOKEN, "may only read"),
        ("user/a", "hf_not-a-token", "does not accept the token"),
        ("stranger/a", WRITE_TOKEN, "not yours"),
        ("no-owner", WRITE_TOKEN, "malformed"),
        ("user/a b", WRITE_TOKEN, "malformed"),
    ],
)
def test_refusals_before_anything_is_sent(real_run, tmp_path, repo_id, token, said):
    done = push(real_run, tmp_path, repo_id, token=token)
    assert done.returncode == 2
    assert done.stderr.startswith("error:") and said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not real_run.hub.has_repo(repo_id)


def test_a_release_changed_by_hand(real_run, tmp_path):
    changed = shutil.copytree(real_run.release, tmp_path / "release")
    (changed / "README.md").write_text("accuracy 100 %")
    done = push(real_run, tmp_path, "user/changed", release=changed)
    assert done.returncode == 2 and "README.md" in done.stderr
    assert not real_run.hub.has_repo("user/changed")


def test_a_tag_that_names_another_version(real_run, pushed, tmp_path):
    real_run.hub.add_repo("user/tagged", {"README.md": b"older"})
    real_run.hub.add_tag("user/tagged", "v1.0")
    before = real_run.hub.commits("user/tagged")
    done = push(real_run, tmp_path, "user/tagged")
    assert done.returncode == 2 and "v1.0" in done.stderr
    assert real_run.hub.commits("user/tagged") == before


def test_a_damaged_download_is_noticed(real_run, tmp_path):
    real_run.hub.corrupt("user/damaged", "model.safetensors")
    done = push(real_run, tmp_path, "user/damaged")
    assert done.returncode == 2 and "model.safetensors" in done.stderr


def test_a_lost_answer_is_mended_by_pushing_again(real_run, tmp_path):
    real_run.hub.lose_answer("POST", "/api/models/user/lost/commit/")
    assert push(real_run, tmp_path, "user/lost").returncode == 2
    commits = real_run.hub.commits("user/lost")
    done = push(real_run, tmp_path, "user/lost", "--rescore", "5")
    assert done.returncode == 0, done.stderr
    assert real_run.hub.commits("user/lost") == commits
    assert "v1.0" in real_run.hub.tags("user/lost")


def test_a_busy_hub_is_asked_again(real_run, tmp_path):
    real_run.hub.fail("POST", "/api/models/user/busy/preupload/", 503, times=2)
    assert push(real_run, tmp_path, "user/busy", "--rescore", "5").returncode == 0


# ---- five ways to load it, where training and model_card cannot be imported -------------------

LOADER = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("training", "model_card", "inference"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
import json
from transformers import pipeline
where, image, revision = sys.argv[1:]
pin = {"revision": revision} if revision else {}
found = {}
def attempt(name, *args, **kwargs):
    try:
        p = pipeline(*args, model=where, **pin, **kwargs)
        found[name] = [type(p).__name__, p.task, type(p).__module__, p(image, top_k=2)]
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
attempt("trusted", trust_remote_code=True)
attempt("task trusted", "food-classification", trust_remote_code=True)
attempt("stock", "image-classification")
attempt("stock trusted", "image-classification", trust_remote_code=True)
attempt("bare")
attempt("task untrusted", "food-classification")
attempt("refused", trust_remote_code=False)
print(json.dumps(found))
"""


def load_everywhere(env, where, image, revision, cwd):
    script = cwd / "loader.py"
    script.write_text(textwrap.dedent(LOADER))
    words = [sys.executable, script, where, image, revision]
    done = subprocess.run(
        list(map(str, words)), env=env, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("from_hub", [True, False])
def test_call_shapes(real_run, pushed, tmp_path, from_hub):
    hub = real_run.hub
    env = hub.env(tmp_path / "home")
    where, revision = ("user/food-vit", "v1.0") if from_hub else (real_run.release, "")
    before = len(hub.requests)
    found = load_everywhere(env, where, real_run.folder / "example.jpg", revision, tmp_path)
    for name in ("trusted", "task trusted"):
        kind, task, module, rows = found[name]
        assert (kind, task) == ("FoodClassificationPipeline", "food-classification")
        assert module.startswith("transformers_modules.")
        assert set(rows[0]) == {"label", "name", "score"}
    for name in ("stock", "stock trusted"):
        kind, task, _, rows = found[name]
        assert (kind, task) == ("ImageClassificationPipeline", "image-classification")
        assert set(rows[0]) == {"label", "score"}
    for name in ("bare", "task untrusted"):
        assert found[name][0] == "ValueError" and "trust_remote_code=True" in found[name][1]
    if from_hub:  # the task comes from the card's pipeline_tag
        assert found["refused"][:2] == ["ImageClassificationPipeline", "image-classification"]
        assert len(hub.requests) > before
    else:
        assert found["refused"][0] == "RuntimeError"
    # The two pipelines resize differently by at most 1/255 a pixel.
    assert found["trusted"][3][0]["score"] == pytest.approx(found["stock"][3][0]["score"], abs=5e-3)


def test_the_stock_pipeline_downloads_no_code(real_run, pushed, tmp_path):
    env = real_run.hub.env(tmp_path / "home")
    before = len(real_run.hub.requests)
    script = (
        "from transformers import pipeline\n"
        "p = pipeline('image-classification', model='user/food-vit')\n"
        "print(p.model.config.problem_type)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not [r for r in real_run.hub.requests[before:] if r.path.split("?")[0].endswith(".py")]


def test_predict_and_evaluate_by_hub_name(real_run, pushed, tmp_path):
    env = real_run.hub.env(tmp_path / "home")
    image = real_run.folder / "example.jpg"
    done = food101("predict", "user/food-vit", image, "--top_k", "3", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["labels"]) == 3
    done = food101("evaluate", "user/food-vit", env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "n = 202" in done.stdout


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://127.0.0.1:9", "did not finish"),  # nobody listens
        ("http://hub.example.org", "not https"),  # refused before the token is sent anywhere
    ],
)
def test_an_endpoint_that_cannot_be_used(real_run, tmp_path, endpoint, said):
    env = real_run.hub.env(tmp_path / "home") | {"HF_ENDPOINT": endpoint}
    done = food101("push", real_run.release, "--repo_id", "user/nowhere", env=env)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1
