"""Some hundreds of the damaged images of benchmarks/mutations.py: pixels or one line, nothing else."""

import sys
from pathlib import Path

import pytest

from inference import food_images

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import mutations  # noqa: E402

sys.path.remove(str(BENCHMARKS))


@pytest.mark.filterwarnings("ignore")  # pytest undoes the filter of food_images
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's /proc")
def test_damaged_images_end_as_pixels_or_in_one_line(capfd):
    became = [mutations.outcome(number, food_images) for number in range(400)]
    assert [each for each in became if each["became"] not in ("pixels", "refused")] == []
    kinds = {(each["kind"], each["became"]) for each in became}
    assert kinds == {(kind, end) for kind in mutations.KINDS for end in ("pixels", "refused")}
    assert capfd.readouterr().err == ""


def test_the_same_number_is_the_same_image():
    first = [mutations.mutated(number) for number in range(100)]
    mutations.originals.cache_clear()
    assert [mutations.mutated(number) for number in range(100)] == first
    assert len({data for _, data in first}) > 90
