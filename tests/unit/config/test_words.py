# SPDX-License-Identifier: Apache-2.0
"""The words of a command line: which belong to which key."""

import pytest

from training.common.errors import UserError
from training.config.words import read_words, refuse_stray


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", {}),
        ("--seed 1", {"seed": ["1"]}),
        ("--seed=1", {"seed": ["1"]}),
        ("--seed=", {"seed": [""]}),
        ("--num-train-epochs 3", {"num_train_epochs": ["3"]}),
        ("--num-train_epochs=3", {"num_train_epochs": ["3"]}),
        ("--resume-from-checkpoint last", {"resume_from_checkpoint": ["last"]}),
        ("--no-tf32 --use_cpu", {"no_tf32": [], "use_cpu": []}),
        ("--crop_scale 0.1 1 --seed 2", {"crop_scale": ["0.1", "1"], "seed": ["2"]}),
        ("--learning_rate -1e-3", {"learning_rate": ["-1e-3"]}),
        # Values stay as they are, hyphens and equals signs included.
        ("--output-dir a-b_c=d", {"output_dir": ["a-b_c=d"]}),
        ("--run-name=a-b=c", {"run_name": ["a-b=c"]}),
        ("--run_name=--a-b", {"run_name": ["--a-b"]}),
        # The last of two says it, and comes last.
        ("--seed 1 --tune lora --seed 2", {"tune": ["lora"], "seed": ["2"]}),
        ("--seed 1 --seed", {"seed": []}),
        ("--dataset -- --seed 1", {"dataset": ["--"], "seed": ["1"]}),
    ],
)
def test_which_words_belong_to_which_key(line, found):
    read = read_words(line.split())
    assert read == found and list(read) == list(found)


@pytest.mark.parametrize(("line", "word"), [("3", "3"), ("--seed=1 2", "2"), ("-x 1", "-x")])
def test_a_word_of_no_key_is_refused(line, word):
    with pytest.raises(UserError) as error:
        read_words(line.split())
    assert str(error.value) == f"{word} (the command line) stands alone: write --key value"
    with pytest.raises(UserError, match="^a b \\(the command line\\) stands alone"):
        refuse_stray("a b")
