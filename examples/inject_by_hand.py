"""Inject by hand and train with a plain PyTorch loop.

A small ResNet learns to tell four classes apart. The picture alone tells two of the four pairs; the words tell the
rest. Everything is random and small, so this runs offline in seconds: put your own models and data in their place.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertModel

from mi2p_inject import inject


def batch(size: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Pictures that are bright or dark, words that are 7 or 8, and the class that both together name."""
    bright, word = torch.randint(0, 2, (size,)), torch.randint(0, 2, (size,))
    pictures = torch.randn(size, 3, 32, 32) + 2 * bright.view(-1, 1, 1, 1)
    ids = torch.randint(10, 50, (size, 6))
    ids[:, 2] = 7 + word
    return pictures, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 2 * bright + word


def main() -> None:
    torch.manual_seed(0)
    tiny = BertConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    me = inject(timm.create_model("resnet10t", num_classes=4), source_encoder=BertModel(tiny))
    print(me.summary())
    # Units are new and learn faster than what was pre-trained.
    optimizer = torch.optim.AdamW(
        [
            {"params": me.backbone.parameters(), "lr": 1e-3},
            {"params": me.units.parameters(), "lr": 5e-3},
        ]
    )
    for step in range(20):
        pictures, words, labels = batch(16)
        loss = F.cross_entropy(me(pictures, source=words), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 4:
            print(f"step {step + 1}: loss {loss.item():.3f}")
    me.eval()
    pictures, words, labels = batch(256)
    with torch.no_grad():
        both = (me(pictures, source=words).argmax(1) == labels).float().mean()
        alone = (me(pictures).argmax(1) == labels).float().mean()
    print(f"accuracy with the words {both:.2f}, without {alone:.2f}")


if __name__ == "__main__":
    main()
