"""What `make bench` will measure on a GPU runs here on small models, and the page says that it is unmeasured."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, render
from benchmarks.__main__ import measured_elsewhere
from benchmarks.table import BENCHMARKS, measurable

ROOT = Path(__file__).parents[2]
ROWS = {one.name: one for one in BENCHMARKS if one.gpu}
MEASURES = {
    "bert": functools.partial(gpu.bert_units, all_sites=True),
    "bert-quarter": functools.partial(gpu.bert_units, all_sites=False, quarter=True),
    "densenet": gpu.densenet_units,
    "source-bert": functools.partial(gpu.with_source, text=True),
    "source-densenet": functools.partial(gpu.with_source, text=False),
}


def test_the_limits_are_those_that_were_asked() -> None:
    assert {name: one.limit for name, one in ROWS.items()} == {
        "gpu-bert": 1.05,
        "gpu-bert-quarter": 1.05,
        "gpu-bert-all": 1.15,
        "gpu-bert-compiled": 1.15,
        "gpu-densenet": 1.06,
        "gpu-densenet-compiled": 1.06,
        "gpu-source-bert": 1.05,
        "gpu-source-densenet": 1.05,
    }


@pytest.mark.parametrize("name", MEASURES)
def test_what_a_gpu_will_measure_runs(name: str) -> None:
    found = gpu.compared(MEASURES[name], scale=gpu.TINY)
    assert found.paired
    assert len(found.base) == len(found.ours) == 1
    assert min(*found.base, *found.ours) > 0


def test_what_a_step_asks_of_a_gpu() -> None:
    found = gpu.profiled(MEASURES["bert"], scale=gpu.TINY)
    assert found["units"] == 2
    for name in ("base", "ours"):
        assert found[name]["wall"] > 0
        assert found[name]["launch"] > 0
        assert (found[name]["kernels"] > 0) is (found[name]["busy"] > 0) is torch.cuda.is_available()


def test_the_page_says_what_is_unmeasured() -> None:
    data = json.loads((ROOT / "docs" / "performance.json").read_text())
    page = render.page(data, "performance.png")
    measured = {one["name"] for one in data["benchmarks"]}
    for name in ROWS:
        assert f"| {name} |" in page
    assert page.count("| unmeasured |") == len(set(ROWS) - measured)
    here = {"machine": data["machine"], "date": data["date"]}
    with_all = {
        **data,
        "gpu": here,
        "benchmarks": [*data["benchmarks"], *(_result(name) for name in set(ROWS) - measured)],
    }
    assert "unmeasured" not in render.page(with_all, "performance.png")
    assert all(measurable(one) is (torch.cuda.is_available() or not one.gpu) for one in BENCHMARKS)


def _result(name: str) -> dict[str, object]:
    return {
        "name": name, "ours": "a", "base": "b", "limit": 1.1, "at_least": False, "unit": "s", "ratio": 1.0,
        "spread": [1.0, 1.0], "samples": {"base": [1.0], "ours": [1.0]}, "profile": None,
    }  # fmt: skip


def test_rows_of_another_machine_are_named() -> None:
    """`--only` on another machine puts neither the old rows under its name nor its own under theirs."""
    first, second = ({"machine": {"device": one, "threads": 2, "versions": {}}, "date": one} for one in "AB")
    data: dict[str, Any] = {
        **first,
        "benchmarks": [_result("c"), _result("d")],
        "peers": [],
        "scaling": [],
        "floor": {},
    }
    data["elsewhere"] = measured_elsewhere(data, {"d"}, second)
    assert data["elsewhere"] == {"d": second}
    page = render.page(data, "")
    assert "`d`: on B, 2 threads" in page
    assert page.index("A, 2 threads") < page.index("| c |") < page.index("`d`: on B")
    assert measured_elsewhere(data, {"d"}, first) == {}
    assert measured_elsewhere(data, {"c"}, first) == {"d": second}
