"""The sweep: forty models of all families and hazards on every run, and the machinery around them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
from torch import nn
from typer.testing import CliRunner

from benchmarks.sweep import BrokenError, Result, as_backbone, as_source, contract, judge, tiny_hf
from benchmarks.sweep.picks import Pick, open_clip_pick, smallest, timm_pick, transformers_pick
from benchmarks.sweep.report import render, totals
from benchmarks.sweep.run import Limits, ResultFile, sweep
from benchmarks.sweep.verdict import Answer
from mi2p_inject.core.errors import ProbeError, SweepError
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.hook import SiteHook
from mi2p_inject.expansion.inject import inject
from mi2p_inject.recipes.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"

OK = ("ok", "ok")
REFUSED = ("refused", "refused")
TIMM = {
    "test_resnet": OK,
    "test_vit": OK,
    "test_efficientnet": OK,
    "test_convnext": OK,
    "test_byobnet": OK,  # no row: its sites from feature_info
    "test_mambaout": OK,  # channels last
    "test_nfnet": OK,
    "convit_tiny": OK,  # the class token joins late
    "crossvit_tiny_240": OK,  # two streams
    "pit_ti_224": OK,  # tuples
    "efficientvim_m1": OK,
    "levit_128s": OK,
    "hrnet_w18_small": OK,  # lists of branches
}
TRANSFORMERS = {
    "AlbertModel": ("refused", "ok"),  # one shared layer
    "BertModel": OK,
    "BertForSequenceClassification": OK,
    "BloomModel": OK,  # attention weights beside the hidden state
    "CanineModel": OK,  # another length in between
    "DetrModel": OK,
    "FNetModel": OK,
    "FunnelModel": OK,
    "DeepseekV4Model": ("refused", "ok"),  # several hidden states a token
    "CLIPForImageClassification": OK,
    "RwkvModel": OK,
    "YolosModel": OK,
    "GPT2Model": OK,
    "GPT2ForSequenceClassification": OK,
    "HieraModel": OK,  # tokens out of raster order
    "LlamaModel": OK,
    "LongformerModel": OK,  # pads, and cannot run on fake tensors
    "MobileViTModel": OK,
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
SAMPLE = [
    *((timm_pick(name), verdicts) for name, verdicts in TIMM.items()),
    *((transformers_pick(name), verdicts) for name, verdicts in TRANSFORMERS.items()),
    *((open_clip_pick(name), verdicts) for name, verdicts in OPEN_CLIP.items()),
]


def test_the_sample_is_large_enough() -> None:
    assert len(SAMPLE) >= 40


@pytest.mark.parametrize(("pick", "verdicts"), SAMPLE, ids=[f"{pick.family}-{pick.name}" for pick, _ in SAMPLE])
def test_sample(pick: Pick, verdicts: tuple[str, str]) -> None:
    result = judge(pick.name, pick.family, pick.build)
    assert (result.backbone.verdict, result.source.verdict) == verdicts, f"{result.backbone}\n{result.source}"
    for answer in (result.backbone, result.source):
        assert answer.what if answer.verdict == "ok" else "fix:" in answer.reason


def tiny() -> nn.Module:
    return tiny_hf.build("BertModel")


def not_ours(*args: Any) -> None:
    return None


def keep_hooks(me: ExpandedModel) -> nn.Module:
    return me.backbone


class TestTheContractCanFail:
    """Each promise is broken on purpose, in our own code; the check must say which."""

    def test_identity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contract, "inject", partial(inject, zero_init=None))
        with pytest.raises(BrokenError, match="identity"):
            as_backbone(tiny())
        with pytest.raises(BrokenError, match="identity"):
            as_source(tiny())

    def test_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fired = SiteHook.__call__

        def ignore(hook: SiteHook, module: nn.Module, args: Any, output: Any) -> Any:
            fired(hook, module, args, output)

        monkeypatch.setattr(SiteHook, "__call__", ignore)
        with pytest.raises(BrokenError, match="gradient"):
            as_backbone(tiny())

    def test_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        add = contract.ExpandedModel.forward

        def unmasked(me: ExpandedModel, *args: Any, source_mask: Any = None, **kwargs: Any) -> Any:
            return add(me, *args, **kwargs)

        monkeypatch.setattr(ExpandedModel, "forward", unmasked)
        with pytest.raises(BrokenError, match="rows"):
            as_backbone(tiny())

    def test_eject(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ExpandedModel, "eject", keep_hooks)
        with pytest.raises(BrokenError, match="eject"):
            as_backbone(tiny())

    def test_an_error_of_ours_after_injection_is_a_crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SiteHook, "__call__", not_ours)
        answer = judge("bert", "transformers", tiny).backbone
        assert answer.verdict == "crashed"
        assert "after injection: SiteError" in answer.reason


def test_a_refusal_keeps_its_way_out_however_much_a_library_says() -> None:
    def long_winded() -> nn.Module:
        raise ProbeError("no\n" + "* (Tensor)\n" * 99, expected="e", given="g" * 999, fix="pass example_inputs=")

    reason = judge("long", "timm", long_winded).backbone.reason
    assert re.fullmatch(r"no; given: g+ …; fix: pass example_inputs=", reason)


def hang() -> nn.Module:
    time.sleep(60)
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
    answers = {one.name: one.backbone for one in sweep(chosen, Limits(memory=4, seconds=15), jobs=3)}
    print(json.dumps({name: [answer.verdict, answer.reason] for name, answer in answers.items()}))


def test_each_end_of_a_process_has_its_verdict() -> None:
    command = [sys.executable, "-c", "import test_sweep; test_sweep.verdicts_of_all_ends()"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=120
    )
    ends = json.loads(done.stdout)
    assert {name: verdict for name, (verdict, _) in ends.items()} == {
        name: verdict for name, (_, verdict) in ENDS.items()
    }, ends
    assert all(reason for name, (_, reason) in ends.items() if name != "ok")


VERSIONS = {"torch": "1", "timm": "2"}
RESULT = Result("a", "timm", "x.A", Answer("ok", what=("layer1 NCHW",)), Answer("refused", "LayoutError: a | b"), 1.5)


def test_results_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    ResultFile(path, VERSIONS).add(RESULT)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name":"b","fam')
    again = ResultFile(path, VERSIONS)
    assert again.results == {"a": RESULT}
    assert path.read_bytes() == whole
    assert Result.from_json(json.loads(json.dumps(RESULT.to_json()))) == RESULT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"versions":{"torch":"0","timm":"2"}}\n', r"other versions(.|\n)*torch 1(.|\n)*torch 0(.|\n)*--overwrite"),
        (b"[1, 2]\n", "no file of sweep results"),
        (b"\x89PNG\n\x1a", "no file of sweep results"),
        (b"my notes, one line", "no file of sweep results"),
        (b'{"versions":{"torch":"1","timm":"2"}}\n{"name":"a"}\n', "no file of sweep results"),
    ],
)
def test_foreign_results_are_refused_and_kept(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(SweepError, match=says):
        ResultFile(path, VERSIONS)
    assert path.read_bytes() == content


DRIVER = """
import sys, time
from functools import partial
from pathlib import Path
from torch import nn
from benchmarks.sweep.picks import Pick
from benchmarks.sweep.run import Limits, ResultFile, sweep

def build(wait):
    time.sleep(wait)
    raise ValueError("judged")

results = ResultFile(Path(sys.argv[1]), {})
names = [name for name in "abc" if name not in results.results]
picks = [Pick(name, "timm", partial(build, float(sys.argv[2]) * (name == "b"))) for name in names]
for result in sweep(picks, Limits()):
    results.add(result)
"""


def test_kill_9_loses_the_running_model_only(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(path), "600"], start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (path.exists() and len(path.read_bytes().splitlines()) == 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(ResultFile(path, {}).results) == ["a"]
    subprocess.run([sys.executable, "-c", DRIVER, str(path), "0"], check=True, timeout=60)
    assert list(ResultFile(path, {}).results) == ["a", "b", "c"]


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


def test_the_command(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("test_resnet", "other_vit"), ("_test", "T", 1))
    (tmp_path / f"timm-{timm.__version__}.json").write_text(json.dumps(sizes))
    command = ["sweep", "--family", "timm", "--only", "test*", "--out", str(tmp_path)]
    apart = [sys.executable, "-m", "mi2p_inject.recipes.cli.main", *command, "--json", str(tmp_path / "support.json")]
    first = subprocess.run(apart, capture_output=True, text=True, timeout=240)
    assert first.returncode == 0, first.stderr
    assert "Models by verdict" in first.stderr
    [result] = json.loads((tmp_path / "support.json").read_text())["results"]
    assert result["backbone"]["verdict"] == "ok"
    kept = (tmp_path / "results.jsonl").read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "results.jsonl").read_bytes() == kept


@pytest.mark.parametrize("option", [["--family", "keras"], ["--again", "bad"], ["--jobs", "0"], ["--memory", "0"]])
def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path, option: list[str]) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["sweep", "--out", str(out), *option])
    assert result.exit_code == 2
    assert not out.exists()


def test_the_page_escapes_what_a_table_takes_for_markup(tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    path.write_text(json.dumps({"versions": VERSIONS, "of": {"timm": 7}, "results": [RESULT.to_json()]}))
    page = render(path)
    assert "| timm | backbone | 1 of 7 | 1 | 0 |" in page
    assert "| `a` (A) | layer1 NCHW | **refused**: LayoutError: a \\| b |" in page


def committed() -> list[Result]:
    data = json.loads((DOCS / "support.json").read_text(encoding="utf-8"))
    return [Result.from_json(one) for one in data["results"]]


def test_the_support_page_is_up_to_date() -> None:
    assert (DOCS / "support.md").read_text(encoding="utf-8") == render(DOCS / "support.json"), "run docs/make_tables.py"


def test_the_promise() -> None:
    """What the README says of the reach, on the results that are committed."""
    counts = {(family, role): count for family, role, count in totals(committed())}
    assert all(not (count["silent"] + count["crashed"] + count["time"] + count["memory"]) for count in counts.values())
    assert counts["timm", "backbone"]["ok"] >= 0.97 * counts["timm", "backbone"].total()
    assert counts["transformers", "backbone"]["ok"] >= 130
    assert counts["open_clip", "backbone"]["ok"] == counts["open_clip", "backbone"].total() > 0
    for result in committed():
        for answer in (result.backbone, result.source):
            assert answer.verdict != "refused" or re.match(r"\w+Error: .{20}", answer.reason), result
