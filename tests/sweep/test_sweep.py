"""What the sweep says of models: forty of all families and hazards on every run, and one for each verdict."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
from forked import run_forked
from models import CROSSVIT, HRNET
from torch import nn
from typer.testing import CliRunner

from benchmarks.sweep import judge, tiny_hf
from benchmarks.sweep.command import app
from benchmarks.sweep.picks import Pick, open_clip_pick, smallest, timm_pick, transformers_pick
from benchmarks.sweep.run import Limits, sweep
from mi2p_inject import ExpandedModel
from mi2p_inject.core.errors import ProbeError
from mi2p_inject.expansion.hook import SiteHook

OK = ("ok", "ok")
REFUSED = ("refused", "refused")
TIMM = {
    "test_resnet": OK,
    "test_vit": OK,
    "test_efficientnet": OK,
    "test_convnext": OK,
    "test_byobnet": OK,  # no adapter: its sites from feature_info
    "test_mambaout": OK,  # channels last
    "test_nfnet": OK,
    "convit_tiny": OK,  # the class token joins late
    "crossvit_tiny_240": OK,  # two streams
    "pit_ti_224": OK,  # tuples
    "levit_128s": OK,
    "hrnet_w18_small": OK,  # lists of branches
}
TRANSFORMERS = {
    "AlbertModel": ("refused", "ok"),  # one shared layer
    "BertModel": OK,
    "BertForSequenceClassification": OK,
    "BloomModel": OK,  # attention weights beside the hidden state
    "CanineModel": OK,  # another length in between
    "FNetModel": OK,
    "DeepseekV4Model": ("refused", "ok"),  # several hidden states a token
    "CLIPForImageClassification": OK,
    "YolosModel": OK,
    "GPT2Model": OK,
    "GPT2ForSequenceClassification": OK,
    "HieraModel": OK,  # tokens out of raster order
    "LlamaModel": OK,
    "LongformerModel": OK,  # pads, and cannot run on fake tensors
    "ResNetModel": OK,
    "SegformerModel": OK,
    "SqueezeBertModel": ("refused", "ok"),  # layers called by .forward(): no hook ever fires
    "T5ForSequenceClassification": OK,  # an end in each text
    "T5Model": OK,  # encoder and decoder, position biases beside the hidden state
    "ViTForImageClassification": OK,
    "Wav2Vec2ForSequenceClassification": OK,
    "WhisperModel": OK,  # one length only
    "XLNetModel": OK,  # length first
}
OPEN_CLIP = {
    "RN101/visual": OK,
    "ViT-B-16/visual": OK,
    "coca_ViT-B-32/visual": OK,
    "coca_ViT-B-32/text": OK,
    "roberta-ViT-B-32/text": OK,
    "mt5-base-ViT-B-32/text": OK,
}
#: fewer blocks and smaller images than `timm_pick` takes, so that a suite can run them; what is odd about each stays
SMALLER: dict[str, dict[str, Any]] = {
    "convit_tiny": {"depth": 4, "local_up_to_layer": 3, "img_size": 64},
    "crossvit_tiny_240": {**CROSSVIT, "img_size": 64},
    "hrnet_w18_small": HRNET,
    "pit_ti_224": {"img_size": 64, "depth": (1, 2, 1)},
}


def smaller(name: str) -> Pick:
    return Pick(name, "timm", partial(timm.create_model, name, **SMALLER[name]))


SAMPLE = [
    *((smaller(name) if name in SMALLER else timm_pick(name), verdicts) for name, verdicts in TIMM.items()),
    *((transformers_pick(name), verdicts) for name, verdicts in TRANSFORMERS.items()),
    *((open_clip_pick(name), verdicts) for name, verdicts in OPEN_CLIP.items()),
]


#: of which `tests/expansion/test_contract.py` asks every adapter; a sweep by hand runs them too
SLOW = ["threads", "two_models", "copies", "checkpoint", "exception"]
#: asked for everything, as a sweep by hand does: an adapter's, a derived one's, an open_clip tower
WHOLE = ["test_vit", "BloomModel", "FNetModel", "coca_ViT-B-32/text"]


def test_the_sample_is_large_enough() -> None:
    assert len(SAMPLE) >= 40


@pytest.mark.parametrize(("pick", "verdicts"), SAMPLE, ids=[f"{pick.family}-{pick.name}" for pick, _ in SAMPLE])
def test_sample(pick: Pick, verdicts: tuple[str, str]) -> None:
    result = judge(pick.name, pick.family, pick.build, skip=[] if pick.name in WHOLE else SLOW)
    assert (result.backbone.verdict, result.source.verdict) == verdicts, f"{result.backbone}\n{result.source}"
    for answer in (result.backbone, result.source):
        assert answer.what if answer.verdict == "ok" else "fix:" in answer.reason


def tiny() -> nn.Module:
    return tiny_hf.build("BertModel")


def test_a_broken_contract_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpandedModel, "eject", lambda me: me.backbone)
    result = judge("bert", "transformers", tiny)
    assert (result.backbone.verdict, result.source.verdict) == ("silent", "silent")
    assert "check 'eject'" in result.backbone.reason
    assert "check 'given_back'" in result.source.reason


def test_an_error_of_ours_after_injection_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiteHook, "__call__", lambda *args: None)
    answer = judge("bert", "transformers", tiny).backbone
    assert answer.verdict == "crashed"
    assert "after injection: SiteError" in answer.reason


def test_a_refusal_keeps_its_way_out_however_much_a_library_says() -> None:
    def long_winded() -> nn.Module:
        raise ProbeError("no\n" + "* (Tensor)\n" * 99, expected="e", given="g" * 999, fix="pass example_inputs=")

    reason = judge("long", "timm", long_winded).backbone.reason
    assert re.fullmatch(r"no; given: g+ …; fix: pass example_inputs=", reason)


def hang() -> nn.Module:
    time.sleep(3600)
    return nn.Identity()


def eat() -> nn.Module:
    return nn.Linear(2**20, 2**13)  # 32 GiB


def die() -> nn.Module:
    os._exit(3)


def fail() -> nn.Module:
    raise ValueError("no such model")


def no_thread() -> nn.Module:
    raise RuntimeError("Resource temporarily unavailable")  # what torch says where a thread gets no stack


def dense() -> nn.Module:
    return nn.Linear(2, 2)


ENDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ok": (tiny, "ok"),
    "stranger": (dense, "refused"),
    "hang": (hang, "time"),
    "eat": (eat, "memory"),
    "die": (die, "crashed"),
    "fail": (fail, "unbuilt"),
    "thread": (no_thread, "memory"),
}


def verdicts_of_all_ends() -> None:
    """Run apart: a process that has run a backward pass cannot fork others that do."""
    chosen = [Pick(name, "timm", build) for name, (build, _) in ENDS.items()]
    slow = [pick for pick in chosen if pick.name == "hang"]
    rest = [pick for pick in chosen if pick.name != "hang"]
    results = [*sweep(slow, Limits(memory=4, seconds=2)), *sweep(rest, Limits(memory=4, seconds=200), jobs=3)]
    answers = {one.name: one.backbone for one in results}
    print(json.dumps({name: [answer.verdict, answer.reason] for name, answer in answers.items()}))


def test_each_end_of_a_process_has_its_verdict() -> None:
    command = ["-c", "import test_sweep; test_sweep.verdicts_of_all_ends()"]
    here = Path(__file__).parent
    paths = [str(here.parents[1]), str(here), *(str(here.parent / name) for name in ("support", "support/processes"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = run_forked(command, cwd=here, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert {name: verdict for name, (verdict, _) in ends.items()} == {
        name: verdict for name, (_, verdict) in ENDS.items()
    }, ends
    assert all(reason for name, (_, reason) in ends.items() if name != "ok")


def test_the_smallest_of_each_kind() -> None:
    sizes = {
        "vit_a": ("vit", "ViT", 3),
        "vit_b": ("vit", "ViT", 2),
        "vit_c": ("vit", "Deit", 9),
        "deit": ("vit", "ViT", 5),
    }
    assert smallest(sizes) == ["vit_b", "vit_c", "deit"]


def test_dual_models_are_no_picks() -> None:
    names = tiny_hf.class_names()
    assert {"BertModel", "ViTModel", "WhisperModel", "LlamaModel"} <= set(names)
    assert not {"CLIPModel", "BlipModel", "LlavaModel"} & set(names)


def test_a_name_of_no_model_is_an_error(tmp_path: Path) -> None:
    asked = ["--family", "open_clip", "--only", "Vit-*", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 2
    assert "--only 'Vit-*' is no model's name in open_clip" in done.output
