"""Makes the golden files: `PYTHONPATH=.:tests/support python tests/golden/make.py FOLDER`. They are made once a format.

A release must read what every release before it has written. When a format changes, the files of the old one stay,
the new ones come beside them under the number of the new format, and reading the old one goes on.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import torch
from golden_models import PICTURES, SOURCE, SOURCES, backbone, expanded, expanded_by_names
from recipes_data import write_table
from safetensors.torch import save_file

from mi2p_inject.checkpoint.schema import VERSION, VERSION_OF_NAMED
from mi2p_inject.recipes.saving.saved import FORMAT

SAMPLE = {"image": "picture.png", "text": "crimson thing number 3"}


def make_checkpoint(folder: Path, trainable: str, named: bool = False) -> None:
    """A checkpoint, and what its model gives."""
    me = expanded_by_names(backbone()) if named else expanded(backbone(), trainable)
    if trainable == "units":
        me.backbone.get_submodule("4").requires_grad_(True)
    with torch.no_grad():
        for number, parameter in enumerate(me.trainable_parameters()):
            parameter.copy_(torch.linspace(-0.3, 0.4, parameter.numel()).reshape(parameter.shape).roll(number, 0))
        expected = me.eval()(PICTURES, source=SOURCES if named else SOURCE)
    me.save_pretrained(folder)
    save_file({"output": expected}, folder / "expected.safetensors")


def make_run(folder: Path) -> None:
    """A finished training of both expanded models, and its answer to one sample."""
    from PIL import Image
    from rich.console import Console

    from mi2p_inject.recipes.config import make_config
    from mi2p_inject.recipes.evaluation.evaluate import predict_one
    from mi2p_inject.recipes.saving.saved import load_run
    from mi2p_inject.recipes.training.train import train_run

    folder = folder.absolute()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):  # a run folder says where its data were
        options = {
            "data": str(write_table(Path())), "model": "me-fusion", "fusion": "concat", "epochs": 2, "batch_size": 8,
            "vision": f"./{tiny_vit(Path('vit'))}", "text": f"./{tiny_bert(Path('bert'))}",
            "unit_options": {"num_heads": 2, "head_dim": 4, "channel_embedding_dim": 4},
            "learning_rate": 3e-3, "new_learning_rate": 3e-3, "max_length": 16, "image_size": 16,
        }  # fmt: skip
        train_run(make_config(options), folder, Console(quiet=True))
    Image.new("RGB", (20, 24), (200, 40, 40)).save(folder.parent / SAMPLE["image"])
    answer = predict_one(load_run(folder), folder.parent / SAMPLE["image"], SAMPLE["text"])
    (folder.parent / "answer.json").write_text(json.dumps(answer, indent=2) + "\n")


def tiny_vit(folder: Path) -> Path:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def tiny_bert(folder: Path) -> Path:
    import transformers

    letters = [mark + letter for mark in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=80, max_position_embeddings=16, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for trainable in ("all", "units"):
        make_checkpoint(out / f"checkpoint-{VERSION}-{trainable}", trainable)
    make_checkpoint(out / f"checkpoint-{VERSION_OF_NAMED}-named", "all", named=True)
    make_run(out / f"run-{FORMAT}" / "run")
