"""One self-contained HTML page: inlined assets, JSON that cannot break out, a closed template set.

What a page shows was written by models and by strangers. Two rules keep it inert: everything in
markup passes Jinja's autoescape, and everything for scripts travels as escaped JSON in an element
that no browser executes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)

# "<" and ">" close or open elements, "&" starts references, U+2028/9 end lines in old scripts;
# bidirectional overrides and C1 controls would disguise the page's source. All are legal in JSON
# strings and occur nowhere else in JSON, so the escape changes no value.
_UNSAFE_IN_JSON = re.compile("[<>&\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
# Control characters that HTML forbids, as their visible pictures (U+2400 and up). C1 controls have
# none; bidirectional controls would close the isolate around a name and turn round what follows.
_VISIBLE: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)},
    127: 0x2421,
    **{
        code: f"[U+{code:04X}]"
        for code in (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    },
}
BASE_STYLE = "parts/page.css"  # of every page, before its own
# of every page that draws: the chart library and the common script, before its own
CHARTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "parts/page.js")

Words = list[tuple[str, bool]]
"""Parts of a sentence: text, and whether it is a name from the data, which the page isolates."""


def embed_json(value: Any) -> Markup:
    """`value` as JSON text that is safe inside `<script type="application/json">`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(_UNSAFE_IN_JSON.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text))


def visible(text: object) -> str:
    """`text` with control characters in a form that can be seen; autoescape does the rest.

    Text that runs from right to left keeps its order inside the `<bdi>` of its name.
    """
    return str(text).translate(_VISIBLE)


def marked(sentence: str, names: Iterable[str]) -> Words:
    """`sentence` in parts, with those of `names` in it apart, so that each can be isolated.

    A name counts where it is no part of a longer one; of two that overlap, the longer one.
    """
    known = sorted({name for name in names if name.strip()}, key=len, reverse=True)
    if not known:
        return [(sentence, False)]
    either = "|".join(map(re.escape, known))
    found = re.split(rf"(?<![\w@/.-])({either})(?![\w@/-]|\.\w)", sentence)
    return [(text, place % 2 == 1) for place, text in enumerate(found) if text]


@cache
def asset(name: str) -> str:
    """The text of a file of `reporting/`, e.g. `vendor/d3.min.js` or `pages/ask/report.css`."""
    file = resources.files("preceptor.reporting")
    for part in name.split("/"):
        file = file.joinpath(part)
    return file.read_text(encoding="utf-8")


@cache
def _script(name: str) -> Markup:
    text = asset(name)
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{name} cannot be inlined: it would end its own script element")
    return Markup(text)


@cache
def templates() -> Environment:
    """The templates of all pages; each is compiled once in a process, which is most of its cost."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


def render_page(
    template: str,
    context: Mapping[str, Any],
    *,
    styles: Iterable[str],
    scripts: Iterable[str],
) -> str:
    """Fill `template` with `context` and the inlined `styles` and `scripts` (asset names).

    `page.css` comes before `styles`.
    """
    page = templates().get_template(template)
    text = page.render(
        **context,
        policy=CONTENT_SECURITY_POLICY,
        styles=[Markup(asset(name)) for name in dict.fromkeys((BASE_STYLE, *styles))],
        scripts=[_script(name) for name in scripts],
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"
