"""Groups of a picture model's channels that attend to the same words."""

from __future__ import annotations

import numpy as np

from mi2p_inject.explain import SiteAttention, channel_maps
from mi2p_inject.recipes.explain.result import ChannelGroup
from mi2p_inject.recipes.explain.words import Words

__all__ = ["GROUPS", "channel_groups"]

GROUPS = 4


def channel_groups(attention: SiteAttention, words: Words, groups: int = GROUPS) -> tuple[ChannelGroup, ...]:
    """The first sample's channels, grouped by k-means of their attention over words; the largest group first.

    Args:
        attention: one site's, of channels to tokens, recorded with views=True.
        words: whose tokens they are.
        groups: at most so many.
    """
    from sklearn.cluster import KMeans

    if attention.view is None:
        return ()
    mean = attention.weights[0].float().mean(0).cpu().numpy()  # (C, tokens)
    of_words, rest = words.summed(mean.T[: len(words.of_token)])
    profiles = np.concatenate([of_words, rest[None]]).T
    distinct = len(np.unique(profiles.round(6), axis=0))
    found = KMeans(min(groups, distinct), n_init=4, random_state=0).fit_predict(profiles)
    maps = channel_maps(attention.view[0]).double().cpu().numpy()
    made = []
    for number in range(int(found.max()) + 1):
        own = found == number
        profile = profiles[own].mean(0)
        made.append(ChannelGroup(int(own.sum()), profile[:-1], float(profile[-1]), maps[own].mean(0)))
    return tuple(sorted(made, key=lambda group: -group.channels))
