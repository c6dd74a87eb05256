"""An expanded model goes to a Hub and comes back; and every way in which it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import PICTURES, expanded, net, token_features
from huggingface_hub import ModelCard, constants
from small_hub import READER, WRITER, SmallHub, at_hub

from mi2p_inject import ExpandedModel, load
from mi2p_inject.core.errors import CheckpointError, HubError

SOURCE = token_features(len(PICTURES))


def pushed(hub: SmallHub, repository: str = "me/model", **options: object) -> ExpandedModel:
    me = expanded()
    me.push_to_hub(repository, token=WRITER, **options)  # type: ignore[arg-type]
    return me


def same(me: ExpandedModel, other: ExpandedModel) -> bool:
    return torch.equal(me.eval()(PICTURES, source=SOURCE), other.eval()(PICTURES, source=SOURCE))


def test_what_is_pushed_comes_back(hub: SmallHub) -> None:
    me = pushed(hub, card={"license": "mit", "datasets": ["me/data"]})
    assert same(me, ExpandedModel.from_pretrained("me/model", backbone=net()))
    assert same(me, load("me/model", backbone=net()))
    (branch,) = hub.repositories["me/model"].values()
    assert {name.partition("-")[0] for name in branch} == {"README.md", "mi2p_config.json", "model"}
    card = ModelCard(branch["README.md"].decode())
    assert (card.data.license, card.data.datasets, card.data.library_name) == ("mit", ["me/data"], "mi2p_inject")
    assert 'ExpandedModel.from_pretrained("me/model", backbone=backbone' in card.text


def test_a_second_push_replaces_the_first_and_leaves_other_files(hub: SmallHub) -> None:
    pushed(hub)
    hub.repositories["me/model"]["main"] |= {"notes.txt": b"mine", "model-00001-of-00002.safetensors": b"another's"}
    me = pushed(hub)
    names = sorted(hub.repositories["me/model"]["main"])
    assert names[:2] == ["README.md", "mi2p_config.json"]
    assert sum(name.startswith("model-") for name in names) == 2
    assert {"notes.txt", "model-00001-of-00002.safetensors"} <= set(names)
    assert same(me, load("me/model", backbone=net()))


def test_a_card_that_a_person_wrote_stays(hub: SmallHub, tmp_path: Path) -> None:
    pushed(hub)
    hub.repositories["me/model"]["main"]["README.md"] = b"# Mine\n"
    pushed(hub)
    assert hub.repositories["me/model"]["main"]["README.md"] == b"# Mine\n"
    expanded().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Mine\n")
    expanded().save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "# Mine\n"


def test_revisions(hub: SmallHub) -> None:
    one = pushed(hub)
    two = pushed(hub, revision="next")
    assert same(one, load("me/model", backbone=net()))
    assert same(two, ExpandedModel.from_pretrained("me/model", backbone=net(), revision="next"))
    with pytest.raises(HubError, match="has no revision 'nowhere'"):
        ExpandedModel.from_pretrained("me/model", backbone=net(), revision="nowhere")


def test_a_cache_folder_is_enough_without_a_network(hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    me = pushed(hub)
    load("me/model", backbone=net())
    hub.shutdown()
    hub.server_close()
    assert same(me, load("me/model", backbone=net()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(me, load("me/model", backbone=net()))
    files = list(Path(constants.HF_HUB_CACHE).rglob("model-*.safetensors"))
    assert files
    assert all(file.is_symlink() for file in files)


@pytest.mark.fault("hub", "an unknown or private repository, no right to write, a wrong revision", "what to do")
def test_mistakes(hub: SmallHub) -> None:
    pushed(hub, "secret/model")
    for repository in ("me/absent", "secret/model"):
        with pytest.raises(HubError, match=rf"no repository '{repository}', or it is private[\s\S]*hf auth login"):
            load(repository, backbone=net())
    ExpandedModel.from_pretrained("secret/model", backbone=net(), token=READER)
    for token, why in ((False, "not logged in"), (READER, "may not be written by this user")):
        with pytest.raises(HubError, match=rf"'me/model'.*{why}"):
            expanded().push_to_hub("me/model", token=token)
    for name in ("a/b/c", "me/--", "me/mo del"):
        with pytest.raises(HubError, match="is no id of a repository"):
            expanded().push_to_hub(name, token=WRITER)
    assert set(hub.repositories) == {"secret/model"}
    hub.put("me/empty", {"README.md": b""})
    with pytest.raises(HubError, match=r"'me/empty' has none of the files that are read[\s\S]*mi2p_config.json"):
        load("me/empty", backbone=net())


@pytest.mark.fault("hub", "no network, or HF_HUB_OFFLINE", "the address that does not answer, or the variable")
def test_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # a port at which nobody answers
    for run in (lambda: load("me/model", backbone=net()), lambda: expanded().push_to_hub("me/model", token=WRITER)):
        with pytest.raises(HubError, match=r"the Hub at http://127.0.0.1:9 is out of reach"):
            run()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for run in (lambda: load("me/model", backbone=net()), lambda: expanded().push_to_hub("me/model", token=WRITER)):
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
            run()


def test_local_folders_have_no_revision(tmp_path: Path) -> None:
    expanded().save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="a local folder has no revisions"):
        ExpandedModel.from_pretrained(tmp_path / "model", backbone=net(), revision="main")


def test_a_pickle_in_a_repository_is_not_even_downloaded(hub: SmallHub) -> None:
    me = pushed(hub)
    hub.repositories["me/model"]["main"] |= {"pytorch_model.bin": b"\x80\x04cos\nsystem\n", "setup.py": b"raise"}
    assert same(me, load("me/model", backbone=net()))
    assert not any("pytorch_model.bin" in one or "setup.py" in one for one in hub.asked)


@pytest.mark.parametrize("card", [{"eval_results": [1]}, {"license": object()}])
def test_a_card_that_is_none(card: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="card="):
        expanded().save_pretrained(tmp_path / "model", card=card)
    assert not (tmp_path / "model").exists()


def test_no_path_of_this_machine_is_in_a_card(tmp_path: Path) -> None:
    me = expanded()
    me.backbone.config = type("Config", (), {"_name_or_path": str(tmp_path)})()  # type: ignore[assignment]
    me.save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "README.md").read_text()
    shutil.rmtree(tmp_path / "model")
