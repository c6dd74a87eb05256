"""Train an expanded model with transformers' Trainer: a source in the batch is all that changes."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from mi2p_inject import inject

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def samples(count: int) -> list[dict[str, Any]]:
    """Pictures of noise, each with words of which the third is its class."""
    made = []
    for number in range(count):
        ids = torch.randint(10, 50, (6,))
        ids[2] = number % 3
        made.append({"pixel_values": torch.randn(3, 32, 32), "input_ids": ids, "labels": number % 3})
    return made


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The backbone's own arguments, and `source`: what the source encoder is called with."""
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
        "source": {"input_ids": torch.stack([item["input_ids"] for item in items])},
    }


def main() -> None:
    torch.manual_seed(0)
    vision = ViTForImageClassification(ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=3))
    me = inject(vision, source_encoder=BertModel(BertConfig(**SIZES, vocab_size=50)))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=30,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            remove_unused_columns=False,  # the collator reads columns that the backbone's forward does not name
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(me, arguments, train_dataset=samples(96), eval_dataset=samples(48), data_collator=collate)
        trainer.train()
        print(f"validation loss {trainer.evaluate()['eval_loss']:.3f}")


if __name__ == "__main__":
    main()
