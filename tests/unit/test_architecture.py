# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, what a file may be called, how long it may be."""

import ast
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("training", "inference", "model_card")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Room -> what it may import of ours, a room or one module of it; docs/architecture.md says why.
# `training` itself is only the version.
ANY = {"any room"}
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "inference": set(),
    "model_card": set(),
    "data": {"common", "inference"},
    "model": {"common", "inference"},
    "input": {"data", "common", "inference"},
    "evaluation": {"input", "data", "model", "common", "inference"},
    "engine": {"evaluation", "input", "data", "model", "common"},
    "hub": {"evaluation", "input", "data", "model", "common", "model_card"},
    "inference.apps": {"evaluation.formats", "model", "common", "inference"},
    "probe": {"engine", "evaluation", "input", "data", "model", "common"},
    "config": {
        "probe.arguments",
        "engine.arguments",
        "engine.training_arguments",
        "evaluation.arguments",
        "input.arguments",
        "data.arguments",
        "model.arguments",
        "common",
    },
    "run": {"config", "probe", "engine", "evaluation", "data", "model", "common", "inference"},
    "compare": {"config.keys", "evaluation", "model", "common"},
    "train": {"run", "hub", "config", "data", "model", "common"},
    "cli": ANY,
}
# Optional packages, imported where they are needed: an extra brings them.
OPTIONAL = {"peft", "pi_heif", "simplejpeg"}
# And an uploaded file that most answers of a pipeline do not need.
ON_REQUEST = {"food_explain"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Top-level names, imports inside functions included; there are no relative imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # One uploaded file finds the other beside it, wherever they lie.
            assert node.level == 0 or path.name in UPLOADED, f"{path} imports relatively"
            names.add(node.module.split(".")[0])
    return names


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def room_of(name: str) -> str:
    """The room of a module: `training.data.scan` is in "data", `inference.apps.predict` in "inference.apps"."""
    parts = name.split(".")
    if parts[0] == "training":
        return parts[1]
    return ".".join(parts[:2]) if parts[:2] == ["inference", "apps"] else parts[0]


def ours(path: Path) -> set[str]:
    """The modules of ours that a file imports: under TYPE_CHECKING and inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & NAMES


NAMES = {name_of(path) for path in MODULES if path.stem != "__init__"}
IMPORTS = {name_of(path): ours(path) for path in MODULES if path.stem != "__init__"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_the_table_says(room):
    """No more, and no less: a permission that nobody uses is a hole."""
    imported = {
        other
        for name, others in IMPORTS.items()
        if room_of(name) == room
        for other in others
        if room_of(other) != room
    }
    if MAY_IMPORT[room] is ANY:
        return
    allowed = {
        entry: {name for name in imported if is_in(name, entry)} for entry in MAY_IMPORT[room]
    }
    assert imported - set().union(*allowed.values()) == set()
    assert [entry for entry, used in allowed.items() if not used] == []


def is_in(name: str, entry: str) -> bool:
    """Whether a module is the one, or in the room, that an entry of the table names."""
    return room_of(name) == entry or name == f"training.{entry}"


PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_page_has_the_table():
    rows = re.findall(r"^\| ([\w., ]+) \| (.+) \|$", PAGE, re.M)
    told = {room: may.split(", ") for rooms, may in rows for room in rooms.split(", ")}
    assert told.pop("room") == ["may import"]
    nothing, anything = ["nothing of ours"], ["anything", "inside verbs only"]
    assert told.keys() == MAY_IMPORT.keys()
    for room, may in told.items():
        entries = MAY_IMPORT[room]
        assert may == anything if entries is ANY else set(may) == (entries or set(nothing)), room


def test_the_page_has_every_module():
    """The tree's lines: a folder by its indentation, then words of which some are modules."""
    tree, folders, listed = re.search(r"```\n(.*?)```", PAGE, re.S)[1], [], {}
    for line in tree.splitlines():
        indent, words = len(line) - len(line.lstrip()), line.split()
        if words[0].endswith("/") and indent < 6:
            folders = [*folders[: indent // 2], words[0].rstrip("/")]
            words = words[1:]
        listed.setdefault("/".join(folders), []).extend(re.findall(r"\w+", " ".join(words)))
    for folder in {path.parent for path in MODULES}:
        name = folder.relative_to(ROOT).as_posix()
        there = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
        assert there <= set(listed[name]), name
    for name in re.findall(r"`((?:training/)?[a-z_]+/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).is_file() or (ROOT / "training" / name).is_file(), name
    for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:\.[A-Z]\w+)?`", PAGE):
        if name.endswith((".html", ".json", ".md", ".py", ".yaml")):
            continue
        known = (name, f"training.{name}", f"training.{name.rsplit('.', 1)[0]}")
        assert NAMES & set(known), name


def test_only_verbs_import_late():
    """And `train.main`, whose help must be quick; elsewhere a function hides what a module needs."""
    late = []
    for path in MODULES:
        if path.parent.name == "cli" or path.name == "train.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                late += [
                    f"{name_of(path)}.{function.name}: {ast.unparse(node)}"
                    for node in ast.walk(function)
                    if isinstance(node, (ast.Import, ast.ImportFrom))
                    and ast.unparse(node).split()[1].lstrip(".").split(".")[0]
                    not in OPTIONAL | ON_REQUEST
                ]
    assert late == []


def test_every_module_has_a_test_file_of_its_name():
    lacking = {
        name
        for name in NAMES
        if not (ROOT / "tests" / "unit" / mirrored(name)).is_file() and name not in WITHOUT_TESTS
    }
    assert lacking == set()
    assert {name for name in WITHOUT_TESTS if name not in NAMES} == set()


def mirrored(name: str) -> str:
    """training.data.scan -> data/test_scan.py, inference.apps.predict -> inference/apps/test_predict.py."""
    *rooms, module = name.removeprefix("training.").split(".")
    return "/".join([*rooms, f"test_{module}.py"])


# What has no test file of its name, and why.
WITHOUT_TESTS = {
    "training.train": "a table of contents, run whole by every test of a run",
    "training.cli.__main__": "calls main",
    "training.common.errors": "a name and nothing else",
}


def test_every_module_is_in_a_room_of_the_table():
    assert {room_of(name) for name in NAMES} == MAY_IMPORT.keys()


def test_no_module_is_in_a_circle():
    def reach(name: str) -> set[str]:
        seen, todo = set(), [name]
        while todo:
            new = IMPORTS[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    assert [name for name in sorted(NAMES) if name in reach(name)] == []


UPLOADED = {
    "food_classification.py": {
        "numpy",
        "torch",
        "transformers",
        "food_images",
        "food_answers",
        "food_distance",
        "food_explain",
        "food_inputs",
    },
    "food_answers.py": {"numpy"},
    "food_distance.py": {"numpy", "torch", "transformers", "safetensors", "food_answers"},
    "food_explain.py": {"numpy", "torch", "PIL"},
    "food_inputs.py": {"food_images"},
    "food_images.py": {"numpy", "PIL", "torch", "simplejpeg", "pi_heif"},
    # Its last name is this project, where it is no part of a release.
    "apps/endpoint/handler.py": {
        *("PIL", "torch", "transformers", "inference"),
        *("food_images", "food_answers", "food_distance", "food_inputs"),
    },
}


@pytest.mark.parametrize("name", UPLOADED)
def test_an_uploaded_file_needs_nothing_unusual(name):
    """It runs on machines that have transformers, and nothing else of this project."""
    path = ROOT / "inference" / name
    assert imported(path) - sys.stdlib_module_names <= UPLOADED[name]
    needed = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:  # outside of any `try`
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names}
    assert not needed & {"simplejpeg", "pi_heif"}  # faster, and one more format


def test_no_test_or_benchmark_is_imported_by_the_product():
    for path in MODULES:
        assert not imported(path) & {"tests", "benchmarks", "pytest"}, path


def test_no_name_shadows_a_library():
    """`python training/x.py` puts training/ first on the path: training/evaluate.py would hide one."""
    requirements = importlib.metadata.requires("vit-food101")
    installed = {re.split(r"[^\w-]", r)[0].lower() for r in requirements}
    top_level = {
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if "vit-food101" not in owners
    }
    assert {"evaluate", "torch", "datasets"} <= top_level
    taken = sys.stdlib_module_names | top_level | {name.replace("-", "_") for name in installed}
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            assert path.stem not in taken, path


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_no_file_is_long(folder):
    for path in (ROOT / folder).rglob("*.py"):
        count = len(path.read_text(encoding="utf-8").splitlines())
        limit = 450 if path.name in UPLOADED else 400  # each upload is a file to read
        assert count <= limit, f"{path} has {count} lines"


@pytest.mark.slow
def test_every_module_can_be_imported_without_starting_anything(tmp_path):
    """In a fresh process: no process group, no accelerator state, no file, no line of output."""
    names = [name_of(path) for path in MODULES if path.stem != "__main__"]
    script = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "import torch.distributed\n"
        "from accelerate.state import PartialState\n"
        "assert not torch.distributed.is_initialized()\n"
        "assert not PartialState._shared_state\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert os.listdir() == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_tests_cannot_reach_the_network(no_network):
    """Of the guard in conftest.py: it refuses, and remembers what somebody else may swallow."""
    with pytest.raises(ConnectionRefusedError, match="192.0.2.1"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with pytest.raises(ConnectionRefusedError, match="huggingface.co"):
        socket.getaddrinfo("huggingface.co", 443)
    assert [attempt.split()[-1] for attempt in no_network] == ["192.0.2.1", "huggingface.co"]
    no_network.clear()
    socket.getaddrinfo("127.0.0.1", 80)
