"""Checks of a model as the frozen source encoder of a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mi2p_inject.core.inputs import Inputs
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.testing.checks.gradients import gradients, step
from mi2p_inject.testing.compare import close, floats
from mi2p_inject.testing.inputs import reversed_samples, run, seed_everything
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.snapshot import Snapshot, same_bits
from mi2p_inject.testing.subject import Trial

__all__ = ["check_features", "check_frozen", "check_given_back", "check_training"]


def check_training(trial: Trial) -> None:
    """With this source the output is the backbone's before training; gradients reach the unit; a step changes it."""
    me, pictures = _attached(trial, trial.twin())
    features = _encode(me, trial)
    plain, first = me.backbone(pictures), me(pictures, source=features)
    trial.equal(first, plain, "the output differs before training")
    step(me, gradients(trial, me, first, each_parameter=False))
    second = me(pictures, source=features)
    trial.differ(second, plain, "a step of training changes nothing of the output")
    gradients(trial, me, second, each_parameter=True)


def check_frozen(trial: Trial) -> None:
    """The encoder runs once a forward, in eval mode and without gradients, whatever mode a module of it is put into.

    Features that are given are not encoded again; none of its values change; it is not in the `state_dict`.
    """
    encoder = trial.twin()
    calls = _counted(encoder.get_submodule(trial.subject.root))
    encoder.train()
    me, pictures = _attached(trial, encoder)
    randomize_zero_parameters(me.units, strength=1.0)
    me.train()
    modes = [path or "the encoder" for path, module in encoder.named_modules() if module.training]
    trial.require(not modes, "the encoder is not in eval mode", expected="eval mode", given=", ".join(modes[:3]))
    features = _encode(me, trial)
    values = {name: tensor.clone() for name, tensor in _values(encoder)}
    calls.clear()
    output = _forward(me, trial, pictures)
    encoded = len(calls)
    output.sum().backward()
    calls.clear()
    again = _encode(me, trial)
    trial.require(
        encoded == len(calls),
        "a forward does not encode its source once",
        expected=f"{len(calls)} calls of the encoder's modules, as one encode",
        given=f"{encoded}",
    )
    calls.clear()
    reused = me(pictures, source=features)
    trial.require(not calls, "given features are encoded again", expected="no call", given=f"{len(calls)} calls")
    trial.equal(reused, output, "given features give another output", "the output of encoding in the forward")
    trial.equal(again.data, features.data, "a second encode gives other features", "the first one's")
    trial.differ(output, me.backbone(pictures), "the source changes nothing of the output")
    for module in list(encoder.modules())[1:]:
        module.training = True  # as a user's `encoder.layer[0].train()` does
    trial.equal(
        _encode(me, trial).data, features.data, "a module in train mode changes the features", "features in eval mode"
    )
    grads = [name for name, parameter in encoder.named_parameters() if parameter.grad is not None]
    trial.require(not grads, "parameters of the source get gradients", expected="none", given=", ".join(grads[:3]))
    changed = [name for name, tensor in _values(encoder) if not same_bits(tensor, values[name])]
    trial.require(not changed, "values of the source change", expected="no change", given=", ".join(changed[:3]))
    own = {id(tensor) for _, tensor in _values(encoder)}
    inside = [name for name, tensor in me.state_dict(keep_vars=True).items() if id(tensor) in own]
    trial.require(not inside, "the source is in the state_dict", expected="no key", given=", ".join(inside[:3]))


def check_features(trial: Trial) -> None:
    """Each sample's features are finite, follow that sample wherever it is in the batch, and have a real token."""
    me, _ = _attached(trial, trial.twin())
    bare, batch = trial.twin().get_submodule(trial.subject.root), trial.subject.batch
    features = _encode(me, trial)
    trial.require(
        len(features) == batch, "the features have another batch", expected=f"{batch}", given=f"{len(features)}"
    )
    finite = bool(features.data.isfinite().all())
    trial.require(finite, "the features hold NaN or infinity", expected="finite numbers", given="NaN or infinity")
    real = features.mask is None or bool(features.mask.any(1).all())
    trial.require(real, "the mask leaves a sample without tokens", expected="a real token in each", given="none")
    turned = reversed_samples(trial.inputs)
    other = _encode(me, trial, turned)
    if features.mask is not None and other.mask is not None:
        trial.equal(other.mask.flip(0), features.mask, "the mask does not follow its samples", "the same mask")
    if _follows(other.data, features.data):
        return
    with torch.no_grad():
        pairs = zip(floats(run(bare, turned)), floats(run(bare, trial.inputs)), strict=True)
        mixes = not all(_follows(one, two) for one, two in pairs)
    trial.require(
        mixes,
        "the features of a sample depend on the others",
        expected="the same features, in reverse order, for the samples in reverse order",
        given="other numbers, while the encoder's own outputs follow their samples",
        fix="the adapter's readout takes another axis for the batch",
    )
    trial.note("its samples depend on their place in the batch")


def check_given_back(trial: Trial) -> None:
    """`eject` gives the source encoder back as it was: modes, `requires_grad`, hooks, attributes, values."""
    encoder, bare = trial.twin(), trial.twin()
    for one in (encoder, bare):
        with torch.no_grad():
            run(one.get_submodule(trial.subject.root), trial.inputs)
        one.train()
        for child in list(one.children())[:1]:
            child.eval()
        for parameter in list(one.parameters())[:1]:
            parameter.requires_grad_(False)
    before = Snapshot(encoder)
    me, pictures = _attached(trial, encoder, anew=True)
    me.train()
    _forward(me, trial, pictures).sum().backward()
    modes = [module.training for module in bare.modules()]
    with torch.no_grad():
        run(bare.eval().get_submodule(trial.subject.root), trial.inputs)
    for module, mode in zip(bare.modules(), modes, strict=True):
        module.training = mode
    me.eject()
    changed = list(before.changes(encoder, bare))
    trial.require(
        not changed, "the source encoder is not as it was", expected="no change", given=f"other {', '.join(changed)}"
    )


def _attached(trial: Trial, encoder: nn.Module, anew: bool = False) -> tuple[ExpandedModel, Tensor]:
    """A small network that reads from the encoder, and pictures for it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        pictures = torch.randn(trial.subject.batch, 3, 8, 8)
    reference = next(encoder.parameters(), torch.empty(0))
    network.to(reference.device)
    pictures = pictures.to(reference.device)
    return trial.attach(network, pictures, encoder, anew), pictures


def _forward(me: ExpandedModel, trial: Trial, pictures: Tensor) -> Tensor:
    """A forward that encodes the model's inputs."""
    args, kwargs = trial.inputs
    seed_everything()
    output: Tensor = me(pictures, source=kwargs or args)
    return output


def _encode(me: ExpandedModel, trial: Trial, inputs: Inputs | None = None) -> SourceFeatures:
    args, kwargs = inputs or trial.inputs
    seed_everything()
    features: SourceFeatures = me.encode(kwargs or args)
    return features


def _counted(module: nn.Module) -> list[int]:
    """Grows by one at each call of a module without children."""
    calls: list[int] = []
    for leaf in module.modules():
        if not list(leaf.children()):
            leaf.register_forward_hook(lambda *_: calls.append(1))
    return calls


def _values(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _follows(turned: Tensor, straight: Tensor) -> bool:
    """Whether an output of the samples in reverse order is the reversed output."""
    return not turned.dim() or close(turned.flip(0), straight)
