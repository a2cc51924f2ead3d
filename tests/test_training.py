"""The scripts that train: on small data in the official layouts, resumed where they were stopped."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts" / "bundled"


COLORS = ("red", "blue", "green", "gray")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["photo-captioner", "photo-vqa"])
def test_the_training_script_learns_from_the_official_layouts(model: str, hub_folder: Path, tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg"} for n in range(100)]
    for n, one in enumerate(images):
        Image.new("RGB", (30, 20), (2 * n, 0, 255 - 2 * n)).save(tmp_path / one["file_name"])
    said = [{"image_id": n, "caption": f"A {COLORS[n % 4]} wall"} for n in range(100)]
    captions = tmp_path / "captions_train2014.json"
    captions.write_text(json.dumps({"images": images, "annotations": said}))
    asked = [{"image_id": n, "question": "What color is it?", "question_id": n} for n in range(100)]
    given = [
        {"question_id": n, "image_id": n, "multiple_choice_answer": "", "answers": [{"answer": COLORS[n % 4]}] * 10}
        for n in range(100)
    ]
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps({"questions": asked}))
    answers = tmp_path / "v2_mscoco_train2014_annotations.json"
    answers.write_text(json.dumps({"data_subtype": "train2014", "annotations": given}))
    train = Path(__file__).parents[1] / "scripts" / "bundled" / "train_photos.py"
    command = [sys.executable, train, model, "--data", captions if "captioner" in model else answers, "--encoder", hub_folder]
    more = ["--out", tmp_path / "out", "--epochs", "1", "--batch", "4", "--held", "4", "--every", "1", "--device", "cpu"]
    done = subprocess.run([*map(str, command), *map(str, more)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "best.pt").exists()
    assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 1
    if model == "photo-vqa":
        again = subprocess.run([*map(str, command), *map(str, more)], capture_output=True, text=True, timeout=300)
        assert again.returncode == 0, again.stderr
        assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 1, "it was done already"
        on = ["--out", tmp_path / "frozen", "--start", tmp_path / "out" / "best.pt", "--freeze"]
        done = subprocess.run([*map(str, command), *map(str, [*more, *on])], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        before, after = (torch.load(tmp_path / n / "best.pt", weights_only=True)["head"] for n in ("out", "frozen"))
        moved = {key for key in before if not torch.allclose(before[key].float(), after[key].float(), atol=1e-6)}
        assert moved
        assert not any(key.startswith("detectors.") for key in moved)
        strange = {"detectors.look.weight": torch.zeros(3, 5, 1, 1)}
        torch.save({"head": strange}, tmp_path / "other.pt")
        on = ["--out", tmp_path / "begun", "--start", tmp_path / "other.pt"]
        done = subprocess.run([*map(str, command), *map(str, [*more, *on])], capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert "got one of width 5 that looks for 3" in done.stderr
        assert "Traceback" not in done.stderr
    if model == "photo-captioner":
        on = ["--out", tmp_path / "stacked", "--layers", "layer.2", "layer.6", "layer.9"]
        done = subprocess.run([*map(str, command), *map(str, [*more, *on])], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / "stacked" / "about.json").read_text())["head"]
        # Of MobileNetV2 at 0.35 times its width, not what lies cached of the first run.
        assert config["channels"] == 16 + 24 + 32
        on = [
            "--out",
            tmp_path / "taught",
            "--teachers",
            tmp_path / "out",
            tmp_path / "out",
            "--smooth",
            "0.1",
            "--hide",
            "0.2",
        ]
        done = subprocess.run([*map(str, command), *map(str, [*more, *on])], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (told,) = torch.load(tmp_path / "taught" / "best.pt", weights_only=True)["recipe"]
        assert told["settings"]["teachers"] == [str(tmp_path / "out")] * 2
        assert (told["settings"]["smooth"], told["settings"]["hide"]) == (0.1, 0.2)
        on = ["--out", tmp_path / "rewarded", "--start", tmp_path / "out" / "best.pt", "--reward"]
        done = subprocess.run([*map(str, command), *map(str, [*more, *on])], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        before, after = (torch.load(tmp_path / n / "best.pt", weights_only=True)["head"] for n in ("out", "rewarded"))
        assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["motion", "goto"])
def test_a_training_goes_on_where_it_was_stopped(name: str, tmp_path: Path) -> None:
    if name == "goto":
        pytest.importorskip("minigrid", reason="minigrid is not installed")
    few = ["--count", "12"] if name == "motion" else ["--chunk", "8", "--chunks", "1"]
    told = [SCRIPTS / f"train_{name}.py", "--out", tmp_path / "out", *few, "--held", "4", "--batch", "4", "--until", "train"]
    for steps in ("2", "2", "3"):
        done = subprocess.run(
            [sys.executable, *map(str, [*told, "--steps", steps])], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    rows = list(csv.reader((tmp_path / "out" / "log.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["2", "3"]
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["step"] == 3


def test_teachers_are_half_of_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss with teachers is the mean of the usual one and of the cross-entropy to what they expect."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from photo_lessons import Captions

    from mmgradcam.tasks.nets.evidence import EvidenceCaptioner

    torch.manual_seed(0)
    made = {"kind": "lstm", "vocabulary": 9, "channels": 6, "width": 8, "looked_for": 3}
    head, first, second = (EvidenceCaptioner(**made).eval() for _ in range(3))
    lesson = Captions.__new__(Captions)
    lesson.teachers = [first, second]
    x, said = torch.rand(2, 6, 4, 4), torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    every = torch.ones(2, 1, 1)
    logits, *thought = (lesson._logits(h, *h.detectors(h.per_picture(x)), said, said, every) for h in (head, first, second))
    expected = sum(t.softmax(-1) for t in thought) / 2
    each = [-(expected[b, i] * logits[b, i].log_softmax(-1)).sum() for b, n in ((0, 3), (1, 2)) for i in range(n)]
    torch.testing.assert_close(lesson._taught(logits, x, said), torch.stack(each).mean())


def test_the_average_of_weights_soon_forgets_what_they_began_as(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from train_photos import average_of

    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 100.0)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average_of, use_buffers=True)
    average.update_parameters(net)
    torch.nn.init.constant_(net.weight, 1.0)
    for _ in range(200):
        average.update_parameters(net)
    assert average.module.weight.item() == pytest.approx(1.0, abs=1e-3)
    for _ in range(4000):
        average.update_parameters(net)
    torch.nn.init.constant_(net.weight, 2.0)
    average.update_parameters(net)
    assert average.module.weight.item() == pytest.approx(1.003, abs=1e-4), "later a step moves it by 3 in 1,000"
