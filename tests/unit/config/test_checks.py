# SPDX-License-Identifier: Apache-2.0
"""What needs more than one class of arguments to be refused."""

import pytest


def test_mixing_that_would_never_end_is_refused(parse, refused):
    text = "mixup: 0.8\nmix_off_epoch: 3\n"
    said = refused(text, "--num_train_epochs", "3")
    assert said.startswith("mix_off_epoch is 3 and num_train_epochs 3: mixing would never be off")
    assert parse(text, "--num_train_epochs", "4").augmentation.mix_off_epoch == 3
    for words in (["--mixup", "0"], ["--mix_off_epoch", "0"], ["--max_steps", "9"]):
        parse(text, "--num_train_epochs", "3", *words)


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_an_odd_batch_cannot_be_mixed(parse, refused, key):
    words = ["--total_train_batch_size=15", "--per_device_train_batch_size=5"]
    message = refused(f"{key}: 0.8", *words)
    assert message.startswith("per_device_train_batch_size is 5: mixup and cutmix mix pairs")
    parse(f"{key}: 0.8\nmix_probability: 0", *words)
    parse("random_erasing: 0.5", *words)
