"""What is written from a set's numbers: the table, the sentences, the figure. Nothing is claimed that is not so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mi2p_inject.recipes.experiments.figure import draw_figure
from mi2p_inject.recipes.experiments.prose import gain_sentences, verdict
from mi2p_inject.recipes.experiments.report import markdown, show, significant
from mi2p_inject.recipes.metrics.metric_info import METRIC_INFO, describe_metrics
from mi2p_inject.recipes.metrics.probability_metrics import PROBABILITY_METRICS
from mi2p_inject.recipes.tasks import metric_names
from mi2p_inject.recipes.training.reading import mean_reading

Values = dict[str, list[float]]


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def report(gains: Values, ends: dict[str, tuple[float, float]], seeds: list[int], **more: Any) -> dict[str, Any]:
    """Two experiments, "alone" and "expanded", and the difference that the sentences are about."""
    means = {name: sum(values) / len(values) for name, values in gains.items()}
    gain = {name: interval(mean, *ends[name]) for name, mean in means.items()}

    def line(title: str, shift: float, **other: Any) -> dict[str, Any]:
        test = {name: interval(0.5 + shift * mean, 0.4, 0.6) for name, mean in means.items()}
        sd = {name: 0.01 for name in means if len(seeds) > 1}
        return {
            "title": title,
            "paper_title": "",
            "seeds": seeds,
            "test": test,
            "sd": sd,
            "validation": {},
            "gain": {},
            "over_baseline": {},
            "paper": {},
            **other,
        }

    compared = {"alone": {"seeds": seeds, "test": gain, "by_seed": gains}}
    return {
        "recipe": "small",
        "title": "Small",
        "smoke": False,
        "encoders": "tiny",
        "seeds": seeds,
        "data": {
            "name": "my.csv",
            "splits": {"train": 48, "test": 12},
            "groups": 60,
            "classes": ["a", "b"],
            "notes": [],
        },
        "metrics": describe_metrics(gains),
        "experiments": {"alone": line("resnet", 0), "expanded": line("ME resnet, reads bert", 1, gain=compared)},
        "baseline": None,
        "notes": ["A note of the set."],
        **more,
    }


def test_every_metric_has_a_title() -> None:
    for name in (*metric_names(), *PROBABILITY_METRICS):
        assert METRIC_INFO[name].title != name or name == "accuracy"
        assert METRIC_INFO[name].lower_is_better == (name in PROBABILITY_METRICS)


def test_markdown() -> None:
    gains = {"accuracy": [0.01, 0.03], "log_loss": [-0.2, -0.1]}
    text = markdown(report(gains, {"accuracy": (-0.01, 0.05), "log_loss": (-0.21, -0.09)}, [0, 1]))
    assert text.splitlines()[:10] == [
        "| experiment | system | accuracy | log-loss ↓ |",
        "|---|---|---|---|",
        "| alone | resnet | 50.0 ± 1.0 [40.0, 60.0] | 0.500 ± 0.010 [0.400, 0.600] |",
        "| expanded | ME resnet, reads bert | 52.0 ± 1.0 [40.0, 60.0] | 0.350 ± 0.010 [0.400, 0.600] |",
        "",
        "| difference | accuracy | log-loss ↓ |",
        "|---|---|---|",
        "| expanded minus alone | +2.0 [-1.0, 5.0] | **-0.150 [-0.210, -0.090]** |",
        "",
        "Small. On my.csv: 48 train / 12 test samples, 2 classes, 60 groups; encoders: tiny.",
    ]
    assert "Mean over seeds 0, 1 ± standard deviation" in text
    assert text.endswith("A note of the set.\n")
    assert "SMOKE" not in text
    assert "paper" not in text


def test_what_may_be_chosen_by_stands_beside() -> None:
    """The first metric and log-loss on the validation split, where the data have one."""
    numbers = report({"accuracy": [0.1], "log_loss": [-0.1]}, {"accuracy": (0.05, 0.15), "log_loss": (-1, 1)}, [3])
    numbers["experiments"]["expanded"]["validation"] = {"accuracy": 0.6251, "log_loss": 0.4}
    lines = markdown(numbers).splitlines()
    assert lines[0].endswith("| accuracy | log-loss ↓ | accuracy on validation | log-loss ↓ on validation |")
    assert lines[2].endswith("| 0.500 [0.400, 0.600] |  |  |")
    assert lines[3].endswith("| 62.5 | 0.400 |")


def test_the_papers_lines_and_figures_stand_beside() -> None:
    numbers = report({"accuracy": [0.1]}, {"accuracy": (0.05, 0.15)}, [3])
    numbers["experiments"]["alone"] |= {"paper_title": "ResNet-50", "paper": {"accuracy": 83.9}}
    lines = markdown(numbers).splitlines()
    assert lines[0] == "| experiment | system | accuracy | paper's line | paper's accuracy |"
    assert lines[2] == "| alone | resnet | 50.0 [40.0, 60.0] | ResNet-50 | 83.9 |"
    assert lines[3] == "| expanded | ME resnet, reads bert | 60.0 [40.0, 60.0] |  |  |"
    assert "**+10.0 [5.0, 15.0]**" in lines[7]
    assert "Seed 3 [95 %" in markdown(numbers)


def test_what_needs_no_model_stands_below() -> None:
    numbers = report({"accuracy": [0.1], "log_loss": [-0.1]}, {"accuracy": (0.05, 0.15), "log_loss": (-1, 1)}, [0])
    numbers["baseline"] = {"answer": "red", "test": {"accuracy": interval(0.45, 0.3, 0.6)}}
    for name, low in (("alone", -0.05), ("expanded", 0.02)):
        numbers["experiments"][name] |= {"over_baseline": {"accuracy": interval(0.1, low, 0.2)}, "paper_title": "X"}
    text = markdown(numbers)
    assert text.splitlines()[4] == "| trivial baseline | always red | 45.0 [30.0, 60.0] |  |  |"
    assert "Not surely better in accuracy than always answering red, by the paired 95 % interval: alone.\n" in text
    assert "In accuracy, minus the trivial baseline: alone +10.0 [-5.0, 20.0], expanded +10.0 [2.0, 20.0].\n" in text


def test_what_models_never_answer_and_do_not_beat_in_log_loss() -> None:
    numbers = report({"accuracy": [0.1], "log_loss": [-0.1]}, {"accuracy": (0.05, 0.15), "log_loss": (-1, 1)}, [0])
    numbers["baseline"] = {
        "answer": "red",
        "test": {"accuracy": interval(0.45, 0.3, 0.6), "log_loss": interval(0.6, 0.5, 0.7)},
    }
    for name, high in (("alone", 0.05), ("expanded", -0.01)):
        over = {"accuracy": interval(0.1, 0.05, 0.2), "log_loss": interval(-0.1, -0.2, high)}
        numbers["experiments"][name]["over_baseline"] = over
    numbers["experiments"]["alone"]["unanswered"] = ["b"]
    text = markdown(numbers)
    assert "| trivial baseline | always red | 45.0 [30.0, 60.0] | 0.600 [0.500, 0.700] |" in text
    assert (
        "Not surely better in log-loss than the classes' shares in training, by the paired 95 % interval: alone.\n"
        in text
    )
    assert "never answered on the test split, with at least one seed: alone (b).\n" in text
    assert "Not surely better in accuracy" not in text


def test_the_reading_check_stands_below_the_differences() -> None:
    def check(value: float, low: float, shuffled: float | None) -> dict[str, Any]:
        one = {"withheld": 0.6, "shuffled": shuffled, "worth": interval(value, low, value + 0.1)}
        return {"metric": "accuracy", "as_is": {"accuracy": 0.6 + value}, "modalities": {"text": one}}

    numbers = report({"accuracy": [0.1]}, {"accuracy": (0.05, 0.15)}, [0, 1])
    assert "reading check" not in markdown(numbers)
    numbers["experiments"]["expanded"]["reading"] = mean_reading([check(0.1, 0.02, 0.5), check(0.04, -0.02, 0.4)])
    head, _, line = markdown(numbers).splitlines()[9:12]
    assert head == "| reading check, validation | metric | as is | withheld | another sample's | worth, points |"
    assert line == ("| expanded: text | accuracy | 67.0 | 60.0 | 45.0 | +7.0, interval above 0 with 1 of 2 seeds |")
    assert mean_reading([check(0.1, 0.02, 0.5), check(0.1, 0.02, None)])["text"]["shuffled"] is None
    console = Console(width=120, record=True, file=io.StringIO())
    show(numbers, console)
    assert "+7.0, interval above 0 with 1 of 2 seeds" in console.export_text()


def test_a_terminal_gets_as_many_metrics_as_it_has_room_for() -> None:
    gains = {name: [0.01] for name in ("accuracy", "macro_f1", "weighted_f1", "log_loss")}
    numbers = report(gains, dict.fromkeys(gains, (-0.1, 0.1)), [0])
    for width, shown in ((50, ["accuracy"]), (80, ["accuracy", "macro-F1"]), (200, ["weighted-F1", "log-loss ↓"])):
        console = Console(width=width, record=True, quiet=False, file=io.StringIO())
        show(numbers, console)
        text = console.export_text()
        assert all(title in text for title in shown)
        assert "…" not in text
        assert ("log-loss" in text) == (width == 200)


ON_AVERAGE = "points of accuracy on average over"


@pytest.mark.parametrize(
    ("reports", "sentence"),
    [
        (
            [([0.02], (-0.01, 0.05), [4])],
            "+2.0 points of accuracy with seed 4; the 95 % interval [-1.0, 5.0] holds 0.",
        ),
        (
            [([-0.02], (-0.03, -0.01), [0])],
            "-2.0 points of accuracy with seed 0; the 95 % interval [-3.0, -1.0] leaves 0 out.",
        ),
        (
            [([0.01, 0.03], (0.005, 0.05), [0, 1])],
            f"+2.0 {ON_AVERAGE} 2 seeds (+1.0 to +3.0), ahead with each of 2 seeds; "
            "the 95 % interval [0.5, 5.0] leaves 0 out.",
        ),
        (
            [([-0.01, 0.03, 0.0], (-0.05, 0.05), [0, 1, 2])],
            f"+0.7 {ON_AVERAGE} 3 seeds (-1.0 to +3.0), ahead with 1 and behind with 1 of 3 seeds; "
            "the 95 % interval [-5.0, 5.0] holds 0.",
        ),
        (
            [([-0.01], (-0.02, 0.01), [0]), ([-0.02], (-0.03, -0.01), [1])],
            "-2.0 to -1.0 points of accuracy, behind with each of 2 seeds; 1 of the 2 intervals holds 0 (seed 0).",
        ),
        (
            [([0.0], (-0.02, 0.01), [0]), ([0.0], (-0.03, 0.01), [1])],
            "+0.0 to +0.0 points of accuracy, ahead with 0 and behind with 0 of 2 seeds; "
            "each of the 2 intervals holds 0.",
        ),
        (
            [([0.01], (0.005, 0.02), [0]), ([0.02], (0.01, 0.03), [1])],
            "+1.0 to +2.0 points of accuracy, ahead with each of 2 seeds; each of the 2 intervals leaves 0 out.",
        ),
    ],
)
def test_sentences_say_what_is_so(reports: list[Any], sentence: str) -> None:
    made = [report({"accuracy": values}, {"accuracy": ends}, seeds) for values, ends, seeds in reports]
    assert gain_sentences(made) == [f"**expanded minus alone**: {sentence}"]


def test_less_is_better_where_it_is_a_loss() -> None:
    made = report({"accuracy": [0.01], "log_loss": [-0.2]}, {"accuracy": (-0.1, 0.1), "log_loss": (-0.3, -0.1)}, [0])
    assert verdict([made]) == {"better": [], "worse": [], "neither": ["expanded than alone (+1.0)"]}
    assert verdict([made], "log_loss") == {"better": ["expanded than alone (-0.200)"], "worse": [], "neither": []}
    several = report({"log_loss": [-0.2, -0.1]}, {"log_loss": (-0.3, -0.1)}, [0, 1])
    assert gain_sentences([several]) == [
        "**expanded minus alone**: -0.150 in log-loss on average over 2 seeds (-0.200 to -0.100), ahead with each of 2 "
        "seeds; the 95 % interval [-0.300, -0.100] leaves 0 out."
    ]


def test_a_pair_that_not_every_report_has_is_left_out() -> None:
    first, second = (report({"accuracy": [0.01]}, {"accuracy": (-0.1, 0.1)}, [seed]) for seed in (0, 1))
    second["experiments"]["expanded"]["gain"] = {}
    assert gain_sentences([first, second]) == []


@pytest.mark.parametrize(("low", "high", "expected"), [(-1, 1, False), (0, 1, False), (0.1, 1, True), (-1, -0.1, True)])
def test_significant(low: float, high: float, expected: bool) -> None:
    assert significant(interval(0, low, high)) == expected


def test_a_figure_grows_with_its_lines(tmp_path: Path) -> None:
    heights = []
    for count in (1, 9):
        numbers = report({"log_loss": [-0.2, -0.1]}, {"log_loss": (-0.3, -0.1)}, [0, 1])
        numbers["experiments"] |= {f"other-{i}": numbers["experiments"]["expanded"] for i in range(count)}
        draw_figure(numbers, tmp_path / "figure.png")
        heights.append(Image.open(tmp_path / "figure.png").size[1])
    assert heights[0] < heights[1]


def test_a_figure_has_room_for_long_names_of_any_script(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    widths = []
    for name in ("other", "a long name of $runs$ with 中文 and עברית in it, runs/second-time"):
        numbers = report({"log_loss": [-0.2, -0.1]}, {"log_loss": (-0.3, -0.1)}, [0, 1])
        numbers["experiments"][name] = numbers["experiments"]["expanded"]
        draw_figure(numbers, tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as drawn:
            widths.append(drawn.size[0])
            assert (np.asarray(drawn.convert("L"))[:, :10] == 255).all()  # nothing is cut off
    assert widths[0] < widths[1]
    assert [str(one.message) for one in recwarn if "Glyph" in str(one.message)] == []
