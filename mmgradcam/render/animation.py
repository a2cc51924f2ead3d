"""Maps over time: frames with their heat, as an offline page that plays, as a GIF or MP4, and as a strip."""
# ruff: noqa: E501

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from mmgradcam.errors import InputError, unicode_text
from mmgradcam.images.clips import Clip, encoded
from mmgradcam.images.pictures import Box
from mmgradcam.render import heatmaps
from mmgradcam.render.embedded import CANVAS_SIDE, canvas_size, heat_data, heat_script, picture_uri
from mmgradcam.render.pages import STYLE, page_head
from mmgradcam.utils.files import path_of
from mmgradcam.utils.writing import write_file, write_folder

SIDE = 720
"""Longest side of the frames of a GIF or MP4, in pixels."""


@dataclass(frozen=True)
class HeatTrack:
    """What one target's heat is over the frames.

    Attributes:
        label: what the target is called.
        heats: (T, h, w) float32 over the whole clip and `box` of every frame, as `mmgradcam.render.heatmaps.scaled` makes them:
            1 where a frame has the full color. Drawn linear between the middles of cells in time and space.
        print: small print, such as a probability.
        box: the rectangle that the heats cover, in fractions of a frame.
    """

    label: str
    heats: heatmaps.Array
    print: str = ""
    box: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class FrameInfo:
    """What else there is to say of one frame.

    Attributes:
        said: in words.
        values: names and numbers to be compared, such as the values of actions.
        chosen: the position of the one that was taken, -1 for none.
    """

    said: str = ""
    values: Sequence[tuple[str, float]] = ()
    chosen: int = -1


@dataclass(frozen=True)
class Animation:
    """Frames, the heat of each target over them, and what there is to say of each frame.

    Args:
        clip: T frames.
        tracks: targets; the first is the one that a GIF or MP4 shows.
        title: a headline.
        note: how it was made.
        moments: one for each frame, or none at all.
        values_are: what the moments' values are.
    """

    clip: Clip
    tracks: Sequence[HeatTrack]
    title: str
    note: str = ""
    moments: Sequence[FrameInfo] = field(default=())
    values_are: str = ""

    def __post_init__(self) -> None:
        for track in self.tracks:
            if track.heats.ndim != 3 or not track.heats.size:
                raise InputError(f"film: expected heat (T, h, w) of {track.label!r}, got {track.heats.shape}")
        if self.moments and len(self.moments) != len(self.clip):
            raise InputError(f"film: expected a moment for each of {len(self.clip)} frames, got {len(self.moments)}")

    def heat(self, frame: int, track: int = 0, size: tuple[int, int] | None = None) -> heatmaps.Array:
        """(height, width) heat of one target on one frame, in 0..1, at the frame's size or another."""
        height, width = size or self.clip.size[::-1]
        at = torch.tensor([frame]), torch.arange(height), torch.arange(width)
        heats = torch.from_numpy(np.ascontiguousarray(self.tracks[track].heats))[None]
        drawn = heatmaps.over_time(heats, self.tracks[track].box, len(self.clip), (height, width), at)[0, 0]
        return np.asarray(drawn.clamp(max=1).numpy(), np.float32)

    def frame(self, at: int, track: int = 0) -> Image.Image:
        """A frame with the heat of one target over it, a small one enlarged so that cells can be told apart."""
        frame = self.clip.frames[at]
        longest = max(frame.size)
        if longest > SIDE:
            frame = frame.copy()
            frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        made = heatmaps.overlay(frame, self.heat(at, track, frame.size[::-1]))
        times = -(-256 // longest) if longest < 256 else 1
        return made.resize((made.width * times, made.height * times), Image.Resampling.NEAREST) if times > 1 else made

    def frames(self, track: int = 0) -> list[Image.Image]:
        """Every `frame` with the heat of one target."""
        return [self.frame(at, track) for at in range(len(self.clip))]

    def strip(self, count: int = 8) -> Image.Image:
        """A row of `count` frames at even distances, and below it one for each target."""
        at = np.unique(np.linspace(0, len(self.clip) - 1, min(count, len(self.clip))).round().astype(int)).tolist()
        width, height = self.clip.size
        w = max(96, min(200, 1520 // len(at)))
        h, gap, head = max(24, round(height * w / width)), 8, 30
        small = {i: self.clip.frames[i].resize((w, h), Image.Resampling.LANCZOS) for i in at}
        rows = [("the clip", "", list(small.values()))]
        for k, track in enumerate(self.tracks):
            rows.append((track.label, track.print, [heatmaps.overlay(small[i], self.heat(i, k, (h, w))) for i in at]))
        page = Image.new("RGB", (len(at) * (w + gap) + gap, 48 + len(rows) * (h + head + gap)), "white")
        pen = ImageDraw.Draw(page)
        pen.text(
            (gap, 10),
            heatmaps.clip_text(self.title, heatmaps.font(22, True), page.width - 2 * gap),
            (20, 20, 26),
            heatmaps.font(22, True),
        )
        for r, (label, small_print, pictures) in enumerate(rows):
            y = 48 + r * (h + head + gap)
            pen.text(
                (gap, y),
                heatmaps.clip_text(f"{label}  {small_print}", heatmaps.font(17), page.width - 2 * gap),
                (60, 60, 70),
                heatmaps.font(17),
            )
            for c, picture in enumerate(pictures):
                page.paste(picture, (gap + c * (w + gap), y + head - 4))
        return page

    def page(self) -> str:
        """The page as HTML text: nothing beside it, nothing fetched; all text from models and users escaped."""
        return _page(self)

    def save(self, path: str | Path, film: str = ".gif") -> list[Path]:
        """Writes a folder with `index.html`, `strip.png` and `film.gif` (or another ending), or one file by its ending.

        Args:
            path: a folder, or a name that ends in .html, .png, .gif, .webp or .mp4.
            film: ".gif", ".webp" or ".mp4" (which needs PyAV).

        Returns:
            The files written. Files appear whole or not at all.
        """
        path = path_of(path)
        if path.suffix.lower() in (".gif", ".webp", ".mp4"):
            return [write_file(path, encoded(self.frames(), self.clip.rate, path.suffix.lower()))]
        if path.suffix.lower() in (".html", ".htm"):
            return [write_file(path, self.page().encode())]
        if path.suffix.lower() == ".png":
            return [write_file(path, heatmaps.encoded(self.strip()))]
        if path.suffix:
            raise InputError(f"{path}: expected a folder, or a name that ends in .html, .png, .gif, .webp or .mp4")
        return write_folder(path, self.files(film))

    def files(self, film: str = ".gif") -> dict[str, bytes]:
        """What `save` writes into a folder, by name."""
        return {
            "strip.png": heatmaps.encoded(self.strip()),
            f"film{film}": encoded(self.frames(), self.clip.rate, film),
            "index.html": self.page().encode(),
        }


_STYLE = """
.player{display:flex;gap:.5rem;align-items:center;flex-wrap:wrap;margin:.8rem 0}
.player button{min-width:2.9rem;border:2px solid var(--line)}
.player input{flex:1 1 12rem;width:auto}
.player output{font-variant-numeric:tabular-nums;color:var(--soft);min-width:6ch;text-align:right}
figure .heat{transition:none}
figure.small img,figure.small canvas{image-rendering:pixelated}
.cols{display:flex;gap:1.2rem;flex-wrap:wrap;align-items:flex-start}
.cols figure{flex:1 1 18rem}
.values{flex:1 1 14rem;max-width:26rem;margin:0;padding:0;list-style:none}
.values li{display:grid;grid-template-columns:7.5rem 1fr 4.5rem;gap:.5rem;align-items:center;padding:.12rem 0}
.values b{font-weight:400;overflow-wrap:anywhere}
.values .on b{font-weight:700}
.values i{display:block;height:.85rem;border-radius:.25rem;background:var(--soft);opacity:.55}
.values .on i{background:var(--on);opacity:1}
.values span{font-variant-numeric:tabular-nums;text-align:right;color:var(--soft)}
"""

_SCRIPT = """
const film=JSON.parse(document.getElementById('film').textContent),base=document.querySelector('.base'),heat=document.querySelector('.heat'),
figure=document.querySelector('figure'),slider=document.getElementById('at'),out=document.getElementById('n'),say=document.getElementById('say'),
play=document.getElementById('play'),chips=[...document.querySelectorAll('button[data-i]')],values=document.querySelector('.values');
let at=0,track=0,timer=0;
const keep=film.frames.map(src=>{const i=new Image();i.src=src;return i}),cells=film.heats.map(h=>bytes(h.cells));
function glow(){const h=film.heats[track];if(!h)return;const [T,r,c]=h.grid,n=r*c,place=Math.min(Math.max((at+.5)/film.frames.length*T-.5,0),T-1),
low=Math.floor(place),gain=h.gains[0]/255,near=cells[track].subarray(low*n,(low+1)*n),far=cells[track].subarray(Math.min(low+1,T-1)*n);
paint(heat,Float32Array.from(near,(v,k)=>(v+(place-low)*(far[k]-v))*gain),h.grid,h.boxes.slice(0,1))}
function show(i){at=(i+film.frames.length)%film.frames.length;base.src=film.frames[at];glow();slider.value=at;
out.textContent=(at+1)+' / '+film.frames.length;const m=film.moments[at];say.textContent=m?m.said:'';
if(values&&m){values.replaceChildren(...m.values.map(([name,value,share],k)=>{const li=document.createElement('li');if(k===m.chosen)li.className='on';
const b=document.createElement('b'),bar=document.createElement('i'),s=document.createElement('span');b.textContent=name;bar.style.width=(100*share)+'%';
s.textContent=value;li.append(b,bar,s);return li}));}}
function run(on){clearInterval(timer);timer=on?setInterval(()=>show(at+1),1000/film.rate):0;play.textContent=on?'❚❚':'▶';
play.setAttribute('aria-label',on?'pause':'play')}
function pick(k){track=k;chips.forEach((c,j)=>c.setAttribute('aria-pressed',j===k));show(at)}
play.addEventListener('click',()=>run(!timer));
document.getElementById('back').addEventListener('click',()=>{run(0);show(at-1)});
document.getElementById('next').addEventListener('click',()=>{run(0);show(at+1)});
slider.addEventListener('input',()=>{run(0);show(+slider.value)});
chips.forEach((c,k)=>c.addEventListener('click',()=>pick(k)));
document.getElementById('o').addEventListener('input',e=>figure.style.setProperty('--o',e.target.value/100));
document.addEventListener('keydown',e=>{if(e.target.type==='range')return;const d={ArrowRight:1,ArrowLeft:-1}[e.key];
if(d){e.preventDefault();run(0);show(at+d)}else if(e.key===' '&&e.target.tagName!=='BUTTON'){e.preventDefault();run(!timer)}});
pick(0);run(!matchMedia('(prefers-reduced-motion: reduce)').matches&&film.frames.length>1);
"""


def _heats(track: HeatTrack) -> dict[str, Any]:
    heats = torch.from_numpy(np.ascontiguousarray(track.heats))
    return heat_data(heats[None], [track.box] * len(heats))


def _page(film: Animation) -> str:
    width, height = film.clip.size
    chips = "".join(
        f'<li><button data-i="{i}" aria-pressed="false">{escape(t.label)}{f"<small>{escape(t.print)}</small>" if t.print else ""}</button></li>'
        for i, t in enumerate(film.tracks)
    )
    moments = []
    for moment in film.moments:
        numbers = [value for _, value in moment.values]
        low, high = min([*numbers, 0.0]), max([*numbers, 0.0])
        span = (high - low) or 1.0
        form = ".2f" if 1 <= max(high, -low) < 1000 else ".3g"
        shown = [[name, f"{value:{form}}", round(max((value - low) / span, 0.01), 3)] for name, value in moment.values]
        moments.append({"said": moment.said, "values": shown, "chosen": moment.chosen})
    told = {
        "rate": film.clip.rate,
        "frames": [picture_uri(frame) for frame in film.clip.frames],
        "heats": [_heats(track) for track in film.tracks],
        "moments": moments,
    }
    small = ' class="lit small"' if max(width, height) < 256 else ' class="lit"'
    across, down = canvas_size(width, height, min(max(width, height), CANVAS_SIDE))
    values = '<ul class="values" aria-live="off"></ul>' if any(m.values for m in film.moments) else ""
    what = f" Bars: {escape(film.values_are)}; the one taken is bold." if values else ""
    return unicode_text(f"""{page_head(film.title, STYLE + _STYLE, script=True)}
<h1>{escape(film.title)}</h1>
<ul class="chips">{chips}</ul>
<div class="cols"><figure{small} style="--o:1;max-width:min({max(width, 480)}px,66vh*{width / height:.4f})"><img class="base" width="{width}" height="{height}" alt="a frame of the clip"><canvas class="heat on" width="{across}" height="{down}" aria-hidden="true"></canvas></figure>{values}</div>
<div class="player"><button id="play" aria-label="play">▶</button><button id="back" aria-label="one frame back">◀❘</button><button id="next" aria-label="one frame on">❘▶</button>
<input id="at" type="range" min="0" max="{len(film.clip) - 1}" value="0" aria-label="frame"><output id="n"></output></div>
<p id="say" aria-live="off"></p>
<div class="bar"><label for="o">heat</label><input id="o" type="range" min="0" max="100" value="100"></div>
<footer>{escape(film.note)}{what} Keys: space plays and pauses, arrows step. Made with mmgradcam.</footer>
<script type="application/json" id="film">{json.dumps(told).replace("<", chr(92) + "u003c")}</script>
<script>{heat_script()}{_SCRIPT}</script></body></html>
""")
