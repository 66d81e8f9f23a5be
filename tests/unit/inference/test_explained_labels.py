# SPDX-License-Identifier: Apache-2.0
"""Which labels `explain` means: by their names too, and never one of two."""

import pytest
from transformers import ViTConfig

from inference.food_explain import labels_asked


def test_labels_are_found_by_their_names_too():
    config = ViTConfig(id2label={0: "hot_dog", 1: "pho"}, label2id={"hot_dog": 0, "pho": 1})
    names = [{"hot_dog": "Hot dog", "pho": "Phở"}, {"hot_dog": "핫도그"}]
    assert labels_asked(config, True) == ()
    assert labels_asked(config, "Hot-Dog") == labels_asked(config, "핫도그", names) == (0,)
    assert labels_asked(config, ["phở", "hot_dog"], names) == (1, 0)
    for asked, said in (
        ("hotdog", "is it hot_dog?"), ("sushi", "give one of hot_dog, pho"), (3, "not 3"),
        ([], "not \\[\\]"), ([4], "label 4 is not known"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            labels_asked(config, asked, names)


def test_labels_that_are_written_nearly_alike_are_told_apart():
    labels = ["hot_dog", "Hot dog", "pho", "ramen"]
    config = ViTConfig(id2label=dict(enumerate(labels)))
    assert labels_asked(config, ["Hot dog", "hot_dog", "PHO"]) == (1, 0, 2)
    with pytest.raises(ValueError, match="'HOT DOG' may be Hot dog or hot_dog: give one of these"):
        labels_asked(config, "HOT DOG")
    # A label goes before the name of another one; the name of a dish that is not there is no name.
    names = [{"pho": "Noodles", "ramen": "noodles", "hot_dog": "Pho", "soba": "Soba"}]
    assert labels_asked(config, "Pho", names) == (2,)
    with pytest.raises(ValueError, match="may be pho or ramen"):
        labels_asked(config, "noodles", names)
    with pytest.raises(ValueError, match="'soba' is not known to this model: give one of hot_dog"):
        labels_asked(config, "soba", names)
    with pytest.raises(ValueError, match="two labels of this model are equal"):
        labels_asked(ViTConfig(id2label={0: "pie", 1: "pie"}), True)
