# SPDX-License-Identifier: Apache-2.0
"""The table of what dishes are called, and files of the user's: what is taken, and what is refused."""

import unicodedata
from pathlib import Path

import pytest

from tests.unit.toys import LABELS
from training.common.errors import UserError
from training.model import names as module
from training.model.names import TABLE, fallback_line, names_of, read_names

FOOD101 = (
    (Path(__file__).parents[2] / "integration" / "food101_names.txt").read_text("utf-8").split()
)
OWN = "label,de\npizza,Pizza\ncheese_plate,Käseplatte\ncheesecake,Käsekuchen\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "names.csv") -> str:
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


# ---- the project's table ------------------------------------------------------------------------


def test_every_label_of_food101_has_a_name_of_its_own_in_each_language():
    table = read_names(TABLE)
    assert {"en", "ko"} <= table.keys()
    for language, names in table.items():
        assert names.keys() == set(FOOD101) and len(FOOD101) == 101, language
        assert len(set(names.values())) == 101, language
        for name in names.values():
            assert name == unicodedata.normalize("NFC", name).strip(), name
    assert table["en"]["creme_brulee"] == "Crème brûlée"
    assert table["ko"]["creme_brulee"] == "크렘 브륄레"
    assert all(any("가" <= c <= "힣" for c in name) for name in table["ko"].values())


def test_names_go_by_label_whatever_the_order():
    forwards, backwards = names_of(FOOD101), names_of(FOOD101[::-1])
    assert forwards == backwards
    assert forwards["names_from"] == {"en": "vit-food101", "ko": "vit-food101"}
    assert names_of(["waffles", "pho"])["names"] == {
        "en": {"waffles": "Waffles", "pho": "Pho"},
        "ko": {"waffles": "와플", "pho": "베트남 쌀국수"},
    }


@pytest.mark.parametrize(
    "label", ["Apple Pie", "apple-pie", "APPLE_PIE", " apple  pie ", "Apple_pie"]
)
def test_a_label_is_found_however_it_is_written(label):
    assert names_of([label])["names"] == {"en": {label: "Apple pie"}, "ko": {label: "애플파이"}}


def test_each_label_by_itself():
    found = names_of(["pizza", "schnitzel"])["names"]
    assert found == {"en": {"pizza": "Pizza"}, "ko": {"pizza": "피자"}}
    assert names_of(["schnitzel", "applepie"]) == {"names": None, "names_from": None}


def test_one_more_language_is_one_more_column(write, monkeypatch):
    rows = TABLE.read_text("utf-8").splitlines()
    text = [f"{rows[0]},de,note", *(f"{row},Gericht {i},x" for i, row in enumerate(rows[1:]))]
    monkeypatch.setattr(module, "TABLE", write("\n".join(text)))
    found = names_of(["pizza"])
    assert found["names"]["de"] == {"pizza": f"Gericht {FOOD101.index('pizza')}"}
    assert found["names_from"]["de"] == "vit-food101"


def test_what_falls_back_is_counted_by_language():
    full = {"en": {"a": "A", "b": "B"}}
    assert fallback_line(full, 2) is None
    line = fallback_line({**full, "ko": {"a": "가"}}, 2)
    assert line.startswith("names: labels without one: 1 of 2 in ko: they are shown as they read")
    assert "none of 2 labels" in fallback_line({}, 2)
    assert "display_names" in line and "\n" not in line


# ---- a file of the user's -----------------------------------------------------------------------


def test_a_file_adds_a_language_and_wins_over_the_table(write):
    found = names_of(LABELS, write(OWN))
    assert found["names"]["de"]["cheesecake"] == "Käsekuchen"
    assert found["names"]["ko"]["cheesecake"] == "치즈케이크"  # the table's stay
    assert found["names_from"] == {"en": "vit-food101", "ko": "vit-food101", "de": "display_names"}
    found = names_of(LABELS, write(OWN.replace("label,de", "label,en")))
    assert found["names"]["en"]["cheesecake"] == "Käsekuchen"
    assert found["names_from"] == {"en": "display_names", "ko": "vit-food101"}


@pytest.mark.parametrize(
    "text",
    [
        OWN.encode("utf-8-sig"),
        OWN.replace(",", ";"),
        OWN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"),
        unicodedata.normalize("NFD", OWN),
        OWN.replace("label,de", "Label , de ").replace("\n", ",,\n") + ",,,\n\n",  # a spreadsheet's
        OWN.replace("Käseplatte", '" Käseplatte"').rstrip("\n"),
        "label,note,de\npizza,,Pizza\ncheese_plate,x,Käseplatte\ncheesecake,,Käsekuchen\n",
    ],
)
def test_every_way_to_save_it_reads_the_same(write, text):
    assert read_names(write(text)) == read_names(write(OWN, "plain.csv"))


def test_a_name_with_a_comma(write):
    text = 'label,en\npizza,"Pizza, plain"\n'
    assert read_names(write(text)) == {"en": {"pizza": "Pizza, plain"}}
    assert read_names(write("label;en\npizza;Pizza, plain\n"))["en"] == {"pizza": "Pizza, plain"}


BAD = {
    "empty file": ("", "begins with '': give a CSV file"),
    "no header": ("pizza,Pizza\n", "begins with 'pizza,Pizza': give a CSV file in UTF-8 whose"),
    "no language": ("label,note\npizza,x\n", "has no column with names"),
    "a language in words": ("label,English\npizza,P\n", "the column 'English': give a language by"),
    "a language twice": ("label,en,en\npizza,P,Q\n", "has the column en twice"),
    "no rows": ("label,en\n", "has no row below its header"),
    "no label": ("label,en\n,Pizza\n", "line 2 has no label"),
    "a label twice": ("label,en\npizza,P\npizza,Q\n", "line 3 has the label pizza again"),
    "no name": ("label,en\npizza, \n", "line 2 (pizza) has no name in en: give one"),
    "no cell": ("label,en,ko\npizza,Pizza\n", "line 2 (pizza) has no name in ko"),
    "a name twice": ("label,en\na,P\nb,P\n", "line 3: a and b are both P in en"),
    "a comma": ("label,en\na,P, plain\n", "line 2 has more cells than the header: quote"),
    "below no header": ("label,,en\na,x,P\n", "line 2 has more cells than the header"),
    "a line break": ('label,en\na,"P\nQ"\n', "holds a line break"),
    "an escape": ("label,en\na,P\x1b[2J\n", "holds a line break or control character"),
    "an open quote": ('label,en\na,"P\n', "line 2: unexpected end of data: mend its quotes"),
    "another encoding": ("label,de\na,Käse\n".encode("latin-1"), "is not UTF-8: save it as CSV"),
    "Excel's Unicode text": ("label,de\na,b\n".encode("utf-16"), "is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line_with_the_cure(write, case):
    text, said = BAD[case]
    with pytest.raises(UserError) as error:
        read_names(write(text))
    message = str(error.value)
    assert said in message and "\n" not in message
    assert message.startswith("display_names ") and "names.csv" in message


def test_labels_that_are_not_those_of_the_network(write):
    def refused(text: str) -> str:
        with pytest.raises(UserError) as error:
            names_of(LABELS, write(text))
        return str(error.value)

    unknown = refused(OWN + "piza,Pitza\n")
    assert "names piza, and no label is called so: did you mean pizza?" in unknown
    assert "zzz, yyy, xxx and 1 more" in refused(OWN + "zzz,1\nyyy,2\nxxx,3\nwww,4\n")
    missing = refused("label,de\npizza,Pizza\n")
    assert "no row for 2 of 3 labels (cheese_plate, cheesecake): add one for each" in missing


def test_a_file_that_is_not_there(write, tmp_path, monkeypatch):
    write(OWN)
    with pytest.raises(UserError, match=r"No such file.*did you mean .*names.csv"):
        read_names(str(tmp_path / "nams.csv"))
    with pytest.raises(UserError, match="Is a directory"):
        read_names(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_names("~/names.csv")["de"]["pizza"] == "Pizza"
