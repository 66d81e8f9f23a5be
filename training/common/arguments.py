"""State a key of a recipe once, as a field: default, help text, range and words for the card.

    @dataclass
    class LossArguments:
        gce_q: float = key(0.7, "q of the generalised cross-entropy", at_least=0.001, at_most=1)

        def __post_init__(self) -> None:
            check_ranges(self)  # UserError: gce_q is 2.0: give a number from 0.001 to 1

The parser, `food101 train --help`, the check and the card read the same field. Only the standard
library is imported, so that a class of arguments can be read without waiting for torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from training.common.errors import UserError


@dataclass(frozen=True)
class Key:
    """The facts of a recipe's key beside its name, type and default.

    Attributes:
        help: what the value means, for `--help`.
        at_least, above, at_most, below: limits of a number, or of every number in a list; a number
            with a limit must be finite. None is no limit.
        choices: the only texts that are accepted; None accepts any.
        give: what a good value is, in words; None makes the words from the limits or choices.
        note: added to `give`, as ", or leave it out" or " (0.1 to 0.3 is usual)".
        card: how a model card says that the key is not at its default, with {} for the value; None
            says nothing.
        usual: whether `food101 train --help` shows it, and not only `--help_all`.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    give: str | None = None
    note: str = ""
    card: str | None = None
    usual: bool = False

    @property
    def is_limited(self) -> bool:
        """Tell whether there is a limit that numbers are compared with."""
        limits = (self.at_least, self.above, self.at_most, self.below)
        return any(limit is not None for limit in limits)

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is within the limits and choices.

        A list is if all of its elements are; None, which is a key that is not set, always is.
        """
        if value is None:
            return True
        if isinstance(value, (list, tuple)):
            return all(self.accepts(each) for each in value)
        if self.choices is not None:
            return value in self.choices
        return not self.is_limited or self._is_within(value)

    def _is_within(self, number: float) -> bool:
        # Written so that NaN, which compares as false, is refused.
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def words(self) -> str:
        """Say what a good value is: "above 0 to 1", "at least 1", "stop or skip"; "" for anything."""
        if self.give is not None:
            return self.give
        if self.choices is not None:
            *most, last = self.choices
            return f"{', '.join(most)} or {last}" if most else last
        low = _number(self.at_least) if self.above is None else f"above {_number(self.above)}"
        high = _number(self.at_most) if self.below is None else f"below {_number(self.below)}"
        if low and high:
            return f"{low} to {high}"
        if self.at_least is not None:
            return f"at least {low}"
        return low or high


def _number(limit: float | None) -> str:
    return "" if limit is None else f"{limit:,g}" if abs(limit) < 1e6 else f"{limit:,.0f}"


def key(default: Any, help: str, **facts: Any) -> Any:
    """Make the dataclass field of a recipe's key.

    >>> drop_path: float = key(0.0, "rate of the last block", at_least=0, below=1)

    Args:
        default: the value of a recipe without the key; a list is copied for each instance.
        help: what the value means. It stands in the metadata under "help" as well, where
            transformers' HfArgumentParser looks for it.
        facts: the other attributes of `Key`.
    """
    metadata = {"help": help, "key": Key(help, **facts)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def keys_of(arguments: Any) -> dict[str, Key]:
    """Map the name of each key of a class of arguments, or of an instance, to its `Key`, in order."""
    fields = dataclasses.fields(arguments)
    return {each.name: each.metadata["key"] for each in fields if "key" in each.metadata}


def default_of(each: dataclasses.Field) -> Any:
    """Return the default of a field; None where it has none."""
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return None if each.default is dataclasses.MISSING else each.default


def check_ranges(arguments: Any) -> None:
    """Refuse an instance of a class of arguments with a value out of its key's range.

    Raises:
        UserError: for the first such value, as "drop_path is 1.0: give 0 to below 1".
    """
    for name, facts in keys_of(arguments).items():
        value = getattr(arguments, name)
        if not facts.accepts(value):
            shown = repr(value) if isinstance(value, str) else value
            raise UserError(f"{name} is {shown}: give {facts.words()}{facts.note}")


def cards_of(arguments: Any) -> list[str]:
    """Say in words for a card which keys of an instance are not at their default.

    >>> cards_of(ExtensionArguments(drop_path=0.1))
    ["stochastic depth up to 0.1"]
    """
    said = []
    for each in dataclasses.fields(arguments):
        facts, value = each.metadata.get("key"), getattr(arguments, each.name)
        if facts is not None and facts.card is not None and value != default_of(each):
            said.append(facts.card.format(f"{value:g}" if isinstance(value, float) else value))
    return said
