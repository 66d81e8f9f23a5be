# SPDX-License-Identifier: Apache-2.0
"""How a part of evaluation.json plugs in: a class, and one more entry in the list."""

import numpy as np

from model_card.sections.blocks import BLOCKS
from training.evaluation.report import SECTIONS, measure
from training.evaluation.section import Scored


class Confidence:
    key = "confidence"

    def measure(self, scored: Scored) -> dict[str, float]:
        return {"largest": float(scored.logits.max()), "images": len(scored.labels)}


def test_one_more_section_is_one_more_key():
    scored = Scored(np.eye(2, dtype=np.float32), np.arange(2), ["a", "b"], None)
    before, after = measure(scored, SECTIONS), measure(scored, [*SECTIONS, Confidence()])
    assert after == {**before, "confidence": {"largest": 1.0, "images": 2}}
    assert list(after)[-1] == "confidence"


def test_no_two_sections_have_one_key_and_what_the_card_needs_is_measured():
    keys = [section.key for section in SECTIONS]
    assert len(set(keys)) == len(keys)
    assert {block.key for block in BLOCKS if block.required} <= set(keys)
