"""A picture model that reads a text and a sound: two sources in one line, trained where neither alone is enough."""

from __future__ import annotations

import timm
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import ASTConfig, ASTModel, BertConfig, BertModel

from mi2p_inject import inject

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def samples(count: int) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """Pictures of noise, texts with one of two words, spectrograms with one of two tones, and which pair it is."""
    word, tone = torch.randint(2, (count,)), torch.randint(2, (count,))
    words = torch.randint(10, 50, (count, 5))
    words[:, 2] = 3 + word
    sound = 0.3 * torch.randn(count, 64, 32)
    sound[torch.arange(count), :, 8 + 16 * tone] += 3
    return torch.randn(count, 3, 32, 32), {"input_ids": words}, sound, 2 * word + tone


def main() -> None:
    torch.manual_seed(0)
    text = BertModel(BertConfig(vocab_size=50, **SIZES))
    audio = ASTModel(ASTConfig(num_mel_bins=32, max_length=64, **SIZES))
    me = inject(timm.create_model("resnet10t", num_classes=4), source_encoder={"text": text, "audio": audio})
    print(me.summary())

    optimizer = torch.optim.AdamW(me.parameters(), lr=2e-3)
    for step in range(1, 31):
        pictures, words, sound, labels = samples(16)
        loss = cross_entropy(me(pictures, source={"text": words, "audio": sound}), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.2f}")

    me.eval()
    pictures, words, sound, labels = samples(100)
    given = {"text and audio": {"text": words, "audio": sound}, "text": {"text": words}, "audio": {"audio": sound}}
    with torch.no_grad():
        for name, source in given.items():
            accuracy = (me(pictures, source=source).argmax(1) == labels).float().mean().item()
            print(f"with {name}: {accuracy:.2f} of the pairs (chance 0.25)")


if __name__ == "__main__":
    main()
