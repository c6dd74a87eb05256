"""From a name to a model: timm, transformers and open_clip, by name, model type, class, folder or hub id; no weights.

    [LIBRARY:]MODEL[/TOWER]

| MODEL | example |
|---|---|
| a timm architecture | `densenet121`, `vit_base_patch16_224.augreg_in21k` |
| a transformers model type or class, in its default configuration | `bert`, `BertForSequenceClassification` |
| an open_clip configuration, with the tower | `ViT-B-32/visual`, `ViT-B-32/text` |
| a folder that `save_pretrained` or the hub's client wrote | `./my-bert`, `open_clip:./my-clip/text` |
| a hub id | `google-bert/bert-base-uncased`, `timm/resnet50.a1_in1k`, `open_clip:org/name/text` |

`LIBRARY:` is needed only where a name would be taken for another library's: a folder first, then in the order above.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.core.errors import HubError, ZooError
from mi2p_inject.core.model_folder import bounded, checked_folder, hub_folder, read_json

__all__ = ["TOWERS", "build", "names", "resolve"]

TOWERS = ("visual", "text")
"""Attributes of an open_clip model, each a unimodal model."""
_MOST_BYTES = 2**45
"""Of parameters in float32: nine trillion of them."""


def build(name: str, meta: bool = True) -> nn.Module:
    """The model that a name stands for, in eval mode, without pre-trained weights: sites do not depend on them.

    Args:
        name: see this module.
        meta: build on the meta device (nothing allocated, whatever the size); else random values on the CPU.

    Raises:
        ZooError: unknown name (the closest ones are given), library not installed, hub not reachable, a model that
            needs code from the hub (which is never run) or that its library cannot build in this way.

    Examples:
        >>> from mi2p_inject.core.zoo import build
        >>> model = build("resnet18")
        >>> type(model).__name__, model.conv1.weight.device.type
        ('ResNet', 'meta')
    """
    library, identifier = resolve(name)
    with torch.device("meta" if meta else "cpu"), _without_log(), bounded(_MOST_BYTES):
        try:
            model = _BUILDERS[library](identifier, "meta" if meta else "cpu")
        except Exception as error:
            if isinstance(error, ZooError) and not isinstance(error, HubError):
                raise
            first_line = (str(error).strip() or "no message").splitlines()[0]
            close = _closest(identifier, 0.8) if "/" in identifier else []
            meant = f"did you mean {' or '.join(close)}? Else " if close else ""
            raise ZooError(
                f"{library} does not build {identifier!r}: {type(error).__name__}: {first_line}",
                expected="a model that its library builds from a configuration alone",
                given=name,
                fix=f"{meant}build it in Python as you are used to, and inject() it; offline, give a local folder",
            ) from error
    return model.eval()


def names(library: str) -> list[str]:
    """The names a library knows without the hub: timm's and open_clip's architectures, transformers' model types."""
    if library == "timm":
        known: list[str] = _library("timm").list_models()
    elif library == "open_clip":
        known = [f"{name}/{tower}" for name in _library("open_clip").list_models() for tower in TOWERS]
    else:
        known = sorted(_library("transformers").models.auto.configuration_auto.CONFIG_MAPPING_NAMES)
    return known


def _timm(identifier: str, device: str) -> nn.Module:
    timm = _library("timm")
    model: nn.Module
    if (folder := _folder(identifier)) is not None:
        with checked_folder(folder, "timm", weights=False) as staged:
            model = timm.create_model(f"local-dir:{staged}", pretrained=False)
    elif timm.is_model(identifier):
        model = timm.create_model(identifier, pretrained=False)
    else:
        raise _unknown(f"timm:{identifier}", "timm")
    return model


def _folder(identifier: str) -> Path | None:
    """The folder that is named, or that of the hub's repository; None for a name of the library's own."""
    if Path(identifier).is_dir():
        return Path(identifier)
    return hub_folder(identifier, weights=False) if "/" in identifier else None


def _transformers(identifier: str, device: str) -> nn.Module:
    transformers = _library("transformers")
    model: nn.Module
    if (cls := _model_class(identifier)) is not None:
        model = cls(cls.config_class())
        return model
    if (folder := _folder(identifier)) is not None:
        with checked_folder(folder, "transformers", weights=False) as staged:
            config = transformers.AutoConfig.from_pretrained(staged, trust_remote_code=False, local_files_only=True)
    elif identifier in names("transformers"):
        config = transformers.AutoConfig.for_model(identifier)
    else:
        raise _unknown(f"transformers:{identifier}", "transformers")
    model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    return model


def _open_clip(identifier: str, device: str) -> nn.Module:
    open_clip = _library("open_clip")
    name, tower = _tower(identifier)
    if not tower:
        raise ZooError(
            f"{name!r} is a model of two modalities",
            expected=f"one of its towers: {name}/visual or {name}/text",
            given=name,
            fix=f"add /{' or /'.join(TOWERS)}",
        )
    folder = _folder(name)
    if folder is None and name not in open_clip.list_models():
        raise _unknown(f"open_clip:{identifier}", "open_clip")
    with checked_folder(folder, "open_clip", weights=False) if folder else nullcontext() as staged:
        clip = open_clip.create_model(
            f"local-dir:{staged}" if staged else name,
            load_weights=False,
            pretrained_text=False,
            device=device,
            force_custom_text=True,
        )
    model: nn.Module = clip.get_submodule(tower)
    return model


_BUILDERS: dict[str, Callable[[str, str], nn.Module]] = {
    "timm": _timm,
    "transformers": _transformers,
    "open_clip": _open_clip,
}


def resolve(name: str) -> tuple[str, str]:
    """(library, what it calls the model)."""
    prefix, home, rest = name.rpartition("~/")
    if home and (not prefix or prefix.endswith(":")):  # shells expand it at the beginning of a word alone
        name = f"{prefix}{Path.home()}/{rest}"
    library, colon, identifier = name.partition(":")
    if colon and library in _BUILDERS:
        return library, identifier
    folder, tower = _tower(name)
    if not name:
        raise _unknown(name, *_BUILDERS)
    if Path(name).is_dir() or (tower and Path(folder).is_dir()):
        return _library_of_folder(Path(name) if Path(name).is_dir() else Path(folder)), name
    if _installed("transformers") and (name in names("transformers") or _model_class(name) is not None):
        return "transformers", name  # asked first as it imports in a fraction of timm's time; they share no names
    if _installed("timm") and _library("timm").is_model(name):
        return "timm", name
    if _installed("open_clip") and folder in _library("open_clip").list_models():
        return "open_clip", name
    if "/" in name and not name.startswith((".", "/", "~")):
        return ("timm" if name.startswith("timm/") else "transformers"), name
    raise _unknown(name, *_BUILDERS)


def _library_of_folder(folder: Path) -> str:
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    try:
        fields = read_json(folder / "config.json").keys()
    except ZooError as error:
        raise ZooError(
            f"{folder} holds no model's configuration: {error.what}",
            expected="config.json (transformers, timm) or open_clip_config.json",
            given=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
            fix="name the folder that save_pretrained wrote",
        ) from error
    return "timm" if "architecture" in fields and "model_type" not in fields else "transformers"


def _tower(identifier: str) -> tuple[str, str]:
    """A name without its tower, and the tower ("" where none is named)."""
    head, _, tail = identifier.rpartition("/")
    return (head, tail) if head and tail in TOWERS else (identifier, "")


def _model_class(name: str) -> Any:
    """The transformers model class of this name, if it is one with a configuration of its own."""
    if not name[:1].isupper() or not name.isidentifier():
        return None
    found = getattr(_library("transformers"), name, None)
    return found if isinstance(found, type) and getattr(found, "config_class", None) is not None else None


def _installed(library: str) -> bool:
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


def _library(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ZooError(
            f"{library} is not installed",
            expected="the library whose model is named",
            given=f"{type(error).__name__}: {error}",
            fix="pip install 'mi2p-inject[recipes]'",
        ) from error


def _unknown(name: str, *libraries: str) -> ZooError:
    close = _closest(name.partition(":")[2] or name, 0.5, libraries)
    return ZooError(
        f"no model is called {name!r}",
        expected="a timm name, a transformers model type or class, an open_clip name with tower, a folder or a hub id",
        given=name or "nothing",
        fix=f"closest are {', '.join(close)}" if close else "name it as its library does; LIBRARY:NAME where unclear",
    )


def _closest(name: str, cutoff: float, libraries: Iterable[str] = tuple(_BUILDERS)) -> list[str]:
    by_case = {one.lower(): one for library in libraries if _installed(library) for one in names(library)}
    return [by_case[one] for one in difflib.get_close_matches(name.lower(), by_case, n=4, cutoff=cutoff)]


@contextmanager
def _without_log() -> Iterator[None]:
    """open_clip warns of random weights, which is what is asked for here."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
