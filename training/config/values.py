"""Turn what a file or a command line says of a key into a value of the key's type, or say what to give."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from training.common.arguments import Key
from training.common.errors import UserError

TRUE = ("true", "yes", "on", "1", "t", "y")
FALSE = ("false", "no", "off", "0", "f", "n")

# A number as JSON or Python writes it: 3, -0.5, .5, 1e-6.
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a mapping, as '{\"name\": 1e-6}'",
    str: "a text",
}


@dataclass(frozen=True)
class Kind:
    """What the values of a key are.

    Attributes:
        type: bool, int, float, str or dict; of a list, that of its elements.
        is_list: several values are accepted.
        is_one: one value is accepted; a list of one where it is not.
        is_path: of a dict: the path of a JSON file is accepted in its place.
        words: what to give, for a message.
    """

    type: type
    is_list: bool = False
    is_one: bool = True
    is_path: bool = False
    words: str = ""


# Keys of a mapping in whose place transformers reads a file.
_PATHS = {"fsdp_config", "deepspeed", "accelerator_config"}


def kinds_of(classes: Sequence[type]) -> dict[str, Kind]:
    """Map the name of every key in some classes of arguments to the kind of its values."""
    found = {}
    for each in classes:
        hints = get_type_hints(each)
        for field in dataclasses.fields(each):
            if field.init:
                found[field.name] = _kind(field.name, hints[field.name], field.metadata.get("key"))
    return found


def _kind(name: str, hint: Any, facts: Key | None) -> Kind:
    union = get_origin(hint) in (Union, types.UnionType)
    options = [each for each in (get_args(hint) if union else (hint,)) if each is not type(None)]
    lists = [each for each in options if get_origin(each) is list]
    plain = {get_origin(each) or each for each in options} - {list}
    if name == "fsdp":  # `str | None` there, and a switch
        return Kind(str, words="true or false")
    if lists and (not plain or str not in plain):
        kind = Kind(get_args(lists[0])[0], is_list=True, is_one=False)
    elif dict in plain:
        kind = Kind(dict, is_path=name in _PATHS)
    elif str in plain or Literal in plain:
        kind = Kind(str, is_list=bool(lists) and name.endswith("_modules"))
    else:
        (one,) = plain
        kind = Kind(one if one in WORDS else str)
    return dataclasses.replace(kind, words=_words(kind.type, facts))


def _words(type_: type, facts: Key | None) -> str:
    said = "" if facts is None else facts.words()
    if not said:
        return WORDS[type_]
    if type_ in (int, float) and facts.give is None:  # "at least 1" says nothing of "four"
        said = f"{WORDS[type_]}, {said}"
    return said + facts.note


def convert(key: str, kind: Kind, given: Any) -> Any:
    """Convert a value of a file, or the words of a command line.

    >>> convert("learning_rate", Kind(float, words="a number"), "1e-4")
    0.0001

    Args:
        key: the name of the key, for the message.
        given: a text, a list, a mapping, or a bool or number as YAML reads them.

    Raises:
        UserError: it is of another type, or not finite: "seed is 'three': give a whole number".
    """
    items = given if isinstance(given, list) else [given]
    if not items:
        raise UserError(f"{key} has no value: give {kind.words}")
    if isinstance(given, list) and not kind.is_list:
        if len(items) > 1:
            raise UserError(f"{key} is {given}: give {kind.words}, and only one")
    values = [_one(key, kind, each) for each in items]
    if key == "fsdp" and values[0].lower() in (*TRUE, *FALSE):
        return values[0].lower() in TRUE
    if kind.is_list and (not kind.is_one or len(values) > 1):
        return values
    return values[0]


def _one(key: str, kind: Kind, given: Any) -> Any:
    found = None if given is None else _READERS[kind.type](given, kind)
    if found is None:
        raise UserError(f"{key} is {given!r}: give {kind.words}")
    return found


def _bool(given: Any, _kind: Kind) -> bool | None:
    word = str(given).lower()
    return True if word in TRUE else False if word in FALSE else None


def _float(given: Any, _kind: Kind) -> float | None:
    if isinstance(given, (bool, dict, list)):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _int(given: Any, kind: Kind) -> int | None:
    try:
        return int(given) if isinstance(given, str) else _whole(_float(given, kind))
    except ValueError:  # 1e3 and 10.0 are whole numbers, 1.5 is none
        return _whole(_float(given, kind))


def _whole(number: float | None) -> int | None:
    return None if number is None or not number.is_integer() else int(number)


def _str(given: Any, _kind: Kind) -> str | None:
    return None if isinstance(given, (dict, list)) else str(given)


def _dict(given: Any, kind: Kind) -> Any:
    if isinstance(given, str):
        if kind.is_path and not given.lstrip().startswith("{"):
            return given
        try:
            given = json.loads(given)
        except json.JSONDecodeError:
            return None
    return with_numbers(given) if isinstance(given, dict) else None


_READERS = {bool: _bool, int: _int, float: _float, str: _str, dict: _dict}


def with_numbers(value: Any) -> Any:
    """Read the texts inside a mapping or list that are numbers as numbers: "1e-6", not "1e-6 m".

    A number that would not be finite, as 12e9999, stays the text that it is.
    """
    if isinstance(value, dict):
        return {key: with_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_numbers(each) for each in value]
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return value
    try:
        return int(value)
    except ValueError:
        return float(value) if math.isfinite(float(value)) else value
