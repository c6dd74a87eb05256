"""Encoders' folders as a stranger may have changed them, each with a canary: a Python file that would create a file."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.encoders.saved import save_encoder

__all__ = ["AUTO_MAP", "BERT", "Change", "bert", "canary", "change", "evil", "saved"]

Change = Callable[[dict[str, Any]], None]
BERT = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a stranger's code would create; the test fails where it exists afterwards."""
    ran = tmp_path / "ran"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\ny\n"))
    yield ran
    assert not ran.exists(), "a stranger's Python file ran"


def evil(folder: Path, ran: Path) -> None:
    """A module that creates the canary when it is imported, with any class that is asked for."""
    (folder / "evil.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast, BertConfig, BertModel, CLIPImageProcessor\n"
        "class Tokenizer(PreTrainedTokenizerFast): pass\nclass Config(BertConfig): model_type = 'evil'\n"
        "class Model(BertModel): pass\nclass Processor(CLIPImageProcessor): pass\n"
    )


AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoImageProcessor": "evil.Processor",
}


def change(path: Path, how: Change) -> None:
    value = json.loads(path.read_text())
    how(value)
    path.write_text(json.dumps(value))


@lru_cache
def _saved(kind: str, modality: Any) -> Path:
    folder = Path(tempfile.mkdtemp(dir=os.environ["MI2P_TEST_CACHE"])) / "encoder"
    save_encoder(load_encoder(f"tiny:{kind}", modality), folder)
    return folder


def saved(kind: str, modality: Any, folder: Path, ran: Path) -> Path:
    """An encoder as `mi2p train` leaves it, with a stranger's module beside it."""
    shutil.copytree(_saved(kind, modality), folder)
    evil(folder, ran)
    return folder


@lru_cache
def _bert() -> Path:
    folder = Path(tempfile.mkdtemp(dir=os.environ["MI2P_TEST_CACHE"])) / "bert"
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(folder)
    load_encoder("tiny:bert", "text").spec.tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path, ran: Path) -> Path:
    """A BERT as a user would name it in --text, with a stranger's module beside it."""
    shutil.copytree(_bert(), folder)
    evil(folder, ran)
    return folder
