"""Several named sources over one backbone: their residuals add, each is missing by itself, and all that is about one
source knows of several."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers as hf
from helpers import PICTURES, complains, map_features, net, snapshot, token_features
from models import SPECIAL, TINY
from torch import Tensor, nn

from mi2p_inject import MI2P, ExpandedModel, SourceFeatures, ViewSpec, inject, load
from mi2p_inject.core.errors import CheckpointError, Mi2pError, SourceError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.explain import explain, record_attention
from mi2p_inject.sources.features import prepare
from mi2p_inject.testing.randomize import randomize_zero_parameters

SPECS = {"text": ViewSpec.tokens(12), "tone": ViewSpec.map(10, 3, 4)}
SOURCES = {"text": token_features(2), "tone": map_features(2)}
"""Words, and a map."""


def expanded(**options: Any) -> ExpandedModel:
    me = inject(net(), **{"layers": "0", "source_spec": SPECS, "example_inputs": PICTURES} | options)
    randomize_zero_parameters(me.units, strength=1.0)
    return me.eval()


def counted(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_text_and_audio_into_a_picture_model() -> None:
    """Real classes, one line: the start is the backbone's, each encoder runs once, all units train, it comes back."""
    image, bert, ast = TINY["resnet"], TINY["bert"], TINY["ast"]
    backbone, encoders = image.build(), {"text": bert.build(), "audio": ast.build().train()}
    before = [snapshot(model) for model in (backbone, *encoders.values())]
    ((x,), _), (_, words), (args, named) = (tiny.inputs(2, seed=0) for tiny in (image, bert, ast))
    sound = named or args
    me = inject(backbone, layers="paper", source_encoder=encoders)
    batch = {"text": words, "audio": sound}
    calls = {name: counted(encoder) for name, encoder in encoders.items()}
    for mode in (True, False):
        plain = copy.deepcopy(backbone).train(mode)(x)
        assert torch.equal(me.train(mode)(x, source=batch), plain)
    assert [len(seen) for seen in calls.values()] == [2, 2]
    assert not any(module.training for encoder in encoders.values() for module in encoder.modules())
    for _ in range(2):
        optimizer = torch.optim.SGD(me.units.parameters(), 1e-2)
        me(x, source=batch).square().sum().backward()
        optimizer.step()
    assert all(one.grad is not None and one.grad.any() for one in me.units.parameters())
    assert all(one.grad is None for encoder in encoders.values() for one in encoder.parameters())
    features = me.encode(batch)
    both = me(x, source=features)
    assert torch.equal(me(x, source=batch), both)
    assert not torch.equal(me(x, source={"audio": sound}), both)
    assert not torch.equal(me(x, source={"text": features["text"]}), both)
    assert me.source_encoder == encoders
    summary = me.summary()
    assert "source text: tokens" in summary
    assert "of a frozen ASTModel" in summary
    assert not [key for key in me.state_dict() if not key.startswith(("backbone.", "units.text/", "units.audio/"))]
    me.eject()
    for model, was in zip((backbone, *encoders.values()), before, strict=True):
        now = snapshot(model)
        assert (now.keys, now.modes, now.attributes) == (was.keys, was.modes, was.attributes)
        assert sum(map(len, now.hooks)) == sum(map(len, was.hooks)) + (model is not backbone)  # the one that counts


def test_residuals_add() -> None:
    """By hand: the site's own output and what each unit adds to it."""
    me, bare = expanded(), net().eval()
    hidden = bare[0](PICTURES)
    for name, features in SOURCES.items():
        unit = me.unit("0", name)
        hidden = hidden + unit(bare[0](PICTURES), prepare(features, SPECS[name], torch.float32))
    torch.testing.assert_close(me(PICTURES, source=SOURCES), bare[1:](hidden))


@pytest.mark.parametrize("gone", SPECS)
@pytest.mark.parametrize("how", ["None", "absent", "masked", "a row"])
def test_each_source_is_missing_by_itself(gone: str, how: str) -> None:
    me, (kept,) = expanded(), [name for name in SPECS if name != gone]
    alone, both, source, mask = me(PICTURES, source={kept: SOURCES[kept]}), me(PICTURES, source=SOURCES), SOURCES, None
    assert not torch.equal(alone, both)
    if how == "None":
        source = {**SOURCES, gone: None}  # type: ignore[dict-item]
    elif how == "absent":
        source = {kept: SOURCES[kept]}
    else:
        mask = {gone: torch.tensor([how == "a row", False])}
    output = me(PICTURES, source=source, source_mask=mask)
    assert torch.equal(output[1], alone[1])
    assert torch.equal(output[0], both[0] if how == "a row" else alone[0])


def test_no_source_is_the_backbone() -> None:
    me, plain = expanded(), net().eval()(PICTURES)
    none = torch.tensor([False, False])
    for source, mask in ((None, None), ({}, None), ({"text": None}, None), (SOURCES, dict.fromkeys(SPECS, none))):
        assert torch.equal(me(PICTURES, source=source, source_mask=mask), plain)
    with me.disabled():
        assert torch.equal(me(PICTURES, source=SOURCES), plain)


def test_sources_have_layers_and_units_of_their_own(tmp_path: Path) -> None:
    kinds = {"tone": "film", "text": MI2P(num_heads=2)}
    me = expanded(layers={"text": ["0", "1"], "tone": "1"}, unit=kinds)
    assert list(me.units) == ["text/0", "text/1", "tone/1"]
    assert [type(unit).__name__ for unit in me.units.values()] == ["MI2PUnit", "MI2PUnit", "FiLMUnit"]
    me.save_pretrained(tmp_path)
    again = load(tmp_path, backbone=net()).eval()
    assert again.expansion_config == me.expansion_config
    assert list(again.expansion_config.sources) == ["text", "tone"]
    for source in (SOURCES, {"text": SOURCES["text"]}, {"tone": SOURCES["tone"]}):
        assert torch.equal(again(PICTURES, source=source), me(PICTURES, source=source))


def test_one_name_is_enough_and_encoders_come_by_name(tmp_path: Path) -> None:
    words = torch.randint(1, 9, (2, 3))
    example = {"source_example_inputs": {"words": words}}
    me = inject(net(), "0", source_encoder={"words": nn.Embedding(9, 5)}, example_inputs=PICTURES, **example)
    assert list(me.units) == ["words/0"]
    assert me.unit("0") is me.unit("0", "words")
    me.save_pretrained(tmp_path)
    encoder = nn.Embedding(9, 5)
    again = load(tmp_path, backbone=net(), source_encoder={"words": encoder}, **example)
    assert again.source_encoder == {"words": encoder}
    again(PICTURES, source={"words": words})
    for wrong in (encoder, {"word": encoder}):
        with complains(CheckpointError, "does not fit the checkpoint's sources"):
            load(tmp_path, backbone=net(), source_encoder=wrong, **example)
    with complains(CheckpointError, "another source encoder for words"):
        load(tmp_path, backbone=net(), source_encoder={"words": nn.Embedding(9, 6)}, **example)


CALLS: dict[str, tuple[Any, Any, str]] = {
    "a misspelt name": ({"txet": SOURCES["text"]}, None, "did you mean 'text'"),
    "a batch of one source": ({"input_ids": PICTURES}, None, "names a source that this model does not have"),
    "features without a name": (SOURCES["text"], None, "named sources"),
    "a tensor": (PICTURES, None, "named sources"),
    "one mask": (SOURCES, torch.ones(2, dtype=torch.bool), "source_mask= is no dict"),
    "a mask of another name": (SOURCES, {"tune": torch.ones(2).bool()}, "did you mean 'tone'"),
    "a mask alone": ({"text": SOURCES["text"]}, {"tone": torch.ones(2).bool()}, "mask without a source"),
    "other batches": ({**SOURCES, "tone": map_features(3)}, None, "different batches"),
    "features of the other": ({"text": SOURCES["tone"]}, None, "wrong kind"),
    "no encoder": ({"text": {"input_ids": PICTURES}}, None, "no source encoder for text"),
}


@pytest.mark.parametrize("case", CALLS)
def test_wrong_calls(case: str) -> None:
    source, mask, says = CALLS[case]
    me, plain = expanded(), net().eval()(PICTURES)
    with complains(SourceError, says):
        me(PICTURES, source=source, source_mask=mask)
    assert torch.equal(me(PICTURES), plain)


SETUPS: dict[str, tuple[dict[str, Any], str]] = {
    "one by name": ({"source_encoder": nn.Embedding(3, 4)}, "names its sources, and the other option does not"),
    "a name with a dot": ({"source_spec": {"a.b": SPECS["text"]}}, "cannot name a source"),
    "an empty name": ({"source_spec": {"": SPECS["text"]}}, "cannot name a source"),
    "no source": ({"source_spec": {}}, "nothing says what the source is"),
    "a misspelt choice": ({"trainable": "unit"}, "did you mean 'units'"),
    "a misspelt layout": ({"layers": "2", "layout": {"22": Layout(Axes.NCHW)}}, r"did you mean '2'\?, or name"),
    "a misspelt unit": ({"unit": {"txet": "film"}}, "did you mean 'text'"),
    "misspelt layers": ({"layers": {"tune": "0"}}, "did you mean 'tone'"),
    "an example without a name": ({"source_example_inputs": PICTURES}, "which source it is of"),
    "no module": ({"source_spec": None, "source_encoder": {"text": 3}}, "is no module"),
}


@pytest.mark.parametrize("case", SETUPS)
def test_wrong_setups(case: str) -> None:
    options, says = SETUPS[case]
    before = snapshot(model := net())
    with complains(Mi2pError, says):
        inject(model, **{"layers": "0", "source_spec": SPECS, "example_inputs": PICTURES} | options)
    assert snapshot(model) == before


def test_attributes_of_one_source_ask_for_a_name() -> None:
    me = expanded()
    for ask in (lambda: me.frozen_source, lambda: me.unit("0"), lambda: me.expansion_config.unit):
        with complains(SourceError, "source"):
            ask()
    found = explain(me, PICTURES, source=SOURCES, score=lambda output: output[:, 0])
    assert list(found) == list(SOURCES)


@pytest.mark.parametrize(
    ("options", "path", "name", "says"),
    [
        ({}, "1", "text", "no unit at this path"),
        ({}, "0", None, "choose one of text, tone"),
        ({"layers": {"text": "0", "tone": "2"}}, "2", "text", "no unit at this path"),
        ({}, "0", "txet", "did you mean 'text'"),
        ({"source_spec": SPECS["text"]}, "1", None, "no unit at this path"),
        ({"source_spec": SPECS["text"]}, "0", "text", "its source has no name"),
    ],
)
def test_a_unit_that_is_not_there(options: dict[str, Any], path: str, name: str | None, says: str) -> None:
    with complains(Mi2pError, says):
        expanded(**options).unit(path, name)


def test_copies_pickles_threads_and_blocks() -> None:
    me = expanded()
    both = me(PICTURES, source=SOURCES)
    for again in (copy.deepcopy(me), pickle.loads(pickle.dumps(me))):
        assert torch.equal(again(PICTURES, source=SOURCES), both)
    with me.source({**SOURCES, "tone": None}):
        block = me.backbone(PICTURES)
    text = me(PICTURES, source={"text": SOURCES["text"]})
    assert torch.equal(block, text)
    assert torch.equal(me.call("forward", PICTURES, source=SOURCES), both)
    outputs: dict[int, Tensor] = {}
    wanted: list[dict[str, SourceFeatures]] = [SOURCES, {"text": SOURCES["text"]}] * 2

    def work(number: int) -> None:
        for _ in range(5):
            outputs[number] = me(PICTURES, source=wanted[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(outputs[number], (both, text)[number % 2]) for number in range(len(wanted)))


def test_beams_repeat_each_source() -> None:
    """Generation of two samples in beams is that of each by itself."""
    model = hf.GPT2LMHeadModel(hf.GPT2Config(**SPECIAL, n_embd=24, n_layer=2, n_head=4, n_positions=40))
    me = inject(model.eval(), source_spec=SPECS, zero_init=None)
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    beams: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    both = me.call("generate", ids, source=SOURCES, attention_mask=torch.ones_like(ids), **beams)
    for row in range(2):
        one = {name: features[[row]] for name, features in SOURCES.items()}
        alone = me.call("generate", ids[[row]], source=one, attention_mask=torch.ones(1, 3), **beams)
        assert torch.equal(both[row, : alone.shape[1]], alone[0])


def test_units_of_a_missing_source_take_part_in_distributed_training(tmp_path: Path) -> None:
    """Each parameter has a gradient in each step, as DistributedDataParallel asks."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        me = expanded().train()
        plain = me(PICTURES, source={"text": SOURCES["text"]})
        plain.sum().backward()
    finally:
        dist.destroy_process_group()
    assert all(one.grad is not None and not one.grad.any() for one in me.unit("0", "tone").parameters())
    assert any(one.grad is not None and one.grad.any() for one in me.unit("0", "text").parameters())
    assert torch.equal(plain, me(PICTURES, source={"text": SOURCES["text"]}))


def test_attention_is_recorded_by_name() -> None:
    me = expanded(unit={"tone": "film"})
    with record_attention(me) as seen:
        me(PICTURES, source=SOURCES)
    assert list(seen) == ["text:0"]
    assert seen.silent == {"tone:0": "film"}
    me = expanded()
    with record_attention(me) as seen:
        me(PICTURES, source=SOURCES)
    assert {name: one.weights.shape[-1] for name, one in seen.items()} == {"text:0": 5, "tone:0": 10}
    assert len(seen.forwards) == 1


def test_a_compiled_model_takes_sources_by_name() -> None:
    me = expanded()
    compiled = torch.compile(me, backend="eager", fullgraph=True)
    for source in (SOURCES, {"tone": SOURCES["tone"]}, None):
        torch.testing.assert_close(compiled(PICTURES, source=source), me(PICTURES, source=source))


def test_units_are_in_timms_group_of_their_site() -> None:
    backbone = TINY["resnet"].build()
    group_of = inject(backbone, source_spec=SPECS).group_matcher()
    assert group_of("units.text/layer4.weight") == group_of("units.tone/layer4.weight")
    assert group_of("units.text/layer4.weight") != group_of("units.text/layer1.weight")
