"""torch.export for any batch, and torch.jit.trace, with the source among the inputs."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, expanded, first_tensor, map_features, net, token_features
from models import TINY
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from mi2p_inject import ExpandedModel, SourceFeatures, inject
from mi2p_inject.units import product_order

Features = Callable[..., SourceFeatures]
CASES = [("resnet", token_features), ("densenet", map_features), ("vit", token_features), ("bert", map_features)]
CASES += [("bert", token_features)]


def inputs_of(name: str, batch: int, seed: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    if name == "net":
        return (torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),), {}
    args, kwargs = TINY[name].inputs(batch, seed)
    return args, kwargs


def expand(name: str, features: Features) -> ExpandedModel:
    if name == "net":
        options: dict[str, Any] = {"layers": "0", "example_inputs": PICTURES, "zero_init": None}
        return inject(net(), source_spec=features(3).spec, **options).eval()
    args, kwargs = TINY[name].inputs(3, 0)
    return inject(
        TINY[name].build(), source_spec=features(3).spec, example_inputs=kwargs or args, zero_init=None
    ).eval()


@pytest.mark.parametrize(("name", "features"), [("net", token_features), ("net", map_features), ("bert", map_features)])
@pytest.mark.fault("calls", "torch.export with a source and a dynamic batch", "one program for every batch")
def test_one_exported_program_serves_all_batches(name: str, features: Features, tmp_path: Path) -> None:
    me, source = expand(name, features), features(3)
    args, kwargs = inputs_of(name, 3, 0)
    rows = torch.export.Dim("rows", min=2, max=64)
    words = [*list(inspect.signature(me.forward).parameters)[: len(args)], *kwargs]
    shapes: dict[str, Any] = {word: {0: rows} for word in words}
    shapes["source"] = [{0: rows}, None if source.mask is None else {0: rows}]
    program = torch.export.export(me, args, {**kwargs, "source": source}, dynamic_shapes=shapes, strict=False)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for batch in (2, 5):
        args, kwargs = inputs_of(name, batch, 1)
        given = features(batch, seed=3)
        wanted = first_tensor(me(*args, **kwargs, source=given))
        torch.testing.assert_close(first_tensor(loaded(*args, **kwargs, source=given)), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "features"), [("net", token_features), ("bert", map_features)])
def test_batch_and_text_length_are_dynamic(name: str, features: Features) -> None:
    """The tokens of a source, or those that a backbone reads."""
    me, source = expand(name, features), features(3)
    args, kwargs = inputs_of(name, 3, 0)
    rows, tokens = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("tokens", min=1, max=16)
    words = [*list(inspect.signature(me.forward).parameters)[: len(args)], *kwargs]
    long = {0: rows, 1: tokens}
    shapes: dict[str, Any] = {word: long if name == "bert" else {0: rows} for word in words}
    shapes["source"] = [{0: rows}, None] if source.mask is None else [long, long]
    program = torch.export.export(me, args, {**kwargs, "source": source}, dynamic_shapes=shapes, strict=False)
    assert not [node for node in program.graph.nodes if "mi2p" in str(node.target)]
    run = program.module()
    for batch, length in ((1, 4), (4, 2)):
        args, kwargs = inputs_of(name, batch, 1)
        given = features(batch, seed=3)
        if name == "bert":
            kwargs = {word: value[:, :length] for word, value in kwargs.items()}
        else:
            given = SourceFeatures(given.data[:, :length], torch.ones(batch, length, dtype=torch.bool))
        wanted = first_tensor(me(*args, **kwargs, source=given))
        torch.testing.assert_close(first_tensor(run(*args, **kwargs, source=given)), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dynamic", [True, None])
def test_one_compiled_graph_for_batches_and_lengths(dynamic: bool | None) -> None:
    """`dynamic=True`, and `mark_dynamic` on what varies."""
    me, (args, _) = expand("net", token_features), inputs_of("net", 3, 0)
    torch._dynamo.reset()
    compiled = torch.compile(me, backend="eager", fullgraph=True, dynamic=dynamic)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, length in ((5, 7), (11, 4), (6, 9)):  # equal sizes would share a symbol
            args, _ = inputs_of("net", batch, batch)
            generator = torch.Generator().manual_seed(batch)
            data = torch.randn(batch, length, 12, generator=generator)
            mask = torch.arange(length) < torch.arange(1, batch + 1).unsqueeze(1)
            if dynamic is None:
                for tensor, axes in ((args[0], (0,)), (data, (0, 1)), (mask, (0, 1))):
                    for axis in axes:
                        torch._dynamo.mark_dynamic(tensor, axis)
            given = SourceFeatures(data, mask)
            torch.testing.assert_close(compiled(*args, source=given), me(*args, source=given), atol=1e-5, rtol=1e-4)


class Traced(nn.Module):
    """What torch.jit takes: tensors in, a tensor out."""

    def __init__(self, me: ExpandedModel, names: list[str], masked: bool) -> None:
        super().__init__()
        self.me, self.names, self.masked = me, names, masked

    def forward(self, *tensors: Tensor) -> Tensor:
        given = 2 if self.masked else 1
        source, inputs = SourceFeatures(*tensors[:given]), tensors[given:]
        kwargs = dict(zip(self.names, inputs, strict=True)) if self.names else {}
        return first_tensor(self.me(*(() if kwargs else inputs), source=source, **kwargs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("name", "features"), CASES)
@pytest.mark.fault("calls", "torch.jit.trace with a source", "the traced model gives the model's numbers")
def test_a_trace_with_a_source(name: str, features: Features) -> None:
    me, (args, kwargs), source = expand(name, features), inputs_of(name, 3, 0), features(3)
    model = Traced(me, list(kwargs), source.mask is not None)
    parts = (source.data,) if source.mask is None else (source.data, source.mask)
    traced = torch.jit.trace(model, (*parts, *args, *kwargs.values()), check_trace=False)
    args, kwargs = inputs_of(name, 3, 1)
    other = (features(3, seed=5).data, *parts[1:], *args, *kwargs.values())
    torch.testing.assert_close(traced(*other), model(*other), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.fault(
    "calls", "torch.jit.trace with a source encoder inside", "the traced model gives the model's numbers"
)
def test_a_trace_with_a_source_encoder(frozen: bool) -> None:
    encoder = nn.Embedding(50, 12).requires_grad_(not frozen)
    words = torch.randint(0, 50, (3, 5))
    options = {"source_encoder": encoder, "source_example_inputs": words, "example_inputs": PICTURES}
    me = inject(net(), layers="0", zero_init=None, **options).eval()

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.me = me

        def forward(self, images: Tensor, words: Tensor) -> Tensor:
            return first_tensor(self.me(images, source=words))

    traced = torch.jit.trace(Asks().eval(), (PICTURES, words[: len(PICTURES)]))
    assert encoder.weight.requires_grad is not frozen
    file = io.BytesIO()
    torch.jit.save(torch.jit.freeze(traced), file)
    file.seek(0)
    others, words = torch.randn(3, *PICTURES.shape[1:]), torch.randint(0, 50, (3, 9))
    for one in (traced, torch.jit.load(file)):
        torch.testing.assert_close(one(others, words), first_tensor(me(others, source=words)), atol=1e-5, rtol=1e-4)


def test_features_are_a_tree_of_tensors() -> None:
    features = token_features(2)
    leaves, structure = pytree.tree_flatten({"source": features})
    assert [id(leaf) for leaf in leaves] == [id(features.data), id(features.mask)]
    again = pytree.tree_unflatten(leaves, structure)["source"]
    assert isinstance(again, SourceFeatures)
    assert again.data is features.data
    shapes = pytree.tree_map(lambda tensor: tuple(tensor.shape), features)
    assert (shapes.data, shapes.mask) == ((2, 5, 12), (2, 5))
    doubled = pytree.tree_map_only(Tensor, lambda tensor: tensor.double(), map_features(2))
    assert doubled.data.dtype is torch.float64
    assert doubled.mask is None
    me = expanded()
    torch._dynamo.reset()
    compiled = torch.compile(me, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(PICTURES, source=features), me(PICTURES, source=features))


@pytest.mark.parametrize("features", [token_features, map_features])
@pytest.mark.parametrize("most", [product_order.MANY, 0], ids=["few scores", "many"])
@pytest.mark.fault(
    "calls", "vmap, jvp, make_fx and fake tensors with a source", "the model's numbers, as on the backbone"
)
def test_transforms_that_hide_values(features: Features, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_order, "MANY", most)
    me, source = expand("net", features), features(2)
    weights = {name: one.detach() for name, one in me.named_parameters()}

    def loss(weights: Any, picture: Tensor, data: Tensor) -> Tensor:
        given = {"source": SourceFeatures(data.unsqueeze(0))}
        out: Tensor = torch.func.functional_call(me, weights, (picture.unsqueeze(0),), given)
        return out.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, PICTURES, source.data)
    for row in range(2):
        alone = torch.func.grad(loss)(weights, PICTURES[row], source.data[row])
        for name in weights:
            torch.testing.assert_close(each[name][row], alone[name], rtol=1e-4, atol=1e-5)

    def run(picture: Tensor, data: Tensor) -> Tensor:
        return me(picture, source=SourceFeatures(data, source.mask))  # type: ignore[no-any-return]

    _, tangent = torch.func.jvp(run, (PICTURES, source.data), (PICTURES, source.data))
    jacobians = torch.func.jacrev(run, (0, 1))(PICTURES, source.data)
    along = sum(
        (one.flatten(2) * given.flatten()).sum(2) for one, given in zip(jacobians, (PICTURES, source.data), strict=True)
    )
    torch.testing.assert_close(tangent, along, rtol=1e-4, atol=1e-5)
    batched = torch.autograd.functional.jacobian(run, (PICTURES, source.data), vectorize=True)
    torch.testing.assert_close(batched, jacobians, rtol=1e-4, atol=1e-5)
    graph = make_fx(run)(PICTURES, source.data)
    torch.testing.assert_close(graph(PICTURES, source.data), run(PICTURES, source.data))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert run(mode.from_tensor(PICTURES), mode.from_tensor(source.data)).shape == (2, 4)


class Logs(nn.Module):
    """A backbone that no compiler takes as a whole: it breaks off behind its site, as a log or a warning makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.site = nn.Conv2d(3, 4, 3)

    def loss(self, hidden: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return hidden.square()

    def forward(self, picture: Tensor) -> Tensor:
        return self.loss(self.site(picture))


@pytest.mark.fault("calls", "torch.compile where the backbone breaks the graph (a log, a print)", "the model's numbers")
def test_a_graph_that_breaks_inside_the_backbone() -> None:
    torch.manual_seed(0)
    source = token_features(2)
    me = inject(Logs(), "site", source_spec=source.spec, example_inputs=PICTURES, zero_init=None)
    compiled = torch.compile(me, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(PICTURES, source=source), me(PICTURES, source=source))
    torch.testing.assert_close(compiled(PICTURES), me(PICTURES))


@pytest.mark.parametrize("features", [token_features, map_features])
def test_a_model_on_the_meta_device_gives_shapes(features: Features) -> None:
    me, source = expand("net", features).to("meta"), features(2).data.to("meta")
    assert me(PICTURES.to("meta"), source=SourceFeatures(source)).shape == (2, 4)
