"""The growth page: its formulas by hand, its parts on small models, and the page as its JSON says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import parts as measured
from benchmarks.growth.page import page
from benchmarks.growth.simulate import Parts, Plan, simulate

ROOT = Path(__file__).parents[2]
PARTS = Parts(
    batch=10, step=1.0, source=0.5, image=0.01, read=0.001, fill=0.1, sample_bytes=1e5, index_bytes=500,
    gradient_bytes=1e8, exchange_speed=1e9, disk_speed=1e8, memory_bytes=1e9,
)  # fmt: skip


def test_the_formulas_by_hand() -> None:
    """95 samples in batches of 10 on 2 ranks: 5 steps an epoch."""
    found = simulate(PARTS, Plan(samples=95, ranks=2, epochs=3, workers=4, cached=False))
    assert found.terms == pytest.approx(
        {"compute": 15, "source": 7.5, "exchange": 15 * 0.1, "images": 15 * 0.1 / 4, "cache": 0, "fill": 0}
    )
    assert found.total == pytest.approx(24)
    assert (found.bottleneck, found.cache_bytes, found.index_bytes) == ("compute", 0, 0)
    cached = simulate(PARTS, Plan(samples=95, ranks=2, epochs=3, workers=4))
    assert cached.total == pytest.approx(15 + 1.5 + 95 / 2 * 0.1)
    assert (cached.cache_bytes, cached.index_bytes) == (95e5, 95 * 500)


def test_each_term_can_be_the_bottleneck() -> None:
    plan = Plan(samples=100, ranks=2, epochs=1)
    slow = {
        "compute": {"step": 99.0},
        "exchange": {"gradient_bytes": 1e13},
        "images": {"image": 99.0},
        "cache": {"read": 99.0},
        "fill": {"fill": 99.0},
    }
    for name, value in slow.items():
        assert simulate(replace(PARTS, **value), plan).bottleneck == name
    assert simulate(replace(PARTS, source=99.0), replace(plan, cached=False)).bottleneck == "source"


def test_a_cache_larger_than_memory_is_read_from_the_disk() -> None:
    small, large = (simulate(PARTS, Plan(samples, epochs=1, workers=1)) for samples in (10_000, 10_010))
    assert small.terms["cache"] == pytest.approx(10)
    assert large.terms["cache"] == pytest.approx(10.01)  # 1e5 bytes at 1e8 a second are 1 ms too
    assert simulate(PARTS, Plan(10_010, ranks=2, epochs=1, workers=1)).terms["cache"] == pytest.approx(10.02)


@pytest.mark.filterwarnings("ignore")
def test_the_parts_are_measured_and_a_real_training_is_compared() -> None:
    found = measured.measured_parts(measured.TINY)
    parts = Parts(**found["parts"])
    assert min(vars(parts).values()) > 0
    assert parts.sample_bytes >= 8 * 32 * 4  # 8 tokens, 32 wide, float32
    check = found["check"]
    assert check["measured"] > 0
    assert check["predicted"] == pytest.approx(simulate(parts, Plan(16, epochs=2, workers=0)).total)


def test_the_page_is_what_its_json_says() -> None:
    data = json.loads((ROOT / "docs" / "growth.json").read_text())
    assert (ROOT / "docs" / "growth.md").read_text() == page(data)
