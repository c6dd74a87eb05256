"""The two systems that validation picks, and what the test split says of them."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.prose import pick_notes, picked_sentence


def test_the_best_expanded_system_stands_beside_the_strongest_late_fusion() -> None:
    """Both are picked on validation, whatever the test split says."""
    info = {"title": "accuracy", "percent": True, "lower_is_better": False}
    loss = {"title": "log-loss", "percent": False, "lower_is_better": True}

    def line(model: str, validation: float, *averages: str, loss: float = 1.0, **gain: Any) -> dict[str, Any]:
        settings = {} if averages else {"model": model}
        found = {"accuracy": validation, "log_loss": loss}
        return {"seeds": [1, 2], "settings": settings, "averages": list(averages), "validation": found, "gain": gain}

    def measured(value: float, low: float, high: float) -> dict[str, Any]:
        one = {"value": value, "low": low, "high": high}
        return {"seeds": [0, 1], "test": {"accuracy": one, "log_loss": {"value": -value, "low": -high, "high": -low}}}

    numbers = {
        "metrics": {"accuracy": info, "log_loss": loss},
        "experiments": {
            "vision": line("vision", 0.99),
            "text": line("text", 0.99),
            "apart": line("", 0.8, "vision", "text", loss=0.5),
            "concat": line("late-fusion", 0.7),
            "mmbt": line("mmbt", 0.95),  # no late fusion
            "me-vision": line("me-vision", 0.6, loss=0.3, apart=measured(0.2, 0.1, 0.3)),
            "mean": line("", 0.9, "me-vision", "text", apart=measured(0.03, 0.01, 0.05)),
        },
    }
    assert picked_sentence(numbers) == (
        "Picked by accuracy on the validation split, the best expanded system is **mean** and the strongest late "
        "fusion **apart**. On the test split, with seeds 0, 1, mean minus apart: +3.0 points of accuracy; the 95 % "
        "interval [1.0, 5.0] leaves 0 out. -0.030 in log-loss; the 95 % interval [-0.050, -0.010] leaves 0 out."
    )
    assert picked_sentence(numbers, "log_loss").startswith(
        "Picked by log-loss on the validation split, the best expanded system is **me-vision** and the strongest late "
        "fusion **apart**. On the test split, with seeds 0, 1, me-vision minus apart: +20.0 points of accuracy; "
    )
    command = "`mi2p predict experiments/me-vision/seed-1 experiments/text/seed-1 --data new.csv` in the table's folder"
    for kept, words in ((True, ""), (False, "Trained with `--set keep_weights=true`, ")):
        notes = pick_notes({**numbers, "smoke": False, "settings": {"keep_weights": kept}})
        assert notes[:2] == [picked_sentence(numbers), picked_sentence(numbers, "log_loss")]
        assert notes[2:] == [f"{words}{command} answers with mean."]
    assert pick_notes({**numbers, "smoke": True}) == []
    for missing in ({"apart"}, {"mean", "me-vision"}):  # the rival is compared with nothing; nothing is expanded
        fewer = {name: one for name, one in numbers["experiments"].items() if name not in missing}
        assert picked_sentence({**numbers, "experiments": fewer}) == ""
