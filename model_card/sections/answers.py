"""What the card says of `abstain`, `coverage` and `explain`: only what this model can answer."""

from collections.abc import Collection, Mapping

CODE = "food_answers.py"  # the uploaded file that answers
EXPLAINING = "food_explain.py"  # the one that explains an answer
# How the classes of transformers whose forward pass that file knows begin.
TRANSFORMERS = ("ViTForImage", "ViTMSNForImage", "DeiTForImage")


def words(
    thresholds: Mapping[str, float | None] | None,
    sets: Mapping[str, float] | None,
    code: Collection[str],
) -> dict[str, str]:
    """Write the options of the example and the values that they take; "" for what is not there.

    Args:
        thresholds: accuracy -> least probability of an answer, null: none keeps it.
        sets: coverage -> least probability of a label in the set.
        code: names of the released files of code; older ones cannot answer.
    """
    if CODE not in code:
        thresholds = sets = None
    kept = [key for key, least in (thresholds or {}).items() if least is not None]
    covered = sorted(sets or {}, key=float)
    options = []
    if kept:
        options.append("abstain=True" if "0.95" in kept else f"abstain={kept[-1]}")
    if covered:
        options.append(f"coverage={'0.9' if '0.9' in covered else covered[-1]}")
    return {
        "answer_options": ", ".join(options),
        "abstain_values": ", ".join(f"`{key}`" for key in kept),
        "coverage_values": f"`{covered[0]}` to `{covered[-1]}`" if covered else "",
    }


def explained_by(architecture: str, code: Collection[str]) -> str:
    """Name the method by which the released code explains an answer; "" where it cannot.

    Args:
        architecture: the model's class in transformers.
        code: names of the released files of code.
    """
    if EXPLAINING not in code:
        return ""
    if architecture.startswith(TRANSFORMERS):
        return "AttnLRP, arXiv:2402.05602"
    return "Grad-CAM, arXiv:1610.02391; refused where the last layer is no grid"
