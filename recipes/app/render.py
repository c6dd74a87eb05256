"""The page's own HTML: bars of probabilities, and errors. Colours are Gradio's, so that they fit dark and light."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mi2p_inject.recipes.app.reply import Answer, Reply

__all__ = ["CSS", "EXPLAINED", "answer_html", "error_html", "lines_html"]

_SHOWN = 10  # classes; the others are folded away

CSS = """
.mi2p { color: var(--body-text-color); font-size: 1rem; line-height: 1.45; overflow-x: auto; }
.mi2p .said { font-size: 1.5rem; font-weight: 600; margin: 0 0 .6rem; overflow-wrap: anywhere; }
.mi2p table { border-collapse: collapse; width: 100%; margin: 0; font-variant-numeric: tabular-nums;
  border: 0 !important; }
.mi2p tr { border: 0 !important; background: none !important; }
.mi2p th, .mi2p td { text-align: left; padding: .3rem .6rem .3rem 0 !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; color: var(--body-text-color);
  vertical-align: middle; }
.mi2p thead th { vertical-align: bottom; font-weight: 600; }
.mi2p tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 6rem; }
.mi2p .held { font-weight: 700; }
.mi2p .answered { display: block; font-weight: 400; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.mi2p .bar { display: flex; align-items: center; gap: .5rem; min-width: 5.5rem; }
.mi2p .track { position: relative; flex: 1; height: .7rem; border-radius: 3px;
  background: var(--border-color-primary); }
.mi2p .fill { display: block; height: 100%; border-radius: 3px; background: var(--color-accent); }
.mi2p .mark { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: var(--body-text-color); }
.mi2p .number { min-width: 3.6rem; white-space: nowrap; text-align: right; }
.mi2p h2 { font-size: 1.15rem; font-weight: 600; margin: 0; color: var(--body-text-color); }
.mi2p summary { cursor: pointer; padding: .4rem 0; }
.mi2p p { margin: .5rem 0; color: var(--body-text-color-subdued); }
.mi2p p.error { color: var(--body-text-color); border-left: 4px solid #d1242f; padding: .5rem .8rem; margin: 0;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
"""

#: above the figure
EXPLAINED = """<div class="mi2p"><h2>What the model takes from the other modality</h2>
<p>Attention says what was read; evidence, to first order, what it was worth for the answer.</p></div>"""

_ANSWER = """<div class="mi2p" role="status">
<p class="said" style="color: var(--body-text-color)">{{ answers[0].labels|join(", ") or "no label" }}</p>
{%- macro rows(names) %}{% for name in names %}
<tr><th scope="row"{% if name in answers[0].labels %} class="held"{% endif %}>{{ name }}</th>
{%- for one in answers %}{% set held = name in one.labels %}{% set share = one.probabilities[name] %}
<td><span class="bar"><span class="track" aria-hidden="true">
<span class="fill" style="width: {{ "%.1f"|format(100 * share) }}%{% if not held %}; opacity: .45{% endif %}"></span>
{%- if name in thresholds %}<span class="mark" style="left: {{ "%.1f"|format(100 * thresholds[name]) }}%"></span>
{%- endif %}</span><span class="number{% if held %} held{% endif %}">{{ percent(share) }}</span></span></td>
{%- endfor %}{% if thresholds %}<td class="number">{{ percent(thresholds[name]) }}</td>{% endif %}</tr>
{%- endfor %}{% endmacro %}
{%- macro head() %}<thead><tr><th scope="col">class</th>
{%- for one in answers %}<th scope="col">{{ one.of }}
{%- if not loop.first %}<span class="answered">{{ one.labels|join(", ") or "no label" }}</span>{% endif %}</th>
{%- endfor %}{% if thresholds %}<th scope="col">holds from</th>{% endif %}</tr></thead>{% endmacro %}
<table>{{ head() }}<tbody>{{ rows(shown) }}</tbody></table>
{%- if folded %}
<details><summary>{{ folded|length }} more {{ "class" if folded|length == 1 else "classes" }}</summary>
<table>{{ head() }}<tbody>{{ rows(folded) }}</tbody></table></details>{% endif %}
{%- for note in notes %}<p>{{ note }}</p>{% endfor %}
</div>"""
_ERROR = '<div class="mi2p"><p class="error" role="alert">{{ words }}</p></div>'
_LINES = '<div class="mi2p">{% for line in lines %}<p>{{ line }}</p>{% endfor %}</div>'


def answer_html(reply: Reply) -> str:
    """The answer in words, and a table of bars: a line for each class, a column for each answer."""
    first: Answer = reply.answers[0]
    order = sorted(first.probabilities, key=lambda name: (name not in first.labels, -first.probabilities[name]))
    shown, folded = order[:_SHOWN], order[_SHOWN:]
    return _rendered(
        _ANSWER, answers=reply.answers, thresholds=reply.thresholds, notes=reply.notes, shown=shown, folded=folded
    )


def error_html(words: str) -> str:
    """One line about what is wrong; a screen reader reads it at once."""
    return _rendered(_ERROR, words=words)


def lines_html(lines: Iterable[str]) -> str:
    """Plain lines.

    Examples:
        >>> lines_html(["a < b"])
        '<div class="mi2p"><p>a &lt; b</p></div>'
    """
    return _rendered(_LINES, lines=lines)


def _rendered(template: str, **values: Any) -> str:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(template).render(percent=_percent, **values)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
