"""What is measured: the two expanded models of the paper at full size, the same by hand, and peers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.sources.features import prepare
from mi2p_inject.sources.prepared import PreparedSource

__all__ = [
    "DEVICE",
    "LAYERS",
    "ByHand",
    "LateFusion",
    "Step",
    "bert",
    "densenet",
    "features_of",
    "forward_backward",
    "hidden",
    "ids",
    "me_bert",
    "me_densenet",
    "peers",
    "picture",
    "pixels",
    "quiet",
    "training_step",
    "warm_libraries",
    "words",
]

BATCH, TOKENS, PIXELS = 8, 64, 224
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYERS = [f"encoder.layer.{number}" for number in range(12)]
PICTURE, WORDS = ViewSpec.map(1024, 7, 7), ViewSpec.tokens(768)

Step = Callable[[], object]


def quiet() -> None:
    """Notices of other libraries off."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()


def warm_libraries() -> None:
    """Let the libraries load what a first `inject` makes them load."""
    first = nn.Conv2d(3, 8, 3)
    inject(nn.Sequential(first), "0", source_spec=WORDS, example_inputs=torch.zeros(2, 3, 8, 8))


def bert(**config: Any) -> nn.Module:
    """BERT-base, or one of another configuration; random weights, training mode."""
    with _seeded():
        model: nn.Module = transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False)
    return model.to(DEVICE).train()


def densenet(**options: Any) -> nn.Module:
    """DenseNet-121, or one with other options; random weights, training mode."""
    with _seeded():
        model: nn.Module = timm.create_model("densenet121", **options)
    return model.to(DEVICE).train()


def me_bert(backbone: nn.Module | None = None, sites: int | None = 12, **options: Any) -> ExpandedModel:
    """ME BERT-base: a unit after each of the first `sites` layers (None: the recommended ones), source map 1024×7×7."""
    layers = None if sites is None else LAYERS[:sites]
    return inject(backbone or bert(), layers, source_spec=PICTURE, **options)


def me_densenet(backbone: nn.Module | None = None, layers: str | None = "paper", **options: Any) -> ExpandedModel:
    """ME DenseNet-121: a unit after each of the four blocks (None: the recommended one), source of 768-wide tokens."""
    return inject(backbone or densenet(), layers, source_spec=WORDS, **options)


def ids(batch: int = BATCH) -> Tensor:
    return torch.randint(0, 30_000, (batch, TOKENS), generator=_generator()).to(DEVICE)


def pixels(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, 3, PIXELS, PIXELS, generator=_generator()).to(DEVICE)


def picture(batch: int = BATCH) -> SourceFeatures:
    return SourceFeatures(torch.randn(batch, 1024, 7, 7, generator=_generator()).to(DEVICE))


def words(batch: int = BATCH) -> SourceFeatures:
    return SourceFeatures(torch.randn(batch, TOKENS, 768, generator=_generator()).to(DEVICE))


def hidden(output: Any) -> Tensor:
    """The tensor to take a loss of."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def features_of(encoder: nn.Module, x: Tensor) -> Any:
    """What a source gives: a CNN's last map, a transformer's last hidden state."""
    taken: Any = encoder.forward_features(x) if hasattr(encoder, "forward_features") else encoder(x)  # type: ignore[operator]
    return taken


def forward_backward(model: nn.Module, *args: Any, **kwargs: Any) -> Step:
    """One forward and backward; gradients are dropped first, as a training loop does."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        hidden(model(*args, **kwargs)).float().square().mean().backward()

    return step


def training_step(model: nn.Module, *args: Any, **kwargs: Any) -> Step:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    run = forward_backward(model, *args, **kwargs)

    def step() -> None:
        run()
        optimizer.step()

    return step


class ByHand(nn.Module):
    """The same units without hooks: each site is replaced by a module that adds its unit's residual itself."""

    def __init__(self, me: ExpandedModel) -> None:
        super().__init__()
        self.source, units = me.expansion_config.source, {site.path: me.unit(site.path) for site in me.sites}
        self.edited = me.eject()
        for path, unit in units.items():
            self.edited.set_submodule(path, _Edited(self.edited.get_submodule(path), unit))

    def forward(self, *args: Any, source: SourceFeatures) -> Any:
        prepared = prepare(source, self.source, torch.float32)
        for module in self.edited.modules():
            if isinstance(module, _Edited):
                module.source = prepared
        return self.edited(*args)


class _Edited(nn.Module):
    def __init__(self, original: nn.Module, unit: nn.Module) -> None:
        super().__init__()
        self.original, self.unit = original, unit
        self.source: PreparedSource | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.original(*args, **kwargs)
        added: Tensor = output + self.unit(output, self.source)
        return added


class LateFusion(nn.Module):
    """The same two backbones, each on its own, and a linear layer on their pooled vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.text = timm.create_model("densenet121", num_classes=0).to(DEVICE).train(), bert()
        self.head = nn.Linear(1024 + 768, 10).to(DEVICE)

    def forward(self, x: Tensor, input_ids: Tensor) -> Tensor:
        text = self.text(input_ids).last_hidden_state.mean(1)
        logits: Tensor = self.head(torch.cat([self.vision(x), text], -1))
        return logits


def peers() -> dict[str, Callable[[], Step]]:
    """Training steps of whole bimodal models on the same batch: 8 pictures of 224 px, 64 tokens each."""
    from transformers import ViltConfig, ViltModel, VisualBertConfig, VisualBertModel

    def vilt() -> Step:
        model = ViltModel(ViltConfig(image_size=PIXELS, max_position_embeddings=TOKENS)).to(DEVICE).train()
        return training_step(model, input_ids=ids(), pixel_values=pixels())

    def visual_bert() -> Step:
        model = VisualBertModel(VisualBertConfig(visual_embedding_dim=1024)).to(DEVICE).train()
        regions = torch.randn(BATCH, 49, 1024, device=DEVICE)
        return training_step(model, input_ids=ids(), visual_embeds=regions)

    def me_with_sources(expand: Callable[..., ExpandedModel], backbone: nn.Module, encoder: nn.Module, *x: Any) -> Step:
        me = expand(backbone, source_encoder=encoder)
        return training_step(me, x[0], source=x[1])

    return {
        "late fusion: DenseNet-121 and BERT-base, both trained": lambda: training_step(LateFusion(), pixels(), ids()),
        "ViLT (transformers), BERT-base size, 49 patches": vilt,
        "VisualBERT (transformers), BERT-base size, 49 given regions": visual_bert,
        "ME DenseNet-121, source features given": lambda: training_step(me_densenet(), pixels(), source=words()),
        "ME BERT-base, source features given": lambda: training_step(me_bert(), ids(), source=picture()),
        "ME DenseNet-121 with a frozen BERT-base as source": lambda: me_with_sources(
            inject, densenet(), bert(), pixels(), {"input_ids": ids()}
        ),
        "ME BERT-base with a frozen DenseNet-121 as source": lambda: me_with_sources(
            inject, bert(), densenet(), ids(), pixels()
        ),
    }


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _seeded() -> Any:
    torch.manual_seed(0)
    return torch.random.fork_rng(devices=[])
