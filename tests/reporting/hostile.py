"""Texts that break out of careless pages, and runs whose every name and text is one of them.

`ran` is a function that the browser tests define: whatever calls it was executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MARK = "hostile"  # the class of every element that a text would make

TEXTS = [
    f'<script class={MARK}>ran("script")</script>',
    f'</script><script class={MARK}>ran("end of a script")</script>',
    f'<img class={MARK} src=x onerror=ran("image")>',
    f'"><svg class={MARK} onload=ran("graphic")><use href="#x">',
    f"' onmouseover='ran(\"attribute\")' onfocus='ran(1)' autofocus class='{MARK}",
    f'</title></style></textarea></bdi><iframe class={MARK} srcdoc="<script>parent.ran()">',
    f"</style><style class={MARK}>* {{ display: none }}</style>",
    f'<!-- <script> --!> <a class={MARK} href="javascript:ran(1)">link</a> -->',
    "javascript:ran('address')",
    'data:text/html,<script>ran("data")</script>',
    f"]]> <![CDATA[ <b class={MARK}>bold</b> ]]>",
    f"&lt;script class={MARK}&gt;ran()&lt;/script&gt; &#60;b&#62; &amp;lt; &quot;",
    '{{ 7 * 7 }} {% raw %} {# none #} ${ran("template")} <%= 7 * 7 %> #{7 * 7}',
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f next line \x85 end",
    "reversed \u202egnirts\u202c isolated \u2067abc\u2069 closed \u2069\u202e for good",
    "\u05e9\u05dc\u05d5\u05dd 123 \u0645\u0631\u062d\u0628\u0627 (a) \u05d0",
    "zero\u200bwidth, joined\u200d, not\u200cjoined, mark\ufeff, soft\u00adhyphen, word\u2060s",
    "line \u2028 and paragraph \u2029 separators",
    "family 👩‍👩‍👧‍👦 flags 🇺🇳 🏴‍☠️ skin 👋🏽 stacked Z͑ͫ̓ȁ̴͑l͎g̢o",
    "W" * 220,
    "\\u003cscript\\u003e \\x3cb\\x3e back\\slash `ticks` \"double\" 'single' \\\" \\'",
]
FEW = [  # for names: a teacher or a model each
    "</script><script>alert('answer')</script>",
    "<img src=x onerror=alert(1)> &lt;b&gt; <!-- <script>",
    "nul \x00 bell \x07 escape \x1b[31m del \x7f end",
    "right-to-left \u202egnirts desrever\u202c and isolate \u2067abc\u2069",
    "line \u2028 and paragraph \u2029 separators, emoji 👩‍👩‍👧‍👦 🏴‍☠️",
    "{{ 7 * 7 }} {% raw %} ${alert(2)} `backticks` \"quotes\" 'single'",
]
ONE = "</script><script>alert(1)</script>"
LONE = "lone \ud800 surrogates \udfff"  # legal in JSON alone
TOGETHER = " ".join(TEXTS[:8] + TEXTS[12:13])
"""All that would run or make elements, in one text."""

# Words that code compares with: what is no name and no text of a stranger.
KEPT = set(
    """
    higher lower reward likelihood reference other control done left failed one best worst greedy
    running finished bootstrap mcnemar stop length content_filter recorded agree disagree close
    split family advice regret few beta base arms criteria paradox none mean confirmed overturned
    open recommended car mean_reward perplexity perplexity_reference ifd local_naturalness grape
    column one_left instructions tokens budget
    """.split()
)


def turns(texts: Iterable[str] = TEXTS) -> Callable[[], str]:
    """A function that gives one text after the other, round and round."""
    own, place = list(texts), iter(range(10**9))
    return lambda: own[next(place) % len(own)]


def poison(folder: Path, give: Callable[[], str], names: Iterable[str] = ()) -> set[str]:
    """Every name and text in the JSON, Parquet and YAML files of a run gets a hostile text.

    A string is changed alike wherever it stands, as value, as key or in a table, so the run stays
    whole; keys that are no names stay.

    Args:
        give: the next text.
        names: further keys that are names, although no value says so.

    Returns:
        The texts that were given.
    """
    files = sorted(folder.rglob("*.json"))
    trees = {file: json.loads(file.read_text(encoding="utf-8")) for file in files}
    found = dict.fromkeys(text for tree in trees.values() for text in _values(tree))
    tables = {file: pq.read_table(file) for file in sorted(folder.rglob("*.parquet"))}
    found |= dict.fromkeys(text for table in tables.values() for text in _cells(table))
    found |= dict.fromkeys(names)
    given = {text: give() for text in found if text and text not in KEPT}
    new = {text: f"{text} {own}" for text, own in given.items()}
    for file, tree in trees.items():
        changed = _changed(tree, new)
        if file.name == "provenance.json" and isinstance(changed, dict):
            changed |= {give(): give(), "command": f"{changed.get('command')} {give()} {LONE}"}
        if isinstance(changed, dict) and isinstance(changed.get("warnings"), list):
            changed["warnings"] += [LONE, *(give() for _ in TEXTS)]  # each is in sight somewhere
        file.write_text(json.dumps(changed), encoding="utf-8")  # ASCII: escapes hold surrogates
    for file, table in tables.items():
        for place, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                values = [new.get(text, text) for text in table[field.name].to_pylist()]
                table = table.set_column(place, field, pa.array(values, pa.string()))
        pq.write_table(table, file)
    for file in folder.rglob("settings.yaml"):
        with open(file, "a", encoding="utf-8") as settings:
            settings.write("\n".join(["", *(f"# {give()}" for _ in range(30))]))
    return set(given.values())


def _values(tree: Any) -> Iterator[str]:
    """Every string in a JSON value that is no key."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for inner in tree.values():
            yield from _values(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _values(inner)


def _cells(table: pa.Table) -> Iterator[str]:
    for name in table.column_names:
        if pa.types.is_string(table.schema.field(name).type):
            yield from (text for text in table[name].unique().to_pylist() if text is not None)


def _changed(tree: Any, new: dict[str, str]) -> Any:
    if isinstance(tree, str):
        return new.get(tree, tree)
    if isinstance(tree, list):
        return [_changed(inner, new) for inner in tree]
    if isinstance(tree, dict):
        return {new.get(key, key): _changed(inner, new) for key, inner in tree.items()}
    return tree
