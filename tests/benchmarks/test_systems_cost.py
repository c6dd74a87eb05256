"""The cost of systems: all of them have a line, a line runs on tiny encoders, the page is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import systems
from benchmarks.__main__ import machine
from mi2p_inject.fusion import FUSIONS
from mi2p_inject.recipes.systems import SYSTEMS

TINY = {"vision": "tiny:resnet", "text": "tiny:xlnet", "image_size": 32, "max_length": 8, "batch": 2}


def test_every_system_and_every_fusion_has_a_line() -> None:
    lines = systems.SYSTEMS_MEASURED.values()
    assert {one["model"] for one in lines} == set(SYSTEMS)
    assert {one["fusion"] for one in lines if one["model"] == "late-fusion"} == set(FUSIONS)


def test_a_line_is_measured_beside_its_base(tmp_path: Path) -> None:
    ours = systems.cost_of("gmu", TINY, rounds=1)
    base = {**ours, "name": "concat", "ratio": 1.0}
    assert ours["base"] == "concat"
    assert ours["ratio"] > 0
    assert ours["parameters"] == ours["all_parameters"]
    costs = [base, ours]
    data = {"setting": TINY, "machine": machine(), "date": "2026-01-01", "load": 0.0, "systems": costs}
    (tmp_path / "systems.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "systems.md").write_text(f"a\n{systems.BEGIN}\nold\n{systems.END}\nb\n", encoding="utf-8")
    systems.render(tmp_path)
    page = (tmp_path / "systems.md").read_text(encoding="utf-8")
    assert page == f"a\n{systems.BEGIN}\n{systems.section(data)}\n{systems.END}\nb\n"
    assert machine()["device"] in page
    assert f"| gmu | {ours['parameters']:,} of" in page


def test_the_pathway_is_compared_with_its_transformer_alone() -> None:
    one = {
        "parameters": 1,
        "all_parameters": 1,
        "seconds": 1.0,
        "fastest": 1.0,
        "megabytes": 10.0,
        "spread": [1.0, 1.0],
    }
    alone = {**one, "name": "vit-384", "base": "vit-384", "ratio": 1.0}
    more = {**one, "name": "vit-384 + pathway", "base": "vit-384", "ratio": 1.5, "megabytes": 20.0}
    alone_cells, cells = (line.split(" | ") for line in systems.markdown([alone, more]).splitlines()[2:])
    assert "1" not in (alone_cells[3], alone_cells[5].removesuffix(" |"))  # nothing to compare it with
    assert cells[3].startswith("1.50 (")
    assert cells[3].endswith(" of `vit-384`")
    assert cells[5] == "2.00 of `vit-384` |"
