"""What a model needs in memory: against what is counted by hand, and what `mi2p layers --memory` prints of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers as hf
from helpers import complains
from torch import Tensor, nn
from typer.testing import CliRunner

from mi2p_inject import ViewSpec, inject
from mi2p_inject.core.errors import ProbeError
from mi2p_inject.core.inputs import as_inputs
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.report.memory import held_bytes, plan_memory
from mi2p_inject.units import unit_config

WORDS = ViewSpec.tokens(12)


class TwoLayers(nn.Module):
    """Of which every new tensor can be counted by hand: 4 bytes a number, and a ReLU's output is what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.second = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(self.table(ids)).relu())
        return found


def plan(model: nn.Module, sites: dict[str, ViewSpec], **options: Any) -> Any:
    example = as_inputs(torch.ones(2, 5, dtype=torch.long))
    return plan_memory(model, example, sites, WORDS, unit_config("mi2p", {}), 2, **options)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 5), (4, 10)])
def test_a_model_counted_by_hand(batch: int, tokens: int) -> None:
    found = plan(TwoLayers(), {"first": ViewSpec.tokens(16)}, batch=batch, tokens=tokens)
    number = batch * tokens * 4
    assert found.weights == 4 * (9 * 8 + 8 * 16 + 16 + 16 * 8 + 8)
    assert found.inference == (16 + 16) * number  # before and after the ReLU; the embedded ids are gone
    assert found.frozen == (8 + 16 + 16) * number + 4  # where the residual, here one number, is added to the output
    assert found.trained == (8 + 16 + 16) * number  # the gradient of its weights does
    assert (found.batch, found.tokens) == (batch, tokens)


def test_units_are_those_that_inject_builds() -> None:
    model = TwoLayers()
    me = inject(model, layers="first", source_spec=WORDS, example_inputs=torch.ones(2, 5, dtype=torch.long))
    spec = me.sites[0].spec
    heads = me.expansion_config.num_heads
    example = as_inputs(torch.ones(2, 5, dtype=torch.long))
    found = plan_memory(model, example, {"first": spec}, WORDS, me.expansion_config.unit, heads)
    units = 4 * sum(one.numel() for one in me.units.parameters())
    assert found.unit_weights == units
    totals = found.totals()
    assert totals["inference"]["weights"] == found.weights + units
    training = totals["training, trainable=units"]
    assert (training["gradients"], training["optimizer"]) == (units, 2 * units)
    assert totals["training, trainable=all"]["optimizer"] == 2 * (found.weights + units)
    for parts in totals.values():
        assert parts["total"] == sum(value for name, value in parts.items() if name != "total")


def test_what_is_alive_at_once() -> None:
    x = torch.zeros(100, device="meta")
    with held_bytes([x]) as held:
        views = [x.view(10, 10), x[5:]]  # no memory of their own
        y = x + 1
        z = [y * 2 for _ in range(3)]
        del z
        y = y + y
    assert held.peak == 4 * 400
    assert len(views) == 2


def test_a_decoder_on_the_meta_device_is_planned_by_batch_and_length() -> None:
    config = hf.LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, vocab_size=60)
    with torch.device("meta"):
        model = hf.LlamaModel(config).to(torch.bfloat16).eval()
    me = inject(model, source_spec=WORDS)
    sites = {site.path: site.spec for site in me.sites}
    example = me.example
    me.eject()
    one, more = (
        plan_memory(model, example, sites, WORDS, me.expansion_config.unit, 8, batch=batch, tokens=32)
        for batch in (1, 4)
    )
    assert one.dtype == torch.bfloat16
    assert one.weights == more.weights
    assert one.inference < more.inference < 5 * one.inference
    assert one.frozen < one.trained  # from the last layer on, not from the first
    assert one.sites[0].inference < one.sites[0].training


def test_a_model_that_does_not_run_on_such_inputs() -> None:
    class Fixed(TwoLayers):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) + torch.zeros(5, 8)

    with complains(ProbeError, "memory", "Fixed"):
        plan(Fixed(), {}, tokens=7)


def test_command() -> None:
    arguments = ["layers", "resnet10t", "--meta", "--memory", "--batch-size", "2", "--dtype", "bfloat16"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    for words in ("unit at layer4", "training, trainable=units", "training, trainable=all", "2 samples", "bfloat16"):
        assert words in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [site["path"] for site in found["memory"]["sites"]] == ["layer4"]
    assert found["memory"]["totals"]["inference"]["total"] > 2 * found["parameters"]
    wrong = CliRunner().invoke(app, [*arguments[:-1], "int4"])
    assert wrong.exit_code == 1
    assert "float32, bfloat16" in wrong.output
