"""transformers' Trainer and Accelerate treat an expanded model exactly as its backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers as hf
from models import BERT, PATCHES, hugging
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject

ROWS = 8
GPT2 = {**BERT, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 40, "use_cache": False}
SMALL = {**BERT, "num_hidden_layers": 1, "num_labels": 3}


class Plain(nn.Module):
    """Somebody's module: it takes no other keyword arguments, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, 3)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.body(pixel_values).mean((2, 3)))
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def plain() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pictures": (hugging("ViTForImageClassification", {**PATCHES, "num_labels": 3}), "image"),
    "language": (hugging("GPT2LMHeadModel", GPT2), "language"),
    "answers": (hugging("BertForQuestionAnswering", {**SMALL, "num_labels": 2}), "span"),
    "module": (plain, "image"),
}


def rows(kind: str) -> list[dict[str, Any]]:
    """Inputs and labels, a source, and a column that no model takes."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for row in range(ROWS):
        ids = torch.randint(3, 50, (6,), generator=generator)
        picture = torch.randn(3, 32, 32, generator=generator)
        one = {"pixel_values": picture, "labels": row % 3} if kind == "image" else {"input_ids": ids}
        if kind == "language":  # another number of labels in each row
            one["labels"] = ids.masked_fill(torch.arange(6) > row % 5, -100)
        if kind == "span":
            one |= {"start_positions": 1, "end_positions": row % 4}
        found.append({**one, "source": torch.randn(5, 12, generator=generator), "name": row})
    return found


def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
    assert all("name" not in row for row in batch)  # the Trainer takes out what forward does not take
    columns = {name: [row[name] for row in batch] for name in batch[0]}
    stacked = {name: torch.stack([torch.as_tensor(one) for one in values]) for name, values in columns.items()}
    return {**stacked, "source": SourceFeatures(stacked["source"])} if "source" in stacked else stacked


def metrics(answers: Any) -> dict[str, float]:
    logits = answers.predictions[0] if isinstance(answers.predictions, tuple) else answers.predictions
    labels = answers.label_ids[0] if isinstance(answers.label_ids, tuple) else answers.label_ids
    return {"mean": float(logits.mean()), "labels": float(labels.sum())}


def trainer(model: nn.Module, kind: str, folder: Path, **options: Any) -> hf.Trainer:
    settings = hf.TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1, learning_rate=1e-2, seed=0,
        per_device_train_batch_size=1, gradient_accumulation_steps=4,
        **{"max_steps": 4, "save_strategy": "no"} | options,
    )  # fmt: skip
    data = rows(kind)
    return hf.Trainer(model, settings, collate, data, data, compute_metrics=metrics)


def expanded(name: str, frozen: bool = True) -> ExpandedModel:
    options = (
        {"layers": "body.0", "example_inputs": torch.zeros(2, 3, 32, 32)} if name == "module" else {"layers": "paper"}
    )
    me = inject(MODELS[name][0](), source_spec=ViewSpec.tokens(12), **options)
    me.units.requires_grad_(not frozen)  # so that they stay at zero, and all numbers must be the backbone's
    return me


def numbers(history: list[dict[str, float]]) -> list[dict[str, float]]:
    names = ("loss", "grad_norm", "eval_loss", "eval_mean", "eval_labels", "step")
    return [{name: line[name] for name in names if name in line} for line in history if "train_runtime" not in line]


def both(name: str, tmp_path: Path, frozen: bool = True, **options: Any) -> list[hf.Trainer]:
    """The same run on the expanded model and on the backbone alone."""
    build, kind = MODELS[name]
    made = []
    for index, model in enumerate((expanded(name, frozen), build())):
        made.append(trainer(model, kind, tmp_path / str(index), **options))  # seeds the dropout
        made[-1].train()
    return made


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.fault(
    "S3",
    "a Trainer run with accumulation, evaluation, best model and resume",
    "the losses, eval_loss and metrics of the same run on the backbone",
)
def test_a_whole_run_gives_the_backbones_numbers(name: str, tmp_path: Path) -> None:
    """Accumulated gradients, evaluation, the best checkpoint, tied weights, and resuming."""
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    got, wanted = both(name, tmp_path, **options)
    history = numbers(got.state.log_history)
    assert history == numbers(wanted.state.log_history)
    assert {"loss", "grad_norm"} < history[0].keys()
    assert got.state.best_metric == wanted.state.best_metric == got.evaluate()["eval_loss"]
    assert got.evaluate().keys() == wanted.evaluate().keys() >= {"eval_loss", "eval_mean", "eval_labels"}
    again = trainer(expanded(name), MODELS[name][1], tmp_path / "0", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "0" / "checkpoint-2"))
    assert numbers(again.state.log_history) == history


@pytest.mark.fault("S3", "the first step with a source, at the default start", "the backbone's loss")
def test_a_source_that_trains_begins_with_the_backbones_loss(tmp_path: Path) -> None:
    got, wanted = (numbers(one.state.log_history) for one in both("pictures", tmp_path, frozen=False))
    assert got[0]["loss"] == wanted[0]["loss"]
    assert got[0]["grad_norm"] > wanted[0]["grad_norm"]
    assert got[-1]["loss"] != wanted[-1]["loss"]


@pytest.mark.parametrize("name", ["pictures", "language"])
@pytest.mark.fault("S4", "gradient_checkpointing=True of the Trainer", "as on the backbone")
def test_gradient_checkpointing_of_the_trainer(name: str, tmp_path: Path) -> None:
    got, wanted = both(name, tmp_path, gradient_checkpointing=True, max_steps=2)
    assert got.model.is_gradient_checkpointing
    assert numbers(got.state.log_history) == numbers(wanted.state.log_history)


@pytest.mark.fault("S4", "gradient_checkpointing=True on a backbone that has none", "an error, as on the backbone")
def test_gradient_checkpointing_of_a_backbone_without_it_is_refused(tmp_path: Path) -> None:
    model = hugging("ConvNextForImageClassification", {"depths": [1, 1], "hidden_sizes": [8, 12], "num_stages": 2})()
    me = inject(model, source_spec=ViewSpec.tokens(12), layers=-1, example_inputs=torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="does not support"):
        trainer(me, "image", tmp_path, gradient_checkpointing=True).train()


@pytest.mark.fault("S3", "label smoothing of a language model", "the labels are shifted, as on the backbone")
def test_label_smoothing_shifts_the_labels_of_a_language_model(tmp_path: Path) -> None:
    got, wanted = both("language", tmp_path, label_smoothing_factor=0.1, max_steps=1)
    assert numbers(got.state.log_history) == numbers(wanted.state.log_history)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", ["pictures", "language", "module"])
@pytest.mark.fault("S4", "Accelerate: three steps, saved and loaded state, unwrapped", "as on the backbone")
def test_accelerate(name: str, precision: str, tmp_path: Path) -> None:
    """Three steps, a saved and a loaded state, and the model unwrapped."""

    def steps(model: nn.Module) -> list[float]:
        accelerate.state.AcceleratorState._reset_state()
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
        loader = torch.utils.data.DataLoader(
            rows(MODELS[name][1]), 4, collate_fn=lambda batch: collate([dict(list(row.items())[:-1]) for row in batch])
        )
        prepared, optimizer, loader = accelerator.prepare(model.train(), optimizer, loader)
        takes = isinstance(model, ExpandedModel)
        found = []
        for batch in loader:
            loss = prepared(**{key: value for key, value in batch.items() if takes or key != "source"})["loss"]
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        accelerator.save_model(prepared, str(tmp_path / "model"))
        accelerator.save_state(str(tmp_path / "state"))
        before = {key: one.clone() for key, one in model.state_dict().items()}
        with torch.no_grad():
            next(model.parameters()).add_(1)
        accelerator.load_state(str(tmp_path / "state"))
        assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
        assert accelerator.unwrap_model(prepared) is model
        accelerator.free_memory()
        return found

    assert steps(expanded(name)) == steps(MODELS[name][0]())


@pytest.mark.fault("S3", "Seq2SeqTrainer with predict_with_generate", "the backbone's metrics; texts read the source")
def test_a_trainer_that_generates(tmp_path: Path) -> None:
    fields = {"d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 50,
              "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}  # fmt: skip
    ids = torch.arange(3, 9)
    rows = [{"input_ids": ids, "labels": ids[: 4 - row % 2], "source": torch.ones(5, 12)} for row in range(4)]

    def collated(batch: list[dict[str, Any]]) -> dict[str, Any]:
        stacked = {name: torch.stack([row[name][:3] if name == "labels" else row[name] for row in batch])
                   for name in batch[0]}  # fmt: skip
        return {**stacked, "source": SourceFeatures(stacked["source"])} if "source" in stacked else stacked

    found = []
    for wrap in (lambda one: one, lambda one: inject(one, source_spec=ViewSpec.tokens(12))):
        settings = hf.Seq2SeqTrainingArguments(
            str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True, predict_with_generate=True,
            generation_max_length=6, per_device_eval_batch_size=2,
        )  # fmt: skip
        made = hf.Seq2SeqTrainer(wrap(hugging("T5ForConditionalGeneration", fields)()), settings, collated, None, rows,
                                 compute_metrics=lambda one: {"sum": float(one.predictions.sum())})  # fmt: skip
        result = made.evaluate()
        found.append((result["eval_loss"], result["eval_sum"]))
    assert found[0] == found[1]
