"""From facts to the text of the card: a pure function, the same facts give the same bytes."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2

from model_card.checks import SHA256
from model_card.facts import CardFacts
from model_card.front_matter import front_matter, license_of
from model_card.sections import answers, languages, results, setup
from model_card.sections.blocks import BLOCKS
from model_card.sections.not_food import NotFood
from model_card.words import count, hide_paths, percent, points, span, versions

PLACEHOLDER = "user/repo"


def render_card(
    facts: CardFacts,
    *,
    repo_id: str | None = None,
    tag: str | None = None,
    code_sha256: Mapping[str, str] | None = None,
    tried_with: Sequence[str] = (),
    names: Mapping[str, Mapping[str, str]] | None = None,
    names_from: Mapping[str, str] | None = None,
    thresholds: Mapping[str, float | None] | None = None,
    sets: Mapping[str, float] | None = None,
) -> str:
    """Write the Markdown of README.md.

    Args:
        repo_id: "user/name" on the Hub; None: the examples show "user/repo" and say so.
        tag: Git tag (or commit) that the examples pin; None: they follow `main`.
        code_sha256: SHA-256 of each released file of code, by its name; None leaves them out.
        tried_with: versions of transformers that the released code was tried with.
        names: what labels are called, by language and label; None: nothing but their labels is known.
        names_from: where a language's names come from: "vit-food101", its table, or "display_names".
        thresholds, sets: of the model's config, what `abstain` and `coverage` are answered by; None:
            the model has none.

    Raises:
        ValueError: a digest is not 64 hexadecimal digits.
    """
    for name, digest in (code_sha256 or {}).items():
        if not SHA256.fullmatch(digest):
            raise ValueError(f"code_sha256 of {name} is {digest!r}, not 64 hexadecimal digits")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    source = files("model_card").joinpath("template.md").read_text(encoding="utf-8")
    context = _usage(repo_id, tag) | _text(facts) | _scoring(facts) | _tables(facts)
    english = (names or {}).get("en", {})
    sections = {key: languages.with_names(rows, english) for key, rows in facts.sections.items()}
    context["blocks"] = [
        {"title": block.title, "text": block.markdown(sections[block.key], facts.n)}
        for block in BLOCKS
        if block.key in facts.sections
    ]
    context["tells_not_food"] = NotFood.key in facts.sections
    context["code_sha256"] = code_sha256 or {}
    context["tried_with"] = ", ".join(tried_with)
    context["explained_by"] = answers.explained_by(facts.architecture, code_sha256 or {})
    context |= answers.words(thresholds, sets, code_sha256 or {})
    context |= languages.sentences(facts.label_names, names or {}, names_from or {})
    context["front_matter"] = front_matter(
        facts,
        model_name=repo_id.split("/")[-1] if repo_id else hide_paths(facts.recipe_name),
        dataset_name=_dataset_name(facts),
    )
    return environment.from_string(source).render(context)


def _kind(facts: CardFacts) -> str:
    """Say which notes on the data apply: "food101", "hub" (another data set), "sample" or "local"."""
    is_food101 = facts.source == "hub" and facts.dataset == "ethz/food101"
    return "food101" if is_food101 else facts.source


def _dataset_name(facts: CardFacts) -> str:
    """Name the data set for people."""
    names = {"food101": "Food-101", "sample": "the drawn sample of vit-food101"}
    return names.get(_kind(facts), hide_paths(facts.dataset))


def _usage(repo_id: str | None, tag: str | None) -> dict[str, object]:
    """Give the template's examples their values: placeholder, repo_id, revision and its comment."""
    return {
        "placeholder": repo_id is None,
        "repo_id": repo_id or PLACEHOLDER,
        "stock_revision": f', revision="{tag}"' if tag else "",
        "revision": tag or "main",
        "revision_comment": "" if tag else "  # better: the commit that you have read",
    }


def _text(facts: CardFacts) -> dict[str, object]:
    """Compute the words and sentences of the template, by the names that it uses."""
    top1, ece = facts.metric("top1"), facts.metric("ece")
    interval = span(top1.interval, facts.n)
    return {
        "kind": _kind(facts),
        "title": _title(facts),
        "summary": _summary(facts),
        "headline": (
            f"{top1.name} on {count(facts.n)} test images: "
            f"**{percent(top1.value, facts.n)}** ({facts.interval_method}: {interval})."
        ),
        "split": facts.eval_split,
        "dataset": facts.dataset,
        "dataset_argument": _dataset_argument(facts),
        "interval_method": facts.interval_method,
        "num_labels": len(facts.label_names),
        "ece": points(ece.value, facts.n) if ece else None,
        "project_version": dict(facts.versions)["vit-food101"],
        "versions": versions(facts.versions),
        "command": hide_paths(facts.command),
        "reproduce_note": _reproduce_note(facts),
        "identical_note": setup.identical_note(facts),
        "licence_note": _licence_note(facts),
    }


def _scoring(facts: CardFacts) -> dict[str, object]:
    """Say how the images were scored and how the checkpoint was chosen, by the template's names."""
    extra = setup.preprocessing_extra(facts)
    batch = f"in batches of {count(facts.eval_batch_size)}"
    processes = f"in {facts.eval_world_size} processes, {batch} each"
    return {
        "n": count(facts.n),
        "eval_left_out": count(facts.eval_left_out) if facts.eval_left_out else "none",
        "decoder": facts.decoder,
        "resample": facts.resample,
        "eval_size": f"{facts.eval_height} x {facts.eval_width}",
        "preprocessing_extra": f" ({extra})" if extra else "",
        "eval_precision": facts.eval_precision,
        "eval_device": facts.eval_device,
        "eval_batch": batch if facts.eval_world_size == 1 else processes,
        "choice": setup.choice(facts),
    }


def _tables(facts: CardFacts) -> dict[str, str]:
    """Write the tables that are always there, by the template's names."""
    return {
        "metrics_table": results.metrics(facts),
        "check_table": setup.reproduction(facts),
        "training_table": setup.training(facts),
        "data_table": setup.data(facts),
    }


def _title(facts: CardFacts) -> str:
    """Write the heading: family of the network, how it was trained, on what."""
    family = facts.architecture.split("ForImageClassification")[0]
    if facts.is_probe:
        return f"Linear probe of {family} on {_dataset_name(facts)}"
    return f"{family} {'fine-tuned' if facts.base_model else 'trained'} on {_dataset_name(facts)}"


def _summary(facts: CardFacts) -> str:
    """Write the first sentence: where the weights come from and what they are for."""
    if facts.base_model:
        how = (
            "with a linear head trained on its frozen features" if facts.is_probe else "fine-tuned"
        )
        origin = f"`{hide_paths(facts.base_model)}`, {how}"
    else:
        parameters = f"{count(facts.num_parameters)} parameters"
        origin = f"A `{facts.architecture}` with {parameters}, trained from scratch"
    if facts.source == "sample":
        return f"{origin} on drawn pictures: a demonstration, and no recogniser of real food."
    return f"{origin} to name the dish in a photograph, out of {len(facts.label_names)} dishes."


def _dataset_argument(facts: CardFacts) -> str:
    """Write the value of `food101 evaluate --dataset`; a local folder's place is left open."""
    if facts.source == "local":
        return f"PATH/{hide_paths(facts.dataset).removeprefix('.../')}"
    return facts.dataset


def _reproduce_note(facts: CardFacts) -> str:
    """Write what `food101 evaluate` needs of the data."""
    if facts.source == "sample":
        return "The pictures are drawn anew, the same on every machine; the network is not needed."
    if facts.source == "local":
        return "It needs the folder that this model was tested on, which is not published here."
    return "It downloads the data set, and reports the revision that it has read."


def _licence_note(facts: CardFacts) -> str:
    """Write the section on the licence of weights and code."""
    if facts.base_model is None:
        return "The weights were trained from scratch and are under Apache-2.0, as is the code."
    base = f"`{hide_paths(facts.base_model)}`"
    if facts.base_license is None:
        return (
            f"No licence is recorded for the base model {base}, so these weights carry `unknown`: "
            "ask its authors before you use them.\nThe pipeline's code is under Apache-2.0."
        )
    return (
        f"The weights carry the licence of the base model {base}: `{license_of(facts)}`.\n"
        "The pipeline's code is under Apache-2.0.\n"
        "The licence of the data is a question of its own: see *Data*."
    )
