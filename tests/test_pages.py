"""The page: alone, offline, escaped, and in a real browser by keyboard, on a phone's width."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import chromium
from PIL import Image

from mmgradcam import Explanation, Target, TextSpan
from mmgradcam.explanation import Metadata, SanityResult
from mmgradcam.images.pictures import NOWHERE
from mmgradcam.render import heatmaps, pages

EVIL = "</script><img src=x onerror=alert(1)>&\"'"


def made(labels: list[str], size: tuple[int, int] = (90, 60), question: str | None = None) -> Explanation:
    maps = torch.zeros(len(labels), 4, 6)
    for i in range(len(labels)):
        maps[i, i % 4, i % 6] = 1 + i
    input_tokens = tuple(TextSpan(w, i, i) for i, w in enumerate((question or "").split()))
    words = torch.randn(len(labels), len(input_tokens)) if question else None
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return Explanation(
        picture, (0.0, 0.0, 1.0, 1.0), [Target(w, input_tokens=input_tokens) for w in labels], maps, torch.arange(len(labels)) - 3.5,
        words, [None] * len(labels), Metadata(EVIL, "log-probability", "hirescam", "feature_layer", {"question": question} if question else {}),
    )  # fmt: skip


def page(explanation: Explanation, folder: Path) -> str:
    (path,) = explanation.save(folder / "page.html")
    return path.read_text(encoding="utf-8")


def test_the_page_is_alone_and_offline(tmp_path: Path) -> None:
    text = page(made(["a", "red", "ball"]), tmp_path)
    sources = re.findall(r'\b(?:src|href|srcset)="([^"]+)"', text)
    assert len(sources) == 1
    assert all(s.startswith("data:image/") for s in sources)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("where", ["label", "question", "model"])
def test_text_from_models_and_users_is_escaped(tmp_path: Path, where: str) -> None:
    text = page(made([EVIL if where == "label" else "ball"], question=EVIL if where == "question" else None), tmp_path)
    body = re.sub(r"<script>.*?</script>", "", text[text.index("<body>") :], count=1, flags=re.S)
    body = re.sub(r'<script type="application/json" id="heat">[^<>]*</script>', "", body, count=1)
    assert "<img src=x" not in body
    assert "</script>" not in body
    assert EVIL in unescape(body)


def test_a_word_without_heat_says_why(tmp_path: Path) -> None:
    explanation = made(["a", "red"])
    explanation.maps[1] = 0
    explanation.warnings[1] = "no gradient"
    text = page(explanation, tmp_path)
    assert "“red”: no gradient; no heat is drawn" in unescape(text)
    assert text.count('class="no-map"') == 1


def test_every_row_of_the_table_has_a_cell_for_each_column(tmp_path: Path) -> None:
    explanation = made(["a", "red", "ball"])
    explanation.targets[1] = replace(explanation.targets[1], grounding=2.0)  # the others have none
    explanation.sanity_results[2] = SanityResult("pass", "why")
    rows = re.findall(r"<tr>.*?</tr>", page(explanation, tmp_path), flags=re.S)
    assert [len(re.findall(r"<t[hd]>", row)) for row in rows] == [5] * 4
    assert re.findall(r"<th>(.*?)</th>", rows[0]) == ["target", "sanity check", "log-probability", "grounding", "peak (x, y)"]


PROBE = """
<script>
const found={};const on=()=>document.querySelectorAll('.heat.on').length===1&&heat.classList.contains('on')?shown:-1;
const key=(e,k)=>e.dispatchEvent(new KeyboardEvent('keydown',{key:k,bubbles:true,cancelable:true}));
found.before=on();chips[1].focus();found.focused=on();found.say=say.textContent;
key(chips[1],'ArrowRight');found.right=on();key(document.activeElement,'ArrowLeft');
key(document.activeElement,'ArrowLeft');found.left=on();
const slider=document.getElementById('o');slider.value=40;slider.dispatchEvent(new Event('input'));
found.opacity=getComputedStyle(figure).getPropertyValue('--o');
chips[2].dispatchEvent(new PointerEvent('pointerenter',{pointerType:'mouse'}));found.pointed=on();
document.querySelector('.chips').dispatchEvent(new PointerEvent('pointerleave'));found.kept=on();
chips[2].dispatchEvent(new PointerEvent('pointerenter',{pointerType:'touch'}));found.touched=on();
chips[2].click();found.tapped=on();found.pressed=chips.map(c=>c.getAttribute('aria-pressed'));
key(document,'Escape');found.after=on();
found.overflow=document.documentElement.scrollWidth-document.documentElement.clientWidth;
found.small=chips.filter(c=>c.getBoundingClientRect().height<40).length;
const b=document.querySelector('.base').getBoundingClientRect();found.aspect=b.width/b.height;
const h=heat.getBoundingClientRect();found.same=Math.abs(h.width-b.width)+Math.abs(h.height-b.height)+Math.abs(h.x-b.x)+Math.abs(h.y-b.y);
document.title='FOUND'+JSON.stringify(found);
</script>
"""


def probed(folder: Path, width: int = 800) -> dict[str, Any]:
    """What `probe.html` in a folder found in a real browser, which its title tells."""
    browser = chromium()
    assert browser is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]  # fmt: skip
    command = [browser, *flags, f"--user-data-dir={folder / 'user'}", f"--window-size={width},800", "--dump-dom"]
    dom = subprocess.run([*command, (folder / "probe.html").as_uri()], capture_output=True, text=True, timeout=100, check=True).stdout  # fmt: skip
    title = re.search(r"<title>FOUND(.*?)</title>", dom)
    assert title, dom[-2000:]
    told: dict[str, Any] = json.loads(unescape(title[1]))
    return told


BOXES: dict[str, Any] = {
    "all": (0.0, 0.0, 1.0, 1.0),
    "a crop": (0.2, 0.3, 0.7, 0.9),
    "padded": (-0.3, -0.6, 1.2, 1.1),
    "tiles": ((0.0, 0.0, 0.6, 1.0), (0.4, 0.1, 1.0, 0.9), NOWHERE),
}


@pytest.mark.browser
@pytest.mark.parametrize("name", BOXES)
def test_the_page_draws_the_heat_of_the_overlay(tmp_path: Path, name: str) -> None:
    """Pixel by pixel of the canvas, colors times opacity: what a browser keeps of colors that are nearly transparent is coarse."""
    explanation, box = made(["red", "ball", "no"]), BOXES[name]
    tiles = name == "tiles"
    torch.manual_seed(0)
    explanation.maps = torch.randn(3, 3, 4, 6) if tiles else torch.randn(3, 4, 6)
    explanation.maps[2] = -1.0
    explanation.maps[0, ..., 0, :] = 8.0 if name == "padded" else 0.5  # beyond the picture, where heat is not seen
    explanation.box = box
    script = """<script>const read=i=>{show(i);return [...heat.getContext('2d').getImageData(0,0,heat.width,heat.height).data].filter((_,n)=>n>>2&1?0:1)};
document.title='FOUND'+JSON.stringify({size:[heat.height,heat.width],maps:[0,1,2].map(read)})</script>"""
    (tmp_path / "probe.html").write_text(page(explanation, tmp_path).replace("</body>", script + "</body>"), encoding="utf-8")
    found = probed(tmp_path)
    height, width = found["size"]
    assert max(height, width) == 640
    heats = heatmaps.upsample(explanation.scaled(), box, (height, width))
    for drawn, heat in zip(found["maps"], heats, strict=True):
        seen = np.array(drawn, float).reshape(height, width // 2, 4)
        wanted = heatmaps.colors(heat[None, :, ::2])[0].numpy()
        assert ((seen[..., 3] > 0) == (wanted[..., 3] > 1.5)).mean() > 0.99
        for part in range(4):
            apart = np.abs(seen[..., part] * seen[..., 3] - wanted[..., part] * wanted[..., 3]) / 255
            assert apart.max() < 12
            assert apart.mean() < 1
    assert not np.array(found["maps"][2]).reshape(-1, 4)[:, 3].any(), "no positive evidence, nothing drawn"


def long(count: int, grid: tuple[int, int] = (28, 28), size: tuple[int, int] = (1600, 1200)) -> Explanation:
    """An explanation of many words, of noise over a photo's worth of noise."""
    explanation = made(["word"] * count)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
    explanation.picture = noise.resize(size)
    explanation.maps = torch.randn(count, *grid, generator=torch.Generator().manual_seed(0))
    return explanation


@pytest.mark.parametrize("grid", [(14, 14), (56, 56), (224, 224), (7, 448)])
def test_a_page_of_120_words_is_small_and_draws_each_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int]
) -> None:
    """No picture is encoded for a word, and no heat is drawn at the picture's size."""
    encodes, sizes = [], []
    save, upsample = Image.Image.save, heatmaps.upsample
    monkeypatch.setattr(Image.Image, "save", lambda self, *told, **more: (encodes.append(self.size), save(self, *told, **more)))

    def counted(*told: Any) -> torch.Tensor:
        sizes.append(upsample(*told).shape)
        return upsample(*told)

    monkeypatch.setattr(heatmaps, "upsample", counted)
    explanation = long(120, grid)
    text = pages.page(explanation)
    assert len(text) < 1_500_000
    assert encodes == [(1280, 960)], "the picture"
    drawn = max(shape[-1] * shape[-2] for shape in sizes)
    assert drawn <= 16 * (grid[0] + 3) * (grid[1] + 3)
    assert drawn < 1600 * 1200 or grid[0] > 56
    data = json.loads(text.partition('id="heat">')[2].partition("</script>")[0])
    assert data["grid"] == [1, *{(224, 224): (66, 66), (7, 448): (5, 320)}.get(grid, grid)]
    assert len(data["gains"]) == 120
    encodes.clear(), sizes.clear()
    monkeypatch.setattr(heatmaps, "highest", lambda maps, *_: [(1.0, (0, 0))] * len(maps))
    assert explanation.panels().size[0] == 2032
    assert len(sizes) == 120
    assert {shape[-2:] for shape in sizes} == {(240, 320)}, "panels are drawn at their own size"


@pytest.mark.parametrize("count", [1, 2, 15, 120])
def test_a_notebook_keeps_little_of_what_it_shows(count: int) -> None:
    text = long(count)._repr_html_()
    assert text.startswith('<img alt="" src="data:image/webp;base64,')
    assert len(text) < 300_000
    shown = Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))
    assert shown.width >= {1: 960, 2: 1000, 15: 1500, 120: 750}[count]


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_in_a_real_browser(tmp_path: Path, width: int) -> None:
    caption = [
        "a",
        "very",
        "large",
        "red",
        "metal",
        "cube",
        "to",
        "the",
        "left",
        "of",
        "two",
        "small",
        "green",
        "rubber",
        "rings",
        "and",
        "above",
        "an",
        "orange",
        "cylinder",
    ]
    text = page(made(caption, size=(160, 240)), tmp_path)
    (tmp_path / "probe.html").write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    found = probed(tmp_path, width)
    order = [found[k] for k in ("before", "focused", "right", "left", "pointed", "kept", "touched", "tapped", "after")]
    assert order == [-1, 1, 2, 0, 2, 0, 0, 2, -1]
    assert found["say"].startswith("“very”: log-probability -2.500, peak at x ")
    assert found["opacity"].strip() == "0.4"
    assert found["pressed"][2] == "true"
    assert found["pressed"].count("true") == 1
    assert found["overflow"] <= 0
    assert found["small"] == 0
    assert found["aspect"] == pytest.approx(160 / 240, rel=0.01)
    assert found["same"] < 1


def test_every_page_forbids_to_fetch_and_holds_any_text() -> None:
    """One head for all pages; those without scripts of their own run none."""
    from mmgradcam.evaluation.reports import page as findings
    from mmgradcam.evaluation.run import Audit
    from mmgradcam.images.clips import Clip
    from mmgradcam.render.animation import Animation
    from mmgradcam.studies.bias_report import BiasReport

    name = "<script>\udcff"
    frames = Clip((Image.new("RGB", (16, 16)),) * 2)
    pages = {
        True: [Animation(frames, [], name).page()],
        False: [findings(Audit(name, name, bad=[name]), b""), BiasReport(name, name, name, (name, "b"), (5, 5), ()).page()],
    }
    for scripts, some in pages.items():
        for text in some:
            told = "default-src 'none';img-src data:;style-src 'unsafe-inline'" + ";script-src 'unsafe-inline'" * scripts
            assert text.count(f'<meta http-equiv="Content-Security-Policy" content="{told}">') == 1
            assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")
            assert name not in text
            assert "&lt;script&gt;\ufffd" in text
            text.encode()
