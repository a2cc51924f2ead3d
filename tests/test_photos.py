"""Photos: their loader, the heads over word detectors, what is measured on them, and the scripts that train on them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import complaints
from PIL import Image
from torch import nn

from mmgradcam import InputError, explain, hirescam
from mmgradcam.datasets.photo_questions import with_questions
from mmgradcam.datasets.photos import Photos
from mmgradcam.datasets.question_generation import singular
from mmgradcam.datasets.records import mask_of
from mmgradcam.datasets.sources import open_data
from mmgradcam.evaluation.measures import defaults_of
from mmgradcam.evaluation.run import audit
from mmgradcam.images.pictures import Preprocess
from mmgradcam.metrics import bleu4, cider, meteor, peak_in
from mmgradcam.tasks import VQA, Captioning, load
from mmgradcam.tasks.captioning import forbid_repeats
from mmgradcam.tasks.loading import save
from mmgradcam.tasks.nets.backbone import Backbone
from mmgradcam.tasks.nets.evidence import EvidenceAnswerer, EvidenceCaptioner
from mmgradcam.tasks.vocabulary import END, START, Vocabulary, tokenize

WORDS = Vocabulary(("a", "dog", "red", "ball", "man", "is", "in", "grass"))
NETS = "mmgradcam.tasks.nets"


def phrase(caption: int, first: int, last: int, text: str, kind: str, *boxes: tuple[float, ...]) -> dict[str, Any]:
    return {
        "caption": caption, "first_word": first, "last_word": last, "text": text, "types": [kind], "boxes": [list(b) for b in boxes],
    }  # fmt: skip


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos: a red square left in the one, a blue one right in the other, squeezed to a square."""
    from datasets import Dataset

    rows = []
    for i, (name, color, left) in enumerate((("red", (255, 0, 0), 4), ("blue", (0, 0, 255), 36))):
        image = np.full((64, 64, 3), 128, np.uint8)
        image[20:44, left : left + 24] = color
        box = (left / 64, 20 / 64, (left + 24) / 64, 44 / 64)
        rows.append(
            {
                "image": Image.fromarray(image), "image_id": f"photo{i}", "width": 128, "height": 64,
                "captions": [f"A {name} ball and a dog in grass .", "a man is in the grass"],
                "phrases": [
                    phrase(0, 0, 2, f"A {name} ball", "other", box), phrase(0, 4, 5, "a dog", "animals", (0, 0, 0.2, 0.2)),
                    phrase(1, 0, 1, "a man", "people", (0.5, 0.5, 1, 1)), phrase(1, 4, 5, "the grass", "scene", (0, 0, 1, 1)),
                ],
            }
        )  # fmt: skip
    path = tmp_path_factory.mktemp("photos") / "photos.parquet"
    made = Dataset.from_list(rows)
    made.to_parquet(str(path))
    return path


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.ReLU()).eval()


def captioner(kind: str = "lstm", beam: int = 1) -> Captioning:
    torch.manual_seed(1)
    head = EvidenceCaptioner(kind, len(WORDS), 6, 8, looked_for=3, settings={} if kind == "lstm" else {"heads": 2})
    head.detectors.tokens.copy_(torch.tensor([5, 7, 8]))
    return Captioning(encoder(), head.eval(), WORDS, Preprocess((64, 64), how="stretch"), longest=6, beam=beam)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_what_words_share_runs_once_per_photo(parquet: Path, kind: str) -> None:
    task, photos = captioner(kind), Photos(parquet)
    seen: dict[str, list[int]] = {"neck": [], "detectors": []}
    for name, module in (("neck", task.head.per_picture), ("detectors", task.head.detectors)):
        module.register_forward_hook(lambda m, given, out, name=name: seen[name].append(len(given[0])))
    said = [(["a", "red", "ball"], 1, 2), (["a", "dog", "in", "grass"], 1, 1), (["a", "man"], 0, 1)]
    made = explain(task, [photos[0].image, photos[1].image], method=hirescam, each=[{"phrases": said}, {"phrases": said[:2]}])
    assert seen == {"neck": [2], "detectors": [2]}
    assert made[0].metadata.feature_layer == "features"
    assert made[0].maps.shape[1:] == made[1].maps.shape[1:]
    for photo, one, phrases in ((0, made[0], said), (1, made[1], said[:2])):
        for k, phrase in enumerate(phrases):
            alone = explain(task, photos[photo].image, method=hirescam, phrases=[phrase])
            torch.testing.assert_close(one.maps[k], alone.maps[0], atol=1e-6, rtol=1e-4)


def test_features_are_what_the_neck_puts_out() -> None:
    task = captioner()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(task.encode(images), task.head.per_picture(task.encoder(images)))


def test_a_head_may_call_a_part_of_its_own_neck() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.neck, self.out = nn.Embedding(len(WORDS), 6), nn.Conv2d(6, 6, 1), nn.Linear(6, 2)

        def forward(self, features: torch.Tensor, questions: torch.Tensor) -> torch.Tensor:
            return self.out(self.neck(features).mean((2, 3)) + self.words(questions).mean(1))

    task, images = VQA(encoder(), Own(), WORDS, ["yes", "no"], Preprocess((64, 64))), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(task.encode(images), task.encoder(images))


def test_a_run_of_words_that_was_said_is_not_said_again() -> None:
    log_probs = torch.zeros(3, 6)
    said = torch.tensor([[1, 4, 5, 4], [4, 5, 5, 5], [1, 2, 3, 4]])
    forbid_repeats(log_probs, said, 2)
    assert [row.isinf().nonzero().flatten().tolist() for row in log_probs] == [[5], [5], []]
    log_probs = torch.zeros(1, 6)
    forbid_repeats(log_probs, torch.tensor([[4, 2, 5, 4, 2]]), 3)
    assert log_probs.isinf().nonzero().tolist() == [[0, 5]]
    for length in (0, 6):
        log_probs = torch.zeros(1, 6)
        forbid_repeats(log_probs, torch.tensor([[4, 4, 4, 4, 4]]), length)
        assert not log_probs.any()


def test_generated_captions_do_not_repeat_themselves_where_told_so() -> None:
    task = captioner(beam=3)
    with torch.no_grad():
        features = task.encode(torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    task.no_repeat = 1
    captions = task.generate(features)
    assert all(len(set(caption[1:])) == len(caption) - 1 for caption in captions)


def answerer() -> VQA:
    torch.manual_seed(2)
    words = Vocabulary(("what", "color", "is", "the", "ball", "there", "a", "dog", "where", "man"))
    head = EvidenceAnswerer(len(words), 4, 6, 8, looked_for=3, glimpses=2)
    return VQA(encoder(), head.eval(), words, ["yes", "no", "red", "grass"], Preprocess((64, 64), how="stretch"))


def test_photos_get_their_own_shape_back(parquet: Path) -> None:
    photo = Photos(parquet)[0]
    assert photo.image.size == (128, 64)
    assert photo.name == "photo0"
    assert photo.captions[0][:3] == ("a", "red", "ball")
    assert photo.phrases[0].boxes == ((4 / 64, 20 / 64, 28 / 64, 44 / 64),)


def test_a_file_that_holds_no_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Photos(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no photos")
    with pytest.raises(InputError, match="expected a Parquet file of photos"):
        Photos(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    "wrong", [{"caption": 2}, {"last_word": 9}, {"first_word": 2, "last_word": 1}, {"boxes": [[0.0, 0.0, 1.0]]}]
)
def test_a_phrase_that_is_not_there_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    from datasets import Dataset

    made = {**phrase(0, 0, 1, "a dog", "animals", (0, 0, 1, 1)), **wrong}
    row = {"image": Image.new("RGB", (8, 8)), "image_id": "the photo", "captions": ["a dog", "a dog runs"], "phrases": [made]}
    Dataset.from_list([row]).to_parquet(str(tmp_path / "wrong.parquet"))
    with pytest.raises(InputError, match="the photo: expected phrase 'a dog' to name words of one caption"):
        Photos(tmp_path / "wrong.parquet").texts()


def test_pictures_of_other_programs_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    """Parquet that was not written by `datasets` holds bytes, and does not say that they are pictures."""
    import io

    import pyarrow
    from pyarrow import parquet as file

    png = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 0, 0)).save(png, "PNG")
    images = [{"bytes": png.getvalue(), "path": None}, {"bytes": b"no picture", "path": None}]
    table = pyarrow.table(
        {"image": images, "captions": [["a wall"]] * 2, "phrases": [[phrase(0, 0, 1, "a wall", "other", (0, 0, 1, 1))]] * 2}
    )
    file.write_table(table, tmp_path / "plain.parquet")
    photos = Photos(tmp_path / "plain.parquet")
    assert photos[0].image.getpixel((0, 0)) == (200, 0, 0)
    with pytest.raises(InputError, match="photo 1: expected a picture"):
        photos[1]


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_all_steps_together_are_the_steps_one_by_one(kind: str) -> None:
    task = captioner(kind)
    features, tokens = torch.rand(2, 8, 8, 8), torch.randint(4, len(WORDS), (4, 5))
    together = task.head.steps(features, tokens)
    state = task.head.start(features, 4)
    for t, token in enumerate(tokens.unbind(1)):
        said, state = task.head.step(state, token)
        torch.testing.assert_close(said, together[t])


def test_evidence_counts_until_the_word_was_said() -> None:
    head = captioner().head
    with torch.no_grad():
        head.left.fill_(-50)
    features, tokens = torch.rand(1, 8, 8, 8), torch.tensor([[START, 5, 6]])
    evidence = head.detectors.spread(head.detectors(features)[1])[0]
    steps = [step[0, head.out.words.in_features :] for step in head.steps(features, tokens)]
    assert evidence[5] != 0
    assert steps[0][5] != 0
    assert abs(steps[1][5]) < 1e-15
    assert abs(steps[2][5]) < 1e-15
    assert steps[2][7] != 0
    assert all((step[[4, 6]] == 0).all() for step in steps)


@pytest.mark.parametrize(("kind", "penalty"), [("lstm", 1.0), ("transformer", 1.0), ("lstm", 0.0), ("lstm", 2.0)])
def test_a_beam_that_keeps_all_finds_the_best_caption_of_all(kind: str, penalty: float) -> None:
    task = captioner(kind)
    task.longest, task.length_penalty = 3, penalty
    features = torch.rand(2, 8, 8, 8)
    found = task.generate(features, beam=800)
    choices = [END, *range(4, len(WORDS))]
    for b in range(2):
        best, most = None, -float("inf")
        for row in itertools.product(choices, repeat=3):
            length = row.index(END) + 1 if END in row else 3
            if any(token != END for token in row[length:]):
                continue
            tokens = torch.tensor([[START, *row]])
            steps = task.head.steps(features[b : b + 1], tokens[:, :-1])
            total = 0.0
            for t in range(length):
                logits = task.head.out(steps[t])[0].detach().float()
                logits = logits.log_softmax(0)
                total += float(logits[row[t]])
            if total / length**penalty > most:
                best, most = list(row[:length]), total / length**penalty
        assert best is not None
        assert found[b] == [START, *[t for t in best if t != END], END]


def test_a_beam_of_one_is_greedy() -> None:
    task = captioner()
    features = torch.rand(3, 8, 8, 8)
    for b, row in enumerate(task.generate(features, beam=1)):
        state, token, said = task.head.start(features[b : b + 1], 1), torch.tensor([START]), [START]
        for _ in range(task.longest):
            hidden, state = task.head.step(state, token)
            logits = task.head.out(hidden)
            logits[:, [0, 1, 3]] = -float("inf")
            token = logits.argmax(-1)
            if int(token) == END:
                break
            said.append(int(token))
        assert row == [*said, END]


def test_phrases_of_several_captions_are_explained_over_one_encode() -> None:
    task = captioner()
    runs: list[int] = []
    task.encoder.register_forward_hook(lambda *_: runs.append(1))
    photo = Image.effect_noise((64, 64), 80).convert("RGB")
    asked = [(["a", "dog", "is", "in", "grass"], 0, 1), (["a", "zebra"], 1, 1), (["a", "dog", "is", "in", "grass"], 4, 4)]
    phrases = explain(task, photo, phrases=asked, method=hirescam)
    assert len(runs) == 1
    assert phrases.labels == ["a dog", "zebra", "grass"]
    whole = explain(task, photo, caption="a dog is in grass", method=hirescam)
    torch.testing.assert_close(phrases[0].map, whole[0:2].map)
    torch.testing.assert_close(phrases[2].map, whole[4].map)


def test_a_word_can_be_scored_by_its_logit() -> None:
    probable, plain = captioner(), captioner()
    plain.unit = "word logit"
    photo = Image.effect_noise((64, 64), 80).convert("RGB")
    one, other = (explain(task, photo, caption="a dog is", method=hirescam) for task in (probable, plain))
    features, tokens = plain.encode(plain.prepare(photo).pixels[None]), torch.tensor([[START, 4, 5]])
    logits = torch.stack([plain.head.out(step)[0] for step in plain.head.steps(features, tokens)]).detach()
    for i, token in enumerate((4, 5, 9)):
        assert other[i].score == pytest.approx(float(logits[i, token]), abs=1e-5)
        assert one[i].score == pytest.approx(float(logits[i].log_softmax(0)[token]), abs=1e-5)
        assert other.targets[i].probability == pytest.approx(float(logits[i].softmax(0)[token]), abs=1e-5)
    assert other.metadata.unit == "word logit"
    assert other.text == "a dog is"
    with pytest.raises(InputError, match="expected unit"):
        Captioning(encoder(), plain.head, WORDS, plain.fit, unit="odds")


def test_phrases_outside_their_caption_are_refused() -> None:
    with pytest.raises(InputError, match="expected words 1 to 2 to lie in a caption of 2 words"):
        explain(captioner(), Image.new("RGB", (64, 64)), phrases=[(["a", "dog"], 1, 2)])


def test_questions_of_one_photo_are_explained_each() -> None:
    task, photo = answerer(), Image.effect_noise((64, 64), 80).convert("RGB")
    texts = ["is there a dog", "what color is the ball"]
    several = explain(task, photo, questions=texts)
    for text, one in zip(texts, several, strict=True):
        alone = explain(task, photo, question=text)[0]
        assert alone.label == one.label
        torch.testing.assert_close(alone.map, one.map)
    told = explain(task, photo, questions=texts, answers=["yes", None])
    assert told.labels == ["yes", several.labels[1]]
    torch.testing.assert_close(told[0].map, explain(task, photo, question=texts[0], answer="yes")[0].map)
    with pytest.raises(InputError, match="one, or None, for each of 2 questions; got 1"):
        explain(task, photo, questions=texts, answers=["yes"])
    with pytest.raises(InputError, match="alone; got top="):
        explain(task, photo, questions=texts, top=2)


def test_boxes_cover_the_pixels_whose_middle_they_hold() -> None:
    assert mask_of([(0.25, 0.0, 0.75, 0.5)], (4, 4)).tolist() == [[False, True, True, False]] * 2 + [[False] * 4] * 2
    assert mask_of([(0.4, 0.4, 0.41, 0.41)], (2, 2)).sum() == 1


@pytest.mark.parametrize(
    ("many", "one"), [("men", "man"), ("puppies", "puppy"), ("dresses", "dress"), ("bus", "bus"), ("balls", "ball")]
)
def test_singulars(many: str, one: str) -> None:
    assert singular(many) == one


def test_figures_of_a_captioner(parquet: Path) -> None:
    task = captioner(beam=2)
    made = audit(task, open_data(parquet), [hirescam], defaults_of(task))
    found, whole = made.figures("hirescam"), made.wholes("hirescam")
    assert (made.pictures, found["pointing"].rows) == (2, 8)
    assert set(made.kinds()) == {"other", "animals", "people", "scene"}
    scene = made.figures("hirescam", "scene")
    assert (scene["pointing"].mean, scene["baseline_center"].mean, scene["pointing"].rows) == (1.0, 1.0, 2)
    assert found["baseline_center"].mean == 4 / 8
    told = [row for row in made.rows if row["generated_caption"] is not None]
    assert [row["sample"] for row in told] == [0, 1], "once an image"
    photos = Photos(parquet)
    with torch.no_grad():
        own = [task.vocabulary.decode(task.generate(task.encode(task.prepare(p.image).pixels[None]))[0]) for p in photos]
    assert [row["generated_caption"].split() for row in told] == own
    references = [[tokenize(" ".join(caption)) for caption in photo.captions] for photo in photos]
    assert [[one.split() for one in row["reference_captions"].split("\n")] for row in told] == references
    assert (whole["bleu4"], whole["cider"]) == (bleu4(own, references), cider(own, references))
    assert ("meteor" in whole) == (meteor(own, references) is not None)
    assert {"bleu4", "cider"} <= set(made.metrics())
    assert "generated_caption" not in found, "a text has no mean"


def test_nouns_of_generated_captions_are_pointed_at(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The captioner is made to say words of the references: the head of a phrase with a box, and one that has none."""
    task, photo = captioner(), Photos(parquet)[0]
    phrase = next(one for one in photo.phrases if one.boxes)
    noun = photo.captions[phrase.caption][phrase.last]
    said = task.vocabulary.encode([noun, "in", noun])
    monkeypatch.setattr(task, "generate", lambda features, beam=None: [[START, *said, END] for _ in features])
    made = audit(task, open_data(parquet), [corner], ["captions"], limit=1)
    row = next(row for row in made.rows if row["generated_nouns"] is not None)
    assert (row["generated_caption"], row["generated_nouns"]) == (f"{noun} in {noun}", 2)
    boxes = [b for p in photo.phrases if photo.captions[p.caption][p.last] == noun for b in p.boxes]
    mask = mask_of(boxes, (photo.image.height, photo.image.width))
    assert row["generated_hits"] == 2 * mask[0, 0]
    assert row["generated_center_hits"] == 2 * mask[photo.image.height // 2, photo.image.width // 2]
    assert made.figures("corner")["generated_pointing"].mean == mask[0, 0]


def corner(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """A map that peaks in the top left corner, whatever is asked."""
    drawn = torch.zeros(len(features), *features.shape[2:])
    drawn[:, 0, 0] = 1
    return drawn


def test_the_figures_are_those_of_the_maps(parquet: Path) -> None:
    made = audit(captioner(), open_data(parquet), [corner], ["pointing"])
    found = made.figures("corner")
    assert found["pointing"].mean == 0.5  # the dog, whose box is that corner, and the grass, which is everywhere
    assert found["pointing_swapped"].mean == found["pointing_swapped_pairs"].mean == 0.5
    assert made.figures("corner", "animals")["pointing"].mean == 1
    assert made.figures("corner", "people")["pointing"].mean == 0


def test_photos_that_cannot_be_read_are_named_and_left_out(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    from pyarrow import parquet as file

    from mmgradcam import cli

    good = file.read_table(parquet).to_pylist()
    torn = {**good[0], "image": {"bytes": b"no picture", "path": None}}
    elsewhere = {**good[0], "image": {"bytes": None, "path": "http://127.0.0.1:9/a.png"}}
    wordless = {**good[0], "phrases": [{**good[0]["phrases"][0], "last_word": 99}]}
    rows = [torn, good[0], elsewhere, *good[1:], wordless]
    file.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "photos.parquet")
    whole = audit(captioner(), open_data(parquet), [hirescam], ["pointing", "heat"])
    made = audit(captioner(), open_data(tmp_path / "photos.parquet"), [hirescam], ["pointing", "heat"])
    assert made.figures("hirescam") == whole.figures("hirescam")
    assert len(made.bad) == 3
    assert "expected phrase" in made.bad[2]
    monkeypatch.setattr("mmgradcam.cli.commands.evaluate.load_asked", lambda *_: answerer())
    monkeypatch.setattr(sys, "argv", ["mmgradcam", "evaluate", "x", "--data", str(tmp_path / "photos.parquet"), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code in (0, None)
    assert len(json.loads(said.out)["malformed"]) == 3


def test_figures_of_answers(parquet: Path) -> None:
    task = answerer()
    made = audit(task, open_data(parquet), [hirescam], defaults_of(task))
    rows = list(made.rows)
    assert (made.pictures, len(rows), made.kinds(), made.out_of_vocabulary) == (2, 2, ["color"], 0)
    assert [row["text"] for row in rows] == ["what color is the ball"] * 2
    assert made.figures("hirescam")["majority_prior"].mean == 0.5
    assert sorted(row["answerable"] for row in rows) == [0, 1]
    grey = explain(task, Image.new("RGB", (64, 64), (128, 128, 128)), question=rows[0]["text"]).labels[0]
    answers = [
        with_questions(open_data(parquet)).mapped(lambda n, photo: photo)._photo(n, []).questions[0].answers for n in (0, 1)
    ]  # type: ignore[union-attr]
    assert [row["blind_accuracy"] for row in rows] == [grey in one for one in answers]
    assert [row["correct"] for row in rows] == [row["target"] in one for row, one in zip(rows, answers, strict=True)]
    for row, one in zip(rows, answers, strict=True):
        assert (row["pointing_correct"] is not None) == row["correct"]
        assert (row["pointing_given"] is not None) == bool(set(one) & set(task.labels))
        if row["correct"]:
            assert row["pointing_correct"] == row["pointing_given"] == row["pointing"]
    one = audit(answerer(), open_data(parquet), [hirescam], ["answers"], limit=1)
    assert len(one.rows) == 1, "balanced over all of the photos"
    with pytest.raises(InputError, match="captions: expected a model that generates captions"):
        audit(answerer(), open_data(parquet), [hirescam], ["captions"])


def test_a_correct_answer_is_explained_where_the_models_own_is_wrong(parquet: Path) -> None:
    task = answerer()
    made = audit(task, open_data(parquet), [hirescam], ["correct_answers"])
    for row in made.rows:
        if row["pointing_given"] is None or row["correct"]:
            continue
        photo = with_questions(open_data(parquet))._photo(row["sample"], [])
        assert photo is not None
        (question,) = photo.questions
        answer = next(one for one in question.answers if one in task.labels)
        part = explain(task, photo.image, question=question.text, answer=answer, method=hirescam)[0]
        heat = part.heat()
        assert row["pointing_given"] == peak_in(heat, mask_of(question.boxes, heat.shape))
        return
    pytest.fail("expected an answer that is wrong, and a right one that the model can give")


def apart(hub: Path, folder: Path) -> tuple[Captioning, dict[str, Any]]:
    """A captioner over that encoder, saved without it."""
    backbone = Backbone(str(hub), {"model_type": "mobilenet_v2", "output_stride": 16}, weights=True, without=["conv_1x1"])
    torch.manual_seed(1)
    made = {"kind": "lstm", "vocabulary": len(WORDS), "channels": backbone.channels, "width": 64, "looked_for": 3}
    head = EvidenceCaptioner(**made)
    task = Captioning(backbone.eval(), head.eval(), WORDS, Preprocess((64, 64), how="stretch"))
    described = {**backbone.describe(), "name": "org/elsewhere", "config": {"model_type": "mobilenet_v2", "output_stride": 16}}
    config = {
        "task": "mmgradcam.tasks.captioning:Captioning",
        "encoder": {"class": f"{NETS}.backbone:Backbone", **described, "weights": True},
        "head": {"class": f"{NETS}.evidence:EvidenceCaptioner", **made},
        "fit": {"size": [64, 64], "mean": [0.5] * 3, "std": [0.25] * 3, "how": "stretch"}, "words": list(WORDS.words),
        "beam": 3, "stored": "int8", "feature_layer": "features", "method": "normgrad", "target_layers": ["model.layer.14"], "fuse": "product",
    }  # fmt: skip
    save(task, config, folder)
    return task, config


def test_a_head_is_saved_without_its_encoder_and_loaded_over_it(hub_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    task, _ = apart(hub_folder, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert all(key.startswith("head.") for key in stored)
    assert stored["head.out.words.weight"].dtype == torch.float16  # too small to be worth a scale
    assert stored["head.language.tell_word.weight"].dtype == torch.int8
    back = load(tmp_path / "model", encoder=hub_folder)
    assert isinstance(back, Captioning)
    assert back.beam == 3
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(back.encode(picture), task.encode(picture))
    assert back.encode(picture).shape[-2:] == (4, 4)  # at stride 16, not 32
    for (name, own), (_, other) in zip(back.head.named_parameters(), task.head.named_parameters(), strict=True):
        assert (own - other).abs().max() <= 0.005 * other.abs().max() + 1e-6, name
    maps = explain(back, Image.effect_noise((90, 60), 80).convert("RGB"), caption="a dog")
    assert maps.metadata.feature_layer == "model.layer.14"
    assert maps[0].map.shape == (4, 4)


def test_training_may_begin_with_a_model_folder(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts" / "bundled"))
    from train_photos import start_of

    task, _ = apart(hub_folder, tmp_path / "model")
    recipe, head = start_of(tmp_path / "model", str(hub_folder), torch.device("cpu"))
    assert recipe == [{"start": "model"}]
    assert head.keys() == task.head.state_dict().keys()
    torch.testing.assert_close(head["detectors.tokens"], task.head.detectors.tokens)
    torch.save({"head": head, "recipe": [{"epochs": 1}]}, tmp_path / "best.pt")
    recipe, again = start_of(tmp_path / "best.pt", "any", torch.device("cpu"))
    assert recipe == [{"epochs": 1}]
    assert again.keys() == head.keys()


def test_an_encoder_that_cannot_be_had_is_one_line(hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart(hub_folder, tmp_path / "model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    told = ["caption", str(tmp_path / "x.png"), "--model", str(tmp_path / "model")]
    done = subprocess.run([sys.executable, "-m", "mmgradcam", *told], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(complaints(done.stderr)) == 1
    assert "org/elsewhere" in done.stderr
    assert "--encoder FOLDER" in done.stderr
    assert "hf download org/elsewhere --local-dir FOLDER" in done.stderr
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "model", encoder=tmp_path / "nowhere")
    with pytest.raises(InputError, match="has its own encoder"):
        load("scenes-captioner", encoder=hub_folder)


def test_the_variable_names_the_encoder_in_python_too(
    hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = apart(hub_folder, tmp_path / "model")
    picture = torch.rand(1, 3, 64, 64)
    monkeypatch.setenv("MMGRADCAM_ENCODER", str(hub_folder))
    torch.testing.assert_close(load(tmp_path / "model", "cpu").encode(picture), task.encode(picture))
    assert load("clips-motion", "cpu").name == "clips-motion", "a model with an encoder of its own does not care"
    monkeypatch.setenv("MMGRADCAM_ENCODER", "/nowhere")
    with pytest.raises(InputError, match="MMGRADCAM_ENCODER: /nowhere: no such folder; give one that holds org/elsewhere"):
        load(tmp_path / "model", "cpu")
    torch.testing.assert_close(load(tmp_path / "model", "cpu", encoder=hub_folder).encode(picture), task.encode(picture))


def test_caption_falls_back_and_vqa_says_how_to_get_the_encoder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmgradcam.cli import loading
    from mmgradcam.tasks import fetching

    monkeypatch.delenv("MMGRADCAM_ENCODER", raising=False)
    monkeypatch.setattr(fetching, "_hub_answers", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    assert loading.captioner("cpu", None).name == "photo-captioner-small"
    how = "hf download google/mobilenet_v2_1.0_224 --local-dir FOLDER"
    assert how in capsys.readouterr().err
    with pytest.raises(InputError) as refusal:
        loading.answerer("cpu", None)
    for said in (how, "--encoder FOLDER", "scenes-vqa", "photo-vqa"):
        assert said in str(refusal.value)
    with pytest.raises(InputError, match="device 'nonsense' cannot be used"):
        loading.captioner("nonsense", None)
    assert capsys.readouterr().err.count("instead") == 0


def test_evaluate_on_photos_prints_json(hub_folder: Path, parquet: Path, tmp_path: Path) -> None:
    apart(hub_folder, tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-m", "mmgradcam", "evaluate", str(tmp_path / "model"), "--data", str(parquet), "--limit", "1", "--json", "--encoder", str(hub_folder)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["pictures"], told["rows"]) == (1, 4)
    assert {"pointing", "inside_outside", "generated_pointing"} <= set(told["metrics"])
    assert "bleu4" in told["wholes"]["normgrad"]
