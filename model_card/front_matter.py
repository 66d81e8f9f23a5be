"""The card's YAML: built from facts, and checked as the Hub would, but offline."""

import math
import re
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from model_card.facts import CardFacts

# Licence ids that the Hub knows, as far as base models and recipes here need them.
# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear bsl-1.0 cc cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 "
    "gemma gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa openrail osl-3.0 "
    "postgresql unknown unlicense wtfpl zlib".split()
)

# Metric types that are also names of metrics on the Hub, which the card's `metrics` lists.
NAMED_METRICS = frozenset({"accuracy", "f1", "precision", "recall", "roc_auc", "brier_score"})

HOME = re.compile(r"(?<![\w.])/(?:home|Users)/\w|(?<![\w./])/root/|[A-Za-z]:\\Users\\")
TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")
BLOCK = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
LABEL_ROW = re.compile(r"^\| `.*$", re.MULTILINE)  # a row of a table of dishes; one may be "nan"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def license_of(facts: CardFacts) -> str:
    """Find the Hub's id of the licence of the weights: the base model's, or this project's own."""
    if facts.base_model is None:
        return "apache-2.0"
    return facts.base_license.lower() if facts.base_license else "unknown"


def front_matter(facts: CardFacts, *, model_name: str, dataset_name: str) -> str:
    """Write the YAML between the two `---` lines, without them.

    Args:
        model_name: name of the model in its model-index.
        dataset_name: name of the data set there, for people.
    """
    license_id = license_of(facts)
    known = license_id in LICENSES
    family = facts.architecture.split("ForImageClassification")[0].lower()
    data = ModelCardData(
        license=license_id if known else "other",
        license_name=None if known else license_id,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["image-classification", family, "food", "custom-pipeline"],
        datasets=[facts.dataset] if facts.source == "hub" else None,
        base_model=facts.base_model if facts.base_revision else None,  # not a folder's name
        metrics=[m.hub_type for m in facts.metrics if m.hub_type in NAMED_METRICS] or None,
        model_name=model_name,
        eval_results=_eval_results(facts, dataset_name),
    )
    return data.to_yaml()


def _eval_results(facts: CardFacts, dataset_name: str) -> list[EvalResult]:
    """Make one EvalResult a metric; data that are not on the Hub go by their fingerprint."""
    on_hub = facts.source == "hub"
    where = {
        "task_type": "image-classification",
        "task_name": "Image classification",
        "dataset_type": facts.dataset if on_hub else f"vit-food101/{facts.source}",
        "dataset_name": dataset_name,
        "dataset_split": facts.eval_split,
        "dataset_revision": facts.eval_revision or facts.eval_fingerprint,
        "dataset_args": None if on_hub else {"content_sha256": facts.eval_fingerprint},
    }
    return [
        EvalResult(
            metric_type=metric.hub_type,
            metric_name=metric.name if metric.is_share else f"{metric.name} ({metric.unit})",
            metric_value=metric.value,
            **where,
        )
        for metric in facts.metrics
    ]


def validate_card(text: str) -> None:
    """Check the text of a card as far as that can be done offline.

    Raises:
        ValueError: one line that lists everything that is wrong.
    """
    problems = [*_body_problems(text)]
    block = BLOCK.match(text)
    if block is None:
        problems.append("there is no front matter between two lines of ---")
    elif "!!python" in block[1]:
        problems.append("the front matter holds a Python object instead of a plain value")
    else:
        problems.extend(_front_matter_problems(block[1]))
    if problems:
        raise ValueError("the model card is not fit to publish: " + "; ".join(problems))


def _front_matter_problems(block: str) -> list[str]:
    """List what is wrong with the YAML."""
    try:
        data = yaml.safe_load(block)
    except yaml.YAMLError as error:
        return [f"the front matter is not YAML ({' '.join(str(error).split())})"]
    if not isinstance(data, dict):
        return ["the front matter is not a list of keys and values"]
    problems = [
        f"{key} is {data.get(key)!r} and not {value!r}"
        for key, value in (
            ("pipeline_tag", "image-classification"),
            ("library_name", "transformers"),
        )
        if data.get(key) != value
    ]
    license_id, license_name = data.get("license"), data.get("license_name")
    if license_id == "other":
        if not isinstance(license_name, str) or not license_name.strip():
            problems.append("license is 'other' without a license_name")
    elif not isinstance(license_id, str) or license_id not in LICENSES:
        problems.append(f"license is {license_id!r}, which is no licence id of the Hub")
    return problems + _model_index_problems(data)


def _model_index_problems(data: dict[str, Any]) -> list[str]:
    """List what is wrong with the results in the parsed YAML."""
    try:
        results = ModelCardData(**data).eval_results
    except (ValueError, TypeError, AttributeError) as error:
        return [f"model-index cannot be read ({error})"]
    if not results:
        return ["model-index has no result"]
    problems = []
    for result in results:
        name = result.metric_name or result.metric_type
        value = result.metric_value
        if not isinstance(value, float) or not math.isfinite(value):
            problems.append(f"model-index: {name} is {value!r} and not a number with a point")
        for key in ("dataset_split", "dataset_revision"):
            if not isinstance(getattr(result, key), str) or not getattr(result, key).strip():
                problems.append(f"model-index: {name} has no {key}")
    return problems


def _body_problems(text: str) -> list[str]:
    """List what no card may say: gaps, home folders, tokens; `text` is the whole card."""
    problems = [f"section {title!r} is empty" for title in _empty_sections(BLOCK.sub("", text))]
    if "more information needed" in text.lower():
        problems.append("it says 'More information needed'")
    without_labels = LABEL_ROW.sub(lambda row: re.sub(r"`[^`]*`", "", row[0]), text)
    for word in re.findall(r"\b(None|nan|NaN)\b", without_labels):
        problems.append(f"it says {word!r} where a value belongs")
    if HOME.search(text):
        problems.append("it holds the path of a home folder")
    if TOKEN.search(text):
        problems.append("it holds what looks like a Hub token (hf_...)")
    return problems


def _empty_sections(body: str) -> list[str]:
    """List the headings with nothing below them; a deeper heading counts as something."""
    body = FENCE.sub("(code)", body)  # a comment in code is no heading
    lines = [line for line in body.splitlines() if line.strip()]
    depths = [len(line) - len(line.lstrip("#")) for line in lines]
    following = [*depths[1:], 1]
    return [
        line.lstrip("# ")
        for line, depth, following_depth in zip(lines, depths, following, strict=True)
        if depth and following_depth and following_depth <= depth
    ]
