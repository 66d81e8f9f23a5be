"""The block about pictures without food: how much real food is refused, and what is not told by it."""

from typing import Any

from model_card import checks
from model_card.words import many, percent, span, table


class NotFood:
    """What was promised of the food that is refused, and what the test images gave."""

    key, title, required = "not_food", "Not food", False
    check = staticmethod(
        checks.fields(
            score=checks.one_of("mahalanobis"),
            n_fitted=checks.positive,
            n_held_out=checks.positive,
            shares=checks.rows(
                promised=checks.share,
                threshold=checks.amount,
                refused=checks.share,
                interval=checks.interval,
            ),
        )
    )

    def markdown(self, value: dict[str, Any], n: int) -> str:
        """Write what is measured, a table of promised and measured shares, and the limits."""
        rows = [
            (
                f"{100 * row['promised']:g} %",
                f"{row['threshold']:.1f}",
                f"{percent(row['refused'], n)} ({span(row['interval'], n)})",
            )
            for row in value["shares"]
        ]
        head = ("Food refused, promised", "Distance above", "Test images refused")
        return (
            "With `not_food=True` the food pipeline says of a picture whether it is farther from the "
            "training images than 95 % of food is: by the distance of the model's features from the "
            "nearest dish (Mahalanobis, arXiv:1807.03888; `not_food.safetensors`), fitted on "
            f"{many(value['n_fitted'], 'training image')}, its thresholds on "
            f"{many(value['n_held_out'], 'selection image')}. `not_food=0.01` refuses less food.\n\n"
            f"{table(head, rows)}\n\n"
            f"On {many(n, 'test image')}, all of food; in brackets 95 % intervals. How much of what is no "
            "food is found depends on what it is, and no number is given for it: drawings and plain "
            "textures are easy, photographs of kitchens, packages and people at a table are not. **A dish "
            "that the model does not know is not recognised as unknown**: it gets the name of another one "
            "(the best of eight scores that were tried tells such dishes apart with an AUROC of 0.72 on "
            "average, where a coin has 0.5)."
        )
