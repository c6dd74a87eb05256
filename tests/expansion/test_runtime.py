"""What happens around a forward: threads, compilation, checkpointing, precision, frozen parts, random module trees."""

from __future__ import annotations

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from helpers import PICTURES, differs, expanded, first_tensor, map_features, mixture, same, snapshot, token_features
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TINY
from torch import Tensor, nn

from mi2p_inject import MI2P, ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.adapters import adapters, find, pool
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import prepare

PAPER = ["densenet", "resnet", "bert", "xlnet", "clip_resnet", "clip_vit", "clip_text"]
TEXTS = ("bert", "xlnet", "clip_text")


def expand(name: str, **options: Any) -> tuple[nn.Module, ExpandedModel, Any, tuple[Any, Any]]:
    model = TINY[name].build()
    source = map_features(2) if name in TEXTS else token_features(2)
    args, kwargs = TINY[name].inputs(2, seed=0)
    me = inject(
        model,
        source_spec=source.spec,
        example_inputs=kwargs or args,
        **{"layers": "paper", "zero_init": None, **options},
    )
    return model, me, source, (args, kwargs)


def gradients(me: ExpandedModel, source: Any, inputs: tuple[Any, Any]) -> list[Tensor]:
    me.zero_grad()
    mixture(me(*inputs[0], source=source, **inputs[1])).backward()
    return [torch.zeros(1) if p.grad is None else p.grad.clone() for p in me.parameters()]


@pytest.mark.fault("calls", "forwards with different sources in several threads", "each has its own")
def test_threads_never_read_each_others_source() -> None:
    _, me, _, (args, kwargs) = expand("densenet")
    sources = [token_features(2, seed=seed) for seed in range(8)]
    with torch.no_grad():
        expected = [me(*args, source=source, **kwargs) for source in sources]
        alone = me(*args, **kwargs)

        def work(index: int) -> bool:
            for _ in range(5):
                if not torch.equal(me(*args, source=sources[index], **kwargs), expected[index]):
                    return False
                if not torch.equal(me(*args, **kwargs), alone):
                    return False
            return True

        with torch.no_grad(), ThreadPoolExecutor(8) as pool_of_threads:
            assert all(pool_of_threads.map(no_grad(work), range(8)))


def no_grad(work: Any) -> Any:
    def wrapped(index: int) -> Any:
        with torch.no_grad():
            return work(index)

    return wrapped


@pytest.mark.parametrize("name", PAPER)
def test_compiles_as_one_graph(name: str) -> None:
    model, me, source, (args, kwargs) = expand(name)
    torch._dynamo.reset()
    compiled = torch.compile(me, fullgraph=True, backend="eager")
    want = first_tensor(me(*args, source=source, **kwargs))
    torch.testing.assert_close(first_tensor(compiled(*args, source=source, **kwargs)), want, atol=1e-5, rtol=1e-4)
    alone = first_tensor(model(*args, **kwargs))
    torch.testing.assert_close(first_tensor(compiled(*args, **kwargs)), alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first_tensor(compiled(*args, source=source, **kwargs)), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "features"), [("densenet", token_features), ("bert", map_features)])
def test_one_compiled_graph_serves_all_batches(name: str, features: Any) -> None:
    """Both directions and both kinds of source, forward and backward; a second graph, for any batch, and no third."""
    model = TINY[name].build()
    sites = {"densenet": ["features.denseblock1", "features.denseblock4"], "bert": "encoder.layer.[02]"}[name]
    me = inject(model, layers=sites, source_spec=features(2).spec, zero_init=None)
    assert len(me.sites) == 2
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(me, fullgraph=True, backend=graphs)
    for batch in (2, 3, 5):
        args, kwargs = TINY[name].inputs(batch, seed=0)
        wanted = gradients(me, features(batch), (args, kwargs))
        for one, other in zip(gradients(compiled, features(batch), (args, kwargs)), wanted, strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert graphs.frame_count <= 2


def test_compiled_to_machine_code() -> None:
    """The default backend, forward and backward."""
    torch._dynamo.reset()
    me = expanded()
    compiled = torch.compile(me, fullgraph=True)
    inputs = ((PICTURES,), {})
    wanted = gradients(me, token_features(2), inputs)
    for one, other in zip(gradients(compiled, token_features(2), inputs), wanted, strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("site", [ViewSpec.tokens(96), ViewSpec.map(2048, 7, 7)], ids=str)
def test_nothing_overflows_at_2048_channels_under_autocast(site: ViewSpec, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    source = map_features(2, 2048, 7, 7)
    strong = SourceFeatures(source.data.relu() * torch.linspace(0, 30, 2048).view(1, -1, 1, 1))
    unit = MI2P(zero_init=None).build(site, strong.spec)
    view = 20 * (torch.randn(2, 2048, 7, 7) if site.kind == "map" else torch.randn(2, 64, 96))
    exact = unit(view, prepare(strong, strong.spec, torch.float32))
    with torch.autocast("cpu", dtype):
        low = unit(view, prepare(strong, strong.spec, torch.float32))
    assert bool(torch.isfinite(low).all())
    error = (low.float() - exact).norm() / exact.norm()
    assert error < (0.1 if dtype is torch.bfloat16 else 0.02)


@pytest.mark.parametrize("name", ["densenet", "bert"])
def test_bfloat16_autocast_keeps_the_sites_dtype(name: str) -> None:
    model, me, source, (args, kwargs) = expand(name)
    full = first_tensor(me(*args, source=source, **kwargs))
    with torch.autocast("cpu", torch.bfloat16):
        plain = first_tensor(model(*args, **kwargs))
        out = first_tensor(me(*args, source=source, **kwargs))
    assert out.dtype == plain.dtype
    torch.testing.assert_close(out.float(), full, atol=0.2, rtol=0.2)


def test_channels_last_gives_the_same_numbers() -> None:
    _, me, source, (args, _) = expand("resnet")
    expected = me(*args, source=source)
    me.to(memory_format=torch.channels_last)
    got = me(args[0].to(memory_format=torch.channels_last), source=source)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_double_and_back() -> None:
    _, me, source, (args, _) = expand("resnet")
    expected = me(*args, source=source)
    got = me.double()(args[0].double(), source=source)
    torch.testing.assert_close(got.float(), expected, atol=1e-4, rtol=1e-4)


def test_train_units_freezes_the_backbone_and_its_batch_norm() -> None:
    model, me, source, inputs = expand("densenet", trainable="units")
    before = copy.deepcopy(model.state_dict())
    me.train()
    optimizer = torch.optim.SGD(me.trainable_parameters(), lr=0.1)
    for _ in range(2):
        gradients(me, source, inputs)
        optimizer.step()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert {id(p) for p in me.trainable_parameters()} == {id(p) for p in me.units.parameters()}
    assert {key.split(".")[0] for key in me.state_dict()} == {"backbone", "units"}


def test_train_all_trains_both() -> None:
    _, me, _, _ = expand("densenet")
    assert {id(p) for p in me.trainable_parameters()} == {id(p) for p in me.parameters()}


def test_hidden_states_stay_true() -> None:
    model, me, source, (_, kwargs) = expand("bert")
    out = me(source=source, output_hidden_states=True, **kwargs)
    same(out.hidden_states[-1], out.last_hidden_state)
    plain = model(output_hidden_states=True, **kwargs)
    assert not differs(out.hidden_states[0], plain.hidden_states[0])
    assert differs(out.hidden_states[1], plain.hidden_states[1])
    same(me(source=source, return_dict=False, **kwargs)[0], out.last_hidden_state)


def test_summary_tells_all() -> None:
    _, me, _, _ = expand("densenet")
    text = me.summary()
    for site in me.sites:
        assert site.path in text
        assert str(site.spec) in text
    assert abs(sum(_shares(text)) - 100) < 0.3  # rounded to a tenth each
    assert f"{sum(p.numel() for p in me.units.parameters()):,}" in text


def test_a_notebook_shows_the_summary() -> None:
    _, me, _, _ = expand("densenet")
    page = me._repr_html_()
    head, *lines = me.summary().splitlines()
    cells = [line.split("  ") for line in (head, *lines) if line.startswith(("site", "features."))]
    assert page.count("<tr>") == len(cells) == len(me.sites) + 1
    for cell in (one.strip() for line in cells for one in line if one.strip()):
        assert f">{escape(cell)}<" in page
    assert page.rpartition("</table>")[2].split("<br>") == [escape(one) for one in lines[len(cells) :]]


def _shares(text: str) -> list[float]:
    rows = [line.split() for line in text.splitlines() if line.startswith("features.")]
    return [round(float(row[-1].rstrip("%")), 1) for row in rows]


@pytest.mark.parametrize("name", TINY)
def test_pooled_vector(name: str) -> None:
    model = TINY[name].build()
    match = find(model)
    assert match is not None
    args, kwargs = TINY[name].inputs(3, seed=0)
    readout = match.adapter.readout
    taken: list[Any] = []
    inner = model.get_submodule(match.root)
    path = readout.path_in(inner)
    if path:
        model.get_submodule(match.path(path)).register_forward_hook(lambda _, __, out: taken.append(out))
    output = inner(*args, **kwargs) if readout.call == "forward" else getattr(inner, readout.call)(*args, **kwargs)
    layout = readout.layout or Source(model, kwargs or args).layout
    hidden = layout.as_tokens().view(taken[0] if path else output)
    mask = readout.mask(inner, args, kwargs, hidden) if readout.mask else None
    vectors = pool(hidden, readout.pooled, mask, inner)
    assert vectors.shape == (3, hidden.shape[1] if hidden.dim() == 4 else hidden.shape[2])
    if mask is not None:  # padding never counts
        noisy = torch.where(mask.bool().unsqueeze(-1), hidden, hidden + 100)
        torch.testing.assert_close(pool(noisy, readout.pooled, mask, inner), vectors)
    assert {row.readout.pooled for row in adapters()} >= {"mean", "cls"}


def test_importing_stays_light() -> None:
    code = (
        "import sys, mi2p_inject; heavy = {'timm', 'transformers', 'open_clip', 'safetensors', 'huggingface_hub',"
        " 'numpy.testing', 'datasets', 'sklearn', 'typer', 'matplotlib', 'torchvision'}; print(*heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@st.composite
def module_trees(draw: st.DrawFn) -> tuple[nn.Module, list[str]]:
    """A random tree of convolutions, norms and containers on maps of width 4, and the paths of its sites."""

    def node(depth: int) -> nn.Module:
        kinds = ["conv", "norm", "relu"] + (["sequence"] * 2 if depth < 3 else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "sequence":
            return nn.Sequential(*[node(depth + 1) for _ in range(draw(st.integers(1, 3)))])
        return {"conv": lambda: nn.Conv2d(4, 4, 1), "norm": lambda: nn.BatchNorm2d(4), "relu": nn.ReLU}[kind]()

    model = nn.Sequential(nn.Conv2d(3, 4, 1), *[node(0) for _ in range(draw(st.integers(1, 3)))])
    paths = [path for path, _ in model.named_modules() if path]
    chosen = draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4, unique=True))
    for module in model.modules():
        module.training = draw(st.booleans())
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.booleans()))
    return model, chosen


@settings(max_examples=40, deadline=None)
@given(module_trees(), st.sampled_from(["all", "units"]), st.booleans())
def test_inject_then_eject_is_the_identity(tree: tuple[nn.Module, list[str]], train: Any, run: bool) -> None:
    model, paths = tree
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7)
    before, state = snapshot(model), copy.deepcopy(model.state_dict())
    twin = copy.deepcopy(model)
    me = inject(model, layers=paths, source_spec=ViewSpec.tokens(4), example_inputs=x, trainable=train)
    assert sorted(site.path for site in me.sites) == sorted(paths)
    if run:
        me.eval()
        with torch.no_grad():
            me(x, source=token_features(2, width=4))
    assert me.eject() is model
    assert snapshot(model) == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(model(x), twin(x))
