"""The page: alone, offline, escaped, and in a real browser by keyboard, on a phone's width."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import chromium
from PIL import Image

from mmgradcam import Explanation, Target, Word
from mmgradcam.explanation import About

EVIL = "</script><img src=x onerror=alert(1)>&\"'"


def made(labels: list[str], size: tuple[int, int] = (90, 60), question: str | None = None) -> Explanation:
    maps = torch.zeros(len(labels), 4, 6)
    for i in range(len(labels)):
        maps[i, i % 4, i % 6] = 1 + i
    reads = tuple(Word(w, i, i) for i, w in enumerate((question or "").split()))
    words = torch.randn(len(labels), len(reads)) if question else None
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return Explanation(
        picture, (0.0, 0.0, 1.0, 1.0), [Target(w, reads=reads) for w in labels], maps, torch.arange(len(labels)) - 3.5,
        words, [None] * len(labels), About(EVIL, "log-probability", "hirescam", "seam", {"question": question} if question else {}),
    )  # fmt: skip


def page(explanation: Explanation, folder: Path) -> str:
    (path,) = explanation.save(folder / "page.html")
    return path.read_text(encoding="utf-8")


def test_the_page_is_alone_and_offline(tmp_path: Path) -> None:
    text = page(made(["a", "red", "ball"]), tmp_path)
    sources = re.findall(r'\b(?:src|href|srcset)="([^"]+)"', text)
    assert len(sources) == 4
    assert all(s.startswith("data:image/") for s in sources)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("where", ["label", "question", "model"])
def test_text_from_models_and_users_is_escaped(tmp_path: Path, where: str) -> None:
    text = page(made([EVIL if where == "label" else "ball"], question=EVIL if where == "question" else None), tmp_path)
    body = re.sub(r"<script>.*?</script>", "", text[text.index("<body>") :], count=1, flags=re.S)
    assert "<img src=x" not in body
    assert "</script>" not in body
    assert EVIL in unescape(body)


def test_a_word_without_heat_says_why(tmp_path: Path) -> None:
    explanation = made(["a", "red"])
    explanation.maps[1] = 0
    explanation.problems[1] = "no gradient"
    text = page(explanation, tmp_path)
    assert "“red”: no gradient; no heat is drawn" in unescape(text)
    assert text.count('class="mute"') == 1


PROBE = """
<script>
const found={};const on=()=>heats.findIndex(h=>h.classList.contains('on'));
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
const h=heats[0].getBoundingClientRect();found.same=Math.abs(h.width-b.width)+Math.abs(h.height-b.height)+Math.abs(h.x-b.x)+Math.abs(h.y-b.y);
document.title='FOUND'+JSON.stringify(found);
</script>
"""


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
    browser = chromium()
    assert browser is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
    ]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'user'}", f"--window-size={width},800", "--dump-dom"]
    dom = subprocess.run(
        [*command, (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=100, check=True
    ).stdout
    title = re.search(r"<title>FOUND(.*?)</title>", dom)
    assert title, dom[-2000:]
    found = json.loads(unescape(title[1]))
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
    from mmgradcam.bulk.audit import Audit
    from mmgradcam.bulk.bias_report import BiasReport
    from mmgradcam.bulk.findings import page as findings
    from mmgradcam.clips import Clip
    from mmgradcam.film import Film

    name = "<script>\udcff"
    frames = Clip((Image.new("RGB", (16, 16)),) * 2)
    pages = {
        True: [Film(frames, [], name).page()],
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
