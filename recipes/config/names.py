"""Names that people try: the right one for an earlier spelling or a common misnomer, the closest one for a slip."""

from __future__ import annotations

from collections.abc import Iterable

from mi2p_inject.core.registry import nearest

__all__ = ["INSTEAD", "closest", "instead"]

_DEVICE = "the accelerator that torch finds is used; choose one by the variable CUDA_VISIBLE_DEVICES, empty for the CPU"
_OUT = "name the folder on the command line: --out"
_RESUME = "give the same command again: an interrupted run goes on by itself"

#: an earlier or a common other name -> the option's name, or a sentence that answers what its writer wants
INSTEAD: dict[str, str] = {
    "rate": "learning_rate",
    "rate_new": "new_learning_rate",
    "vision_rate": "vision_learning_rate",
    "text_rate": "text_learning_rate",
    "warm_up": "warmup_ratio",
    "accumulate": "gradient_accumulation_steps",
    "workers": "num_workers",
    "gate": "zero_init",
    "train": "trainable",
    "train_backbone": "trainable",
    "heads": "write unit_options.num_heads=4",
    "d_k": "write unit_options.head_dim=32",
    "identity": "write unit_options.channel_embedding_dim=16",
    "multi_label": "write problem_type=single-label or multi-label",
    "system": "model",
    "backbone": "vision or text",
    "lr": "learning_rate",
    "base_lr": "learning_rate",
    "head_lr": "new_learning_rate",
    "warmup": "warmup_ratio",
    "warmup_steps": "warmup_ratio",
    "accumulation_steps": "gradient_accumulation_steps",
    "grad_accum": "gradient_accumulation_steps",
    "dataloader_num_workers": "num_workers",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "num_train_epochs": "epochs",
    "bs": "batch_size",
    "batch": "batch_size",
    "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "wd": "weight_decay",
    "clip_grad": "max_grad_norm",
    "early_stopping": "patience",
    "early_stopping_patience": "patience",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "optim": "optimizer",
    "loss_function": "loss",
    "image_column": "image_col",
    "text_column": "text_col",
    "label_column": "label_col",
    "img_col": "image_col",
    "labels": "label_col",
    "columns": "numeric_cols or categorical_cols",
    "tabular": "numeric_cols or categorical_cols",
    "numeric_columns": "numeric_cols",
    "numerical_columns": "numeric_cols",
    "continuous_cols": "numeric_cols",
    "categorical_columns": "categorical_cols",
    "cat_cols": "categorical_cols",
    "target": "label_col",
    "target_col": "label_col",
    "dataset": "data",
    "image_encoder": "vision",
    "vision_encoder": "vision",
    "text_encoder": "text",
    "img_size": "image_size",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "random_seed": "seed",
    "amp": "precision",
    "fp16": "write precision=fp16",
    "bf16": "write precision=bf16",
    "freeze": "write trainable=units, or name parameters: vision_freeze, text_freeze",
    "num_heads": "write unit_options.num_heads=4",
    "head_dim": "write unit_options.head_dim=32",
    "device": _DEVICE,
    "cuda": _DEVICE,
    "cpu": _DEVICE,
    "use_cpu": _DEVICE,
    "no_cuda": _DEVICE,
    "accelerator": _DEVICE,
    "gpu": _DEVICE,
    "gpus": _DEVICE,
    "num_gpus": "several processes train with torchrun --nproc-per-node N -m mi2p_inject.recipes train ...",
    "tensorboard": "write log=tensorboard",
    "wandb": "write log=wandb",
    "mlflow": "write log=mlflow",
    "report_to": "log",
    "logger": "log",
    "output_dir": _OUT,
    "output": _OUT,
    "out_dir": _OUT,
    "save_dir": _OUT,
    "resume": _RESUME,
    "resume_from_checkpoint": _RESUME,
}


def instead(name: str, names: Iterable[str]) -> str | None:
    """What to write in place of a name that is no option's; None where the table has no answer.

    Args:
        name: as it was written, with or without hyphens.
        names: those of the options.

    Examples:
        >>> instead("lr", ["learning_rate"])
        "it is called 'learning_rate'"
    """
    plain = name.lstrip("-").replace("-", "_")
    answer = plain if plain in set(names) else INSTEAD.get(plain)
    if answer is None or " " in answer:
        return answer
    return f"it is called {answer!r}"


def closest(name: str, names: Iterable[str], otherwise: str = "choose one of these") -> str:
    """``did you mean 'epochs'?``, or what to say where nothing is close."""
    meant = nearest(name, names, cutoff=0.5)
    return f"did you mean {meant!r}?" if meant is not None else otherwise
