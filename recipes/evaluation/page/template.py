"""The page's HTML; everything is inside the file, nothing is fetched."""

from __future__ import annotations

__all__ = ["TEMPLATE"]

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --ground: #ffffff; --box: #f6f8fa;
  --bar: #2f81c7; --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --ground: #0d1117;
  --box: #161b22; --bar: #58a6ff; --bad: #ff7b72; --good: #3fb950; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
  max-width: 66rem; padding: 1.5rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; } td.i { white-space: nowrap; }
.wide { overflow-x: auto; font-size: .94em; } img { max-width: 100%; height: auto; }
.remark { border-left: 3px solid var(--bar); background: var(--box); padding: .35rem .8rem; margin: .4rem 0; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .9rem; }
.mistake { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; font-size: .88rem;
  overflow-wrap: anywhere; }
.mistake .frame { height: 8.5rem; display: flex; align-items: center; justify-content: center; background: #ffffff;
  border-radius: 4px; margin-bottom: .4rem; color: #59636e; }
.mistake img { width: 100%; height: 8.5rem; object-fit: contain; }
.mistake .text { max-height: 9rem; overflow-y: auto; }
.mistake .reason { border-top: 1px solid var(--line); margin-top: .5rem; padding-top: .4rem; }
.mistake .reason .soft { font-size: .78rem; line-height: 1.3; } .word { padding: .05em .2em; border-radius: 3px; }
.bad { color: var(--bad); } .good { color: var(--good); }
.bar { display: inline-block; height: .6em; background: var(--bar); border-radius: 2px; vertical-align: baseline; }
details summary { cursor: pointer; } code { font-size: .9em; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="soft">{{ encoders }} · {{ data }} · {{ trained }}</p>

<h2>Scores</h2>
<div class="wide"><table>
<tr><th>split</th><th class="n">samples</th>{% for name in metrics %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in scores %}<tr><td>{{ row.split }}</td><td class="n">{{ row.samples }}</td>
{% for cell in row.cells %}<td class="i">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<p class="soft">Value and 95 % bootstrap interval over groups of samples; shares in percent.</p>
{% for remark in remarks %}<p class="remark">{{ remark }}</p>
{% endfor %}

<h2>Training</h2>
{{ curves|safe }}

{% if mistakes_of %}<h2>Worst mistakes on {{ mistakes_of }}</h2>
{% if mistakes %}<div class="mistakes">
{% for one in mistakes %}<div class="mistake">
<div class="frame">{% if one.picture %}<img alt="" src="{{ one.picture }}">{% else %}no picture{% endif %}</div>
<div class="text" dir="auto">{{ one.text or "no text" }}</div>
{% if one.cells %}<div class="soft" dir="auto">{% for name, cell in one.cells %}\
{{ name }} <b>{{ cell or "missing" }}</b>{% if not loop.last %} · {% endif %}{% endfor %}</div>
{% endif %}<div>answer <b class="bad" dir="auto">{{ one.answer }}</b>
{% if single %} ({{ "%.0f"|format(100 * one.probability) }} %){% endif %}</div>
<div>true <b class="good" dir="auto">{{ one.true }}</b></div>
<div class="soft">{{ one.id }}</div>
{% if one.reason %}<div class="reason"><div>for <b dir="auto">{{ one.reason.of }}</b></div>
{% if one.reason.picture %}<div class="frame"><img alt="" src="{{ one.reason.picture }}"></div>
{% endif %}{% if one.reason.words %}<p class="text" dir="auto">{% for word, worth in one.reason.words %}\
<span class="word" style="background: {{ tint(worth) }}">{{ word }}</span> {% endfor %}</p>
{% endif %}{% if one.reason.columns %}<p class="text">{% for name, worth in one.reason.columns %}\
<span class="word" style="background: {{ tint(worth) }}">{{ name }}</span> {% endfor %}</p>
{% endif %}{% for caption in one.reason.captions %}<div class="soft">{{ caption }}</div>
{% endfor %}</div>{% endif %}
</div>
{% endfor %}</div>
{% if explained %}<p class="soft">Under the first ones: what counts for the class named there in the modality that the \
model attends to, blue for it and orange against it, each sample on its own scale. It says what this answer rests on, \
not whether it is right to. <code>mi2p explain</code> draws more of one sample.</p>{% endif %}
{% else %}<p>None.</p>{% endif %}
{% endif %}
{% if no_mistakes %}<h2>Worst mistakes</h2><p class="soft">{{ no_mistakes }}</p>{% endif %}

<h2>Classes on {{ last }}</h2>
<div class="wide"><table>
<tr><th>class</th><th class="n">samples</th><th class="n">answered</th>
<th>precision</th><th>recall</th><th>F1</th><th></th>
{% if thresholds %}<th class="n">threshold</th>{% endif %}</tr>
{% for one in classes %}<tr><td dir="auto">{{ one.name }}</td>
<td class="n">{{ one.support }}</td><td class="n">{{ one.answered }}</td>
{% for score in (one.precision, one.recall, one.f1) %}\
<td class="i">{% if score %}{{ shown(score) }}{% else %}&ndash;{% endif %}</td>{% endfor %}
<td><span class="bar" style="width: {{ "%.1f"|format(5 * one.f1.value if one.f1 else 0) }}rem"></span></td>
{% if thresholds %}<td class="n">{{ "%.2f"|format(thresholds[one.name]) }}</td>{% endif %}</tr>
{% endfor %}</table></div>

{% if confusion %}<h2>Confusion</h2>
<div class="wide">{{ confusion|safe }}</div>{% endif %}

<h2>Calibration</h2>
{{ calibration|safe }}
<p class="soft">A model whose probabilities are right lies on the dotted line; larger dots hold more of them.</p>

<h2>Data</h2>
<ul>{% for note in notes %}<li>{{ note }}</li>
{% endfor %}</ul>

<h2>Settings that differ from the defaults</h2>
<p><code>{{ settings }}</code></p>
<details><summary>Versions</summary><p class="soft">{{ versions }}</p></details>
</body>
</html>
"""
