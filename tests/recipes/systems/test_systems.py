"""Every system and fusion over real encoders; missing modalities; layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from built_systems import batch, built

from mi2p_inject import ExpandedModel
from mi2p_inject.core.errors import UnitError
from mi2p_inject.fusion import FUSIONS
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.sets.demo import DEMO
from mi2p_inject.recipes.systems import SYSTEMS, Branches, build_system
from mi2p_inject.recipes.tasks import SingleLabel
from mi2p_inject.recipes.training.train import load_encoders

OURS = [name for name in SYSTEMS if isinstance(SYSTEMS[name], Branches)]  # the others: tests/systems
CASES = [
    (model, fusion)
    for model in OURS
    for fusion in {"late-fusion": FUSIONS, "me-fusion": FUSIONS}.get(model, ["concat" if "+" in model else "score"])
]


@pytest.mark.parametrize(("model", "fusion"), CASES)
class TestEveryModel:
    def test_learns_with_all_its_parameters_and_leaves_the_sources_alone(self, model: str, fusion: str) -> None:
        classifier = built(model, fusion).train()
        sources = {name: frozen.encoder.model for name, frozen in classifier.sources().items()}
        assert set(sources) == set(SYSTEMS[model].source_modalities)
        before = {name: [p.clone() for p in source.state_dict().values()] for name, source in sources.items()}
        optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01)
        output = classifier(**batch(classifier, [True] * 4, [True] * 4), labels=torch.tensor([0, 1, 2, 1]))
        assert output["logits"].shape == (4, 3)
        output["loss"].backward()
        unused = {name for name, p in classifier.named_parameters() if p.requires_grad and p.grad is None}
        other_uses = ("seg_embed", "r_s_bias", "mask_emb")  # of XLNet
        assert not [name for name in unused if not name.endswith(other_uses)]
        optimizer.step()
        for name, source in sources.items():
            assert not source.training
            assert all(map(torch.equal, before[name], source.state_dict().values()))
        own = {id(p) for p in classifier.parameters()}
        assert not any(id(p) in own for source in sources.values() for p in source.parameters())

    def test_rows_without_a_modality_are_as_if_alone(self, model: str, fusion: str) -> None:
        classifier = built(model, fusion).eval()
        there = ([True, False, True, True], [True, True, False, True])
        whole = batch(classifier, *there)
        with torch.no_grad():
            logits = classifier(**whole)["logits"]
            assert logits.isfinite().all()
            for row in range(4):
                alone = classifier(**{name: value[row : row + 1] for name, value in whole.items()})["logits"]
                assert torch.allclose(alone[0], logits[row], atol=1e-4)

    def test_what_is_missing_has_no_effect(self, model: str, fusion: str) -> None:
        classifier = built(model, fusion).eval()
        if len({*classifier.branches}) < 2 and not classifier.sources():
            pytest.skip("reads one modality")
        first = batch(classifier, [True, True], [False, False])
        second = {**first, "input_ids": first["input_ids"] + 1}
        own = "image" in classifier.sources()  # an expanded text model: the collator makes its own tokens blank
        with torch.no_grad():
            one, other = (classifier(**given)["logits"] for given in (first, second))
            present = classifier(**{**first, "text_present": torch.tensor([True, True])})["logits"]
        assert torch.equal(one, other) != own
        assert own or not torch.allclose(one, present)


def test_an_expanded_model_without_a_source_is_its_backbone() -> None:
    plain, expanded = built("vision").eval(), built("me-vision").eval()
    network = expanded.branches["image"].network
    assert isinstance(network, ExpandedModel)
    given = batch(expanded, [True, True], [False, False])
    with torch.no_grad():
        vector, present = expanded.branches["image"](given)
        expected = network.backbone(given["pixel_values"])
    assert torch.equal(vector, expected)
    assert present.all()
    assert set(plain.state_dict()) == {
        name.replace("network.backbone.", "network.") for name in expanded.state_dict() if "units" not in name
    }


def test_two_expanded_models_attend_to_frozen_copies_of_each_other() -> None:
    classifier = built("me-fusion")
    image, text = classifier.branches["image"].network, classifier.branches["text"].network
    assert image.source_encoder is not text.backbone
    assert text.source_encoder is not image.backbone
    for source, backbone in ((image.source_encoder, text.backbone), (text.source_encoder, image.backbone)):
        assert all(map(torch.equal, source.state_dict().values(), backbone.state_dict().values()))


def test_moves_with_its_sources() -> None:
    classifier = built("me-fusion").to(torch.float64)
    for source in classifier.sources().values():
        assert {p.dtype for p in source.encoder.model.parameters()} == {torch.float64}


@pytest.mark.parametrize("unit", [None, "film"])
def test_both_directions_have_the_unit_that_is_named(unit: str | None) -> None:
    classifier = built("me-fusion", unit=unit, zero_init=None)
    kinds = {name: branch.network.expansion_config.unit.kind for name, branch in classifier.branches.items()}
    assert kinds == dict.fromkeys(("image", "text"), unit or "mi2p")


def test_an_option_that_the_default_unit_lacks_is_an_error() -> None:
    for wrong in ({"num_head": 1}, {"scale": True}):
        with pytest.raises(UnitError, match="no option"):
            built("me-fusion", unit_options=wrong)


def test_random_encoders_start_from_nothing() -> None:
    classifier = built("late-fusion")
    assert classifier.parameter_groups() == {name: "new" for name, _ in classifier.named_parameters()}


@pytest.mark.parametrize("model", OURS)
def test_a_frozen_backbone(model: str) -> None:
    classifier = built(model, trainable="units")
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    assert all(name.startswith("fusion.") or ".units." in name for name in trained)
    assert any(name.startswith("fusion.") for name in trained)


@pytest.mark.parametrize(
    ("layers", "sites"),
    [
        ([0, -1], ["features.denseblock1", "features.denseblock4"]),
        (None, ["features.denseblock4"]),
        (["paper"], [f"features.denseblock{number}" for number in range(1, 5)]),
        (["2/4"], ["features.denseblock2"]),
        (["1/2"], ["features.denseblock1", "features.denseblock2"]),
        (["features.denseblock3"], ["features.denseblock3"]),
    ],
)
def test_layers(layers: list[Any] | None, sites: list[str]) -> None:
    network = built("me-vision", vision_layers=layers).branches["image"].network
    assert [site.path for site in network.sites] == sites


@pytest.mark.parametrize("layer", ["0/4", "5/4", "1/99"])
def test_a_fraction_of_the_layers_that_is_none(layer: str) -> None:
    with pytest.raises(RecipeError, match="no such fraction"):
        built("me-vision", vision_layers=[layer])


def test_frozen_parameters() -> None:
    classifier = built("me-fusion", vision_freeze=["features.conv0.*", "features.norm0.*"], text_freeze=["*embedding*"])
    still = {name for name, p in classifier.named_parameters() if not p.requires_grad}
    assert any("conv0" in name for name in still)
    assert any("embedding" in name for name in still)
    assert all("conv0" in name or "norm0" in name or "embedding" in name for name in still)
    with pytest.raises(RecipeError, match="no parameter 'nothing'"):
        built("vision", vision_freeze=["nothing"])


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_an_experiment_of_the_demo_and_its_expanded_one_start_from_the_same_values(kind: str) -> None:
    states = []
    for one in DEMO.select({"picture": ["vision", "me-vision"], "text": ["text", "me-text"]}[kind]):
        config = DEMO.config_of(one, DEMO.config(), encoders="demo", seed=0)
        torch.manual_seed(0)
        encoders = load_encoders(config)
        torch.manual_seed(0)
        model = build_system(config, encoders, SingleLabel(tuple("abcdefghi")))
        states.append(
            {key.replace("network.backbone.", "network."): value for key, value in model.state_dict().items()}
        )
    plain, expanded = states
    assert all(torch.equal(value, expanded[name]) for name, value in plain.items())


def test_a_source_is_a_copy_only_where_its_encoder_is_trained_too() -> None:
    for model, copied in (("me-vision", False), ("me-vision+text", True), ("me-fusion", True)):
        classifier = built(model)
        trained = {id(p) for p in classifier.parameters()}
        source = classifier.sources()["text"].encoder
        assert not {id(p) for p in source.model.parameters()} & trained
        assert ("text" in classifier.branches) == copied


def test_options_of_unit_and_fusion_arrive() -> None:
    options = {"unit_options": {"num_heads": 1, "head_dim": 8}, "fusion_options": {"width": 12}}
    classifier = built("me-fusion", "cross-attention", zero_init=None, **options)
    assert classifier.fusion.head.in_features == 24
    assert {unit.head_dim for unit in classifier.branches["image"].network.units.values()} == {8}
