"""The shared training entry: two rates, seeds, and that it learns."""

from __future__ import annotations

import datasets
import pytest
import torch
from torch import nn

from mi2p_inject.recipes.config import TrainConfig
from mi2p_inject.recipes.expand import build
from mi2p_inject.recipes.models import PictureClassifier, TextClassifier, mean_of_tokens
from mi2p_inject.recipes.rows import PAIRS, ROWS, config_of, identity_of
from mi2p_inject.recipes.training import _parameter_groups, predict, train


class Tiny(nn.Module):
    """A picture network of the shape that `PictureClassifier` needs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4, 2)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.body(x).relu().mean(dim=(2, 3)))
        return logits


def collate(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    labels = torch.tensor([row["label"] for row in rows])
    noise = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(row["row"])) for row in rows])
    return {"pixel_values": noise + 2 * labels.view(-1, 1, 1, 1), "labels": labels}


DATA = datasets.Dataset.from_dict({"row": list(range(40)), "label": [i % 2 for i in range(40)]})
CONFIG = TrainConfig(epochs=5, batch_size=8, rate_pretrained=1e-2, rate_new=3e-2, seed=1)


def trained(config: TrainConfig) -> torch.Tensor:
    torch.manual_seed(config.seed)
    model = PictureClassifier(Tiny())
    train(model, DATA, collate, config, lambda done, steps: None)
    return torch.from_numpy(predict(model, DATA, collate, config))


def test_learns_and_keeps_the_order() -> None:
    logits = trained(CONFIG)
    assert logits.shape == (40, 2)
    assert (logits.argmax(dim=1) == torch.tensor(DATA["label"])).float().mean() > 0.9


def test_same_seed_same_numbers() -> None:
    assert torch.equal(trained(CONFIG), trained(CONFIG))


def test_another_seed_other_numbers() -> None:
    from dataclasses import replace

    assert not torch.equal(trained(CONFIG), trained(replace(CONFIG, seed=2)))


def test_steps_are_reported() -> None:
    seen: list[tuple[int, int]] = []
    train(PictureClassifier(Tiny()), DATA, collate, CONFIG, lambda done, steps: seen.append((done, steps)))
    assert seen == [(done, 25) for done in range(1, 26)]


def test_two_rates_and_decay_on_matrices_only() -> None:
    model = PictureClassifier(Tiny())
    network = model.network
    rates = {
        id(p): (group["lr"], group["weight_decay"])
        for group in _parameter_groups(model, CONFIG)
        for p in group["params"]
    }
    assert rates == {
        id(network.body.weight): (1e-2, 0.01),
        id(network.body.bias): (1e-2, 0.0),
        id(network.classifier.weight): (3e-2, 0.01),
        id(network.classifier.bias): (3e-2, 0.0),
    }


@pytest.mark.parametrize("view", ["picture", "text"])
@pytest.mark.parametrize("expanded", [False, True])
def test_every_trainable_parameter_has_exactly_one_rate(view: str, expanded: bool) -> None:
    model = build(view, expanded=expanded, num_classes=9)
    listed = [id(p) for group in _parameter_groups(model, CONFIG) for p in group["params"]]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == trainable
    if expanded:
        fast = {id(p) for p in model.new_parameters()}
        assert {id(p) for p in model.network.units.parameters()} < fast


@pytest.mark.parametrize("view", ["picture", "text"])
def test_a_row_and_its_expanded_row_start_from_the_same_values(view: str) -> None:
    models = []
    for expanded in (False, True):
        torch.manual_seed(0)
        models.append(build(view, expanded=expanded, num_classes=9))
    plain, expanded_model = models
    backbone = expanded_model.network.backbone.state_dict()
    assert all(torch.equal(value, backbone[name]) for name, value in plain.network.state_dict().items())
    if plain.head is not None:
        assert all(map(torch.equal, plain.head.state_dict().values(), expanded_model.head.state_dict().values()))


def test_mean_of_tokens_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [99.0]], [[5.0], [99.0], [99.0]], [[9.0], [9.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert mean_of_tokens(hidden, mask).flatten().tolist() == [2.0, 5.0, 0.0]


def test_text_classifier_ignores_padding() -> None:
    model = build("text", expanded=False, num_classes=3).eval()
    assert isinstance(model, TextClassifier)
    ids, mask = torch.tensor([[101, 2417, 6207, 102]]), torch.ones(1, 4, dtype=torch.long)
    padded = (
        torch.cat([ids, torch.tensor([[0, 0]])], dim=1),
        torch.cat([mask, torch.zeros(1, 2, dtype=torch.long)], dim=1),
    )
    with torch.no_grad():
        short, long = model(ids, mask)["logits"], model(*padded)["logits"]
    assert torch.allclose(short, long, atol=1e-4)


def test_rows_are_consistent() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) == 6
    for place, row in enumerate(ROWS):
        assert (row.view is None) == bool(row.fuses)
        assert set(row.fuses) <= set(names[:place])  # a fusion comes after what it fuses
    assert {row.name for row in ROWS if row.expanded} < set(PAIRS)
    for expanded, alone in PAIRS.items():
        rows = {row.name: row for row in ROWS}
        if rows[expanded].view:
            assert config_of(rows[expanded], seed=3, smoke=False) == config_of(rows[alone], seed=3, smoke=False)


def test_identity_tells_settings_apart() -> None:
    assert identity_of(seed=0, smoke=False) == identity_of(seed=0, smoke=False)
    assert identity_of(seed=0, smoke=False) != identity_of(seed=1, smoke=False)
    assert identity_of(seed=0, smoke=False) != identity_of(seed=0, smoke=True)
