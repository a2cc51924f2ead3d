"""One self-contained offline page: point at a word, see where it looks."""
# ruff: noqa: E501

from __future__ import annotations

import json
import math
from html import escape

from PIL import Image

from mmgradcam.errors import unicode_text
from mmgradcam.explanation import Explanation
from mmgradcam.images.pictures import of_tiles
from mmgradcam.render import heatmaps
from mmgradcam.render.embedded import CANVAS_SIDE, canvas_size, data_uri, fitted, heat_data, heat_script, picture_uri

CELL_SIDE, MOST_CELL_PIXELS, MOST_CELL_BYTES, CELL_QUALITIES = 960, 2_000_000, 200_000, (80, 60, 40, 20, 10)
"""Of a notebook's cell: the longest side of one picture, pixels of all panels, bytes, and of the qualities the first that fits.
"""

STYLE = """
:root{color-scheme:light dark;--ink:#16161d;--soft:#5d5d6b;--line:#dcdce4;--paper:#fff;--chip:#f1f1f6;--on:#5b1fa8;--onink:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#ececf4;--soft:#a3a3b4;--line:#3a3a48;--paper:#15151b;--chip:#25252f;--on:#c9a2ff;--onink:#17101f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:64rem;font:1.06rem/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem;line-height:1.3;margin:.2rem 0 .8rem;overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:.35rem;margin:0 0 1rem;padding:0;list-style:none}
button{font:inherit;color:var(--ink);background:var(--chip);border:2px solid transparent;border-radius:.5rem;padding:.3rem .6rem;
cursor:pointer;min-height:2.6rem;max-width:100%;overflow-wrap:anywhere}
button small{color:var(--soft);margin-left:.4rem}
button:focus-visible{outline:3px solid var(--on);outline-offset:1px}
button[aria-pressed=true]{background:var(--on);color:var(--onink)}
button[aria-pressed=true] small{color:inherit}
button.mute{border-style:dashed;border-color:var(--line)}
button.faint:not([aria-pressed=true]){background:none;color:var(--soft);border-color:var(--line)}
figure{margin:0;position:relative;max-width:100%;line-height:0;border-radius:.5rem;overflow:hidden}
figure img{display:block;width:100%;height:auto}
figure .base{transition:filter .12s}
figure.lit .base{filter:brightness(calc(1 - .22*var(--o))) saturate(calc(1 - .3*var(--o)))}
figure .heat{position:absolute;inset:0;width:100%;height:100%;opacity:0;transition:opacity .12s}
figure .heat.on{opacity:var(--o)}
figure .heat.faint.on{opacity:calc(.3*var(--o))}
.bar{display:flex;gap:.8rem;align-items:center;margin:.8rem 0;flex-wrap:wrap}
input{accent-color:var(--on);width:min(20rem,60vw);height:2rem}
.remark{margin:0 0 .8rem;padding:.35rem .7rem;border-left:.3rem solid #b07a00;background:var(--chip);overflow-wrap:anywhere}
#say{min-height:1.6em;margin:.3rem 0}
.verdict{margin:.3rem 0;padding:.45rem .7rem;border-left:.3rem solid var(--mark);background:var(--chip);border-radius:.3rem;overflow-wrap:anywhere}
.verdict,.mark{--mark:#b07a00}
.verdict.good,.mark.good{--mark:#1c7c3c}
.verdict.bad,.mark.bad{--mark:#c62828}
.mark{white-space:nowrap}
.mark::before{content:"";display:inline-block;width:.7em;height:.7em;margin-right:.45em;border-radius:50%;background:var(--mark)}
.reads span{padding:.1rem .2rem;border-radius:.25rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:5.5rem}
button.doubted{border:2px dashed #c62828!important}
.doubted small,.doubtful{color:#c62828;font-weight:600}
@media(prefers-color-scheme:dark){button.doubted{border-color:#ff8a80!important}.doubted small,.doubtful{color:#ff8a80}}
footer{color:var(--soft);font-size:.9rem;margin-top:1.2rem;overflow-wrap:anywhere}
"""

_SCRIPT = """
const chips=[...document.querySelectorAll('button[data-i]')],data=JSON.parse(document.getElementById('heat').textContent),
cells=bytes(data.cells),size=cells.length/chips.length;let [heat,other]=document.querySelectorAll('.heat');
const figure=document.querySelector('figure'),say=document.getElementById('say'),reads=[...document.querySelectorAll('.reads')],
verdicts=[...document.querySelectorAll('.verdict')];
let kept=-1,shown=-1;
function light(i){if(i===shown)return;shown=i;heat.classList.remove('on');if(i<0)return;[heat,other]=[other,heat];
paint(heat,Float32Array.from(cells.subarray(i*size,(i+1)*size),v=>v*data.gains[i]/255),data.grid,data.boxes);
heat.classList.toggle('faint',chips[i].classList.contains('faint'));heat.classList.add('on')}
function show(i){chips.forEach((c,k)=>c.setAttribute('aria-pressed',k===i));light(i);
figure.classList.toggle('lit',i>=0);say.textContent=i>=0?chips[i].dataset.say:'Point at, tap or tab to a word to see where it looks.';
reads.forEach((r,k)=>r.hidden=k!==Math.max(i,0));verdicts.forEach(v=>v.hidden=+v.dataset.of!==i);}
chips.forEach((c,i)=>{c.addEventListener('pointerenter',e=>{if(e.pointerType==='mouse')show(i)});
c.addEventListener('focus',()=>{kept=i;show(i)});c.addEventListener('click',()=>{kept=i;show(i)});
c.addEventListener('keydown',e=>{const d={ArrowRight:1,ArrowDown:1,ArrowLeft:-1,ArrowUp:-1}[e.key];
if(d){e.preventDefault();chips[(i+d+chips.length)%chips.length].focus()}});});
document.querySelector('.chips').addEventListener('pointerleave',()=>show(kept));
document.getElementById('o').addEventListener('input',e=>figure.style.setProperty('--o',e.target.value/100));
document.addEventListener('keydown',e=>{if(e.key==='Escape'){kept=-1;show(-1);document.activeElement.blur()}});
show(chips.length===1?kept=0:-1);
"""


def page(explanation: Explanation) -> str:
    """The page as HTML text: no file, script or picture beside it, nothing fetched; all text from models and users escaped."""
    metadata = explanation.metadata
    question = metadata.query.get("question")
    title = str(question) if question else explanation.text
    chips, rows, input_tokens, sanity_results = [], [], [], []
    checked = next(filter(None, explanation.sanity_results), None)
    for i, one in enumerate(explanation):
        say = _sentence(one)
        named = " ".join(
            filter(
                None,
                ["mute" if one.warning else "faint" if one.weakly_grounded else "", "doubted" * one.targets[0].is_hallucinated],
            )
        )
        mute = f' class="{named}"' if named else ""
        small = f"<small>{one.targets[0].probability:.0%}</small>" if one.targets[0].probability is not None else ""
        small += f"<small>{doubts(one)}</small>" if one.targets[0].is_hallucinated else ""
        chips.append(
            f'<li><button{mute} data-i="{i}" aria-pressed="false" data-say="{escape(say)}">{escape(one.label)}{small}</button></li>'
        )
        peak = one.peak
        where = f"{peak[0]}, {peak[1]}" if peak else (one.warning or "nowhere")
        grounding = one.targets[0].grounding
        relies = "" if grounding is None else f"<td>{times(grounding)}</td>"
        rows.append(
            f"<tr><td>{escape(one.label)}{_doubted(one)}</td>{_mark(one) if checked else ''}<td>{one.score:.3f}</td>{relies}<td>{escape(where)}</td></tr>"
        )
        if one.sanity_result is not None:
            sanity_results.append(
                f'<p class="verdict{_tone(one)}" data-of="{i}" hidden><b>{escape(one.sanity_result.headline)}</b>: {escape(one.sanity_result.reason)}</p>'
            )
        if one.importances:
            hidden = "" if i == 0 else " hidden"
            input_tokens.append(f'<p class="reads"{hidden}>What the answer owes each word: {_tinted(one.importances)}</p>')
    relied = [target.grounding for target in explanation.targets if target.grounding is not None]
    asked = "<th>by the picture</th>" if relied else ""
    told = (
        " What does not rest on the picture is drawn faintly: after the words before it, it is about as likely without, or likelier."
        if relied
        else ""
    )
    if any(target.is_hallucinated for target in explanation.targets):
        told += " P is how likely the picture does not hold what is said, if half of what is said were false."
    if checked:
        told += f" {checked.CAVEAT} r is the rank correlation of two maps; a nat is a factor of 2.7 in probability."
    h, w = explanation.picture.height, explanation.picture.width
    name = f", {escape(metadata.image_name)}" if metadata.image_name else ""
    tiled = of_tiles(explanation.box)
    heats = explanation.scaled()
    data = heat_data(heats if tiled else heats[:, None], explanation.box if tiled else (explanation.box,))  # type: ignore[arg-type]
    across, down = canvas_size(w, h, CANVAS_SIDE)
    canvas = f'<canvas class="heat" width="{across}" height="{down}" aria-hidden="true"></canvas>'
    return unicode_text(f"""{page_head(title, STYLE, script=True)}
<h1>{escape(title)}</h1>
{"".join(f'<p class="remark">{escape(one)}</p>' for one in metadata.remarks)}
<ul class="chips">{"".join(chips)}</ul>
<figure style="--o:1;width:min({max(w, 512)}px,72vh*{w / h:.4f})"><img class="base" width="{w}" height="{h}" alt="{escape(title)}" src="{picture_uri(explanation.picture)}">{canvas * 2}</figure>
<p id="say" aria-live="polite"></p>
{"".join(sanity_results)}{"".join(input_tokens)}
<div class="bar"><label for="o">heat</label><input id="o" type="range" min="0" max="100" value="100"></div>
<div class="scroll"><table><thead><tr><th>target</th>{"<th>check</th>" if checked else ""}<th>{escape(metadata.unit)}</th>{asked}<th>peak (x, y)</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>
<footer>{escape(metadata.method)} at {escape(metadata.feature_layer)}, model {escape(metadata.model)}{name}. Each map is scaled to its own maximum: compare
where words look, not how strongly.{told} Made with mmgradcam.</footer>
<script type="application/json" id="heat">{json.dumps(data)}</script>
<script>{heat_script()}{_SCRIPT}</script></body></html>
""")


def page_head(title: str, style: str, script: bool = False) -> str:
    """How every page begins, up to its body: nothing is fetched, and nothing runs but what the page itself holds.

    Args:
        title: any text; it is escaped.
        style: CSS.
        script: whether the page has scripts of its own; else none runs.
    """
    scripts = ";script-src 'unsafe-inline'" if script else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';img-src data:;style-src 'unsafe-inline'{scripts}">
<title>{escape(title)}</title><style>{style}</style></head><body>"""


def doubts(one: Explanation) -> str:
    """That a word or an answer may be made up, if it is flagged."""
    target = one.targets[0]
    if not target.is_hallucinated or target.hallucination_probability is None:
        return ""
    return f"may be made up: P {target.hallucination_probability:.2f}".replace("P 0.", "P .")


def _doubted(one: Explanation) -> str:
    return f' <span class="doubtful">{doubts(one)}</span>' if one.targets[0].is_hallucinated else ""


def _tone(one: Explanation) -> str:
    if one.sanity_result is None:
        return ""
    return " good" if one.sanity_result.passes else " bad" * one.sanity_result.fails


def _mark(one: Explanation) -> str:
    return (
        "<td></td>"
        if one.sanity_result is None
        else f'<td><span class="mark{_tone(one)}">{escape(one.sanity_result.headline)}</span></td>'
    )


def _sentence(one: Explanation) -> str:
    score = f"{one.metadata.unit} {one.score:.3f}" + (f"; it {doubts(one)}" if one.targets[0].is_hallucinated else "")
    if one.warning:
        return f"“{one.label}”: {one.warning}; no heat is drawn ({score})"
    peak, grounding = one.peak or (0, 0), one.targets[0].grounding
    relies = "" if grounding is None else f", {times(grounding)} as likely with the picture"
    if grounding is not None and one.weakly_grounded:
        relies = f", {'about as likely' if grounding > -0.4 else 'likelier'} without the picture ({times(grounding)})"
    return f"“{one.label}”: {score}{relies}, peak at x {peak[0]}, y {peak[1]}"


def times(grounding: float) -> str:
    """How many times as likely, of a difference of log-probabilities.

    >>> times(0.0), times(2.5), times(9.0), times(-3.0), times(-9.0)
    ('×1.0', '×12', '>×999', '×0.05', '<×0.01')
    """
    factor = math.exp(max(min(grounding, 7.0), -7.0))
    if not 0.01 <= factor <= 999:
        return ">×999" if factor > 1 else "<×0.01"
    return f"×{factor:.{2 if factor < 0.095 else 1 if factor < 9.95 else 0}f}"


def _tinted(importances: list[tuple[str, float]]) -> str:
    most = max((abs(v) for _, v in importances), default=0.0) or 1.0
    color = {True: "246,104,40", False: "70,110,220"}
    return " ".join(
        f'<span style="background:rgba({color[v >= 0]},{0.75 * abs(v) / most:.2f})" title="{v:+.3g}">{escape(word)}</span>'
        for word, v in importances
    )


def cell(explanation: Explanation) -> str:
    """What a notebook shows: the overlay of one target, or the panels of several, smaller the more there are."""
    picture = _shown(explanation)
    tried = (heatmaps.encoded(picture, ".webp", quality) for quality in CELL_QUALITIES)
    made = next((one for one in tried if len(one) <= MOST_CELL_BYTES), None)
    return f'<img alt="" src="{data_uri(made or heatmaps.encoded(picture, ".webp", 0), "webp")}">'


def _shown(explanation: Explanation) -> Image.Image:
    if len(explanation) == 1:
        one = explanation.overlay() if explanation.clip else explanation.over(fitted(explanation.picture, CELL_SIDE))
        return fitted(one, CELL_SIDE)
    if explanation.clip is not None:
        return explanation.panels()
    side = (MOST_CELL_PIXELS / len(explanation)) ** 0.5
    return explanation.panels(max(112, min(320, int(side))))
