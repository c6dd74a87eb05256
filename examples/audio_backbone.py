"""An audio backbone that reads text: an Audio Spectrogram Transformer expanded with a BERT."""

from __future__ import annotations

import torch
from transformers import ASTConfig, ASTForAudioClassification, BertConfig, BertModel

from mi2p_inject import inject


def main() -> None:
    torch.manual_seed(0)
    audio = ASTForAudioClassification(
        ASTConfig(
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_length=64,
            num_mel_bins=32,
            num_labels=3,
        )
    )
    text = BertModel(
        BertConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    )
    me = inject(audio, source_encoder=text)
    print(me.summary())
    spectrograms = torch.randn(2, 64, 32)  # (batch, frames, mel bins)
    words = {"input_ids": torch.randint(1, 50, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    output = me(spectrograms, source=words, labels=torch.tensor([0, 2]))
    output.loss.backward()
    print(f"loss {output.loss.item():.3f}, logits {tuple(output.logits.shape)}")


if __name__ == "__main__":
    main()
