"""Read the YAML file of a recipe, with numbers as everybody writes them."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from training.common.errors import UserError
from training.config.packaged import find_recipe


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, with the floats of YAML 1.2: 1e-6 is a number."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """Read a number; 12e45678, most likely a name, stays the text that it is."""
        number = super().construct_yaml_float(node)
        return node.value if "e" in node.value.lower() and math.isinf(number) else number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
# The first characters of a number; a later resolver for a character comes after the older ones.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_recipe(name: str) -> dict[str, tuple[Any, Any]]:
    """Read the file of a recipe.

    What is written is a text, or a list of texts, where the value is not a mapping or null: a text
    for a key of texts is not what YAML takes it for. `model_revision: 0123456` is no octal number,
    and `eval_strategy: no` is not false.

    Args:
        name: a packaged name or a path.

    Returns:
        Key -> (its value as YAML reads it, the value as it is written), unchecked; {} of an empty
        file. Hyphens in a key are underscores.

    Raises:
        UserError: there is no such file, it holds something other than `key: value` lines, or a key
            stands there twice.
    """
    path = find_recipe(name)
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            return {} if root is None else _pairs(loader, root, str(path))
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _pairs(loader: _Loader, root: yaml.Node, path: str) -> dict[str, tuple[Any, Any]]:
    if not isinstance(root, yaml.MappingNode):
        if loader.construct_document(root) is None:
            return {}
        raise UserError(f"{path} is not a recipe: it must be `key: value` lines")
    loader.flatten_mapping(root)  # `<<: *other`
    found = {}
    for key_node, node in root.value:
        key = str(loader.construct_object(key_node, deep=True)).replace("-", "_")
        if key in found:
            raise UserError(f"{key} stands in {path} twice: leave one of them out")
        value = loader.construct_object(node, deep=True)
        found[key] = (value, _written(node, value))
    return found


def _written(node: yaml.Node, value: Any) -> Any:
    if isinstance(node, yaml.ScalarNode) and value is not None:
        return node.value
    if isinstance(node, yaml.SequenceNode):
        items = zip(node.value, value, strict=True)
        return [_written(*item) for item in items]
    return value
