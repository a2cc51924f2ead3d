"""Words and the tokens they are made of, over tokenizers of every kind: no token lost, none counted twice."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import GenerationConfig

from mmgradcam import InputError, explain
from mmgradcam.explanation import Explanation, Metadata
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks import VQA, Captioning
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt
from mmgradcam.tasks.hub.text import words_among, words_of, words_read
from mmgradcam.tasks.nets.answerers import LSTMAnswerer
from mmgradcam.tasks.nets.captioners import LSTMCaptioner
from mmgradcam.tasks.vocabulary import Vocabulary, spoken, tokenize

TEXTS = [
    "a dog catches the red frisbee.",
    "What's the t-shirt's colour? It's 2.5 m long, isn't it?",
    "rock'n'roll, black-and-white; state-of-the-art (2024)!",
    "un café crème brûlée à Orléans, naïve façade",
    "una pin\u0303ata y el nin\u0303o: \u00bfque\u0301?",
    "一只狗在草地上追红色的球。它很快乐!",
    "犬が赤いフリスビーを追いかけている。",
    "หมาวิ่งไล่จับลูกบอลสีแดงที่สวน",
    "كلبٌ يُمسكُ القرصَ الأحمرَ في الحديقة.",
    "कुत्ता लाल गेंद पकड़ता है",
    "dog 🐶 and family 👨‍👩‍👧‍👦 in 🇫🇷, thumbs 👍🏽!",
    'He said: "Hello (world)..." and left -- quickly.',
    "iPhone手机 costs $1,000.50 or 5% of €20k",
    "  two  spaces\nand\n\nlines \n",
    "ﬁsh naïve Straße ＡＢＣ ½ Å",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _byte_level(folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=330, special_tokens=["<|end|>"], initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


def _byte_fallback(folder: Path) -> Any:
    """As Llama's: SentencePiece's BPE; what it does not know is written byte by byte."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        *"abcdefghiklmnoprstuwé狗ا",
        "▁a",
        "▁d",
        "▁do",
        "▁dog",
        "'s",
    ]
    merges = [("▁", "a"), ("▁", "d"), ("▁d", "o"), ("▁do", "g")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _unigram(folder: Path) -> Any:
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import PreTrainedTokenizerFast

    made = SentencePieceUnigramTokenizer()
    made.train_from_iterator(
        TEXTS, vocab_size=260, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _wordpiece(folder: Path, **how: Any) -> Any:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    made = BertWordPieceTokenizer(**how)
    made.train_from_iterator(TEXTS, vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    fast = BertTokenizerFast(tokenizer_object=made._tokenizer, clean_up_tokenization_spaces=True)
    assert fast.clean_up_tokenization_spaces
    return fast


KINDS = {
    "byte-level BPE": _byte_level,
    "BPE with byte fallback": _byte_fallback,
    "Unigram": _unigram,
    "BERT, cleaned up": lambda folder: _wordpiece(folder, lowercase=True),
    "BERT, cased": lambda folder: _wordpiece(folder, lowercase=False, strip_accents=False),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return KINDS[request.param](tmp_path_factory.mktemp("words"))


def written(tokenizer: Any) -> list[list[int]]:
    """What a model may write: sensible texts, texts cut in the middle of a letter, and nonsense."""
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    rng = np.random.default_rng(0)
    cut = [text[: max(1, int(rng.integers(len(text))))] for text in texts]
    random = [rng.integers(len(tokenizer), size=rng.integers(1, 30)).tolist() for _ in range(60)]
    return [*texts, *cut, *random]


def ordinary(tokenizer: Any, tokens: list[int]) -> list[int]:
    """Places of the tokens that are not special; what stands for an unknown word is one of the text."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return [i for i, token in enumerate(tokens) if token not in special]


def test_every_token_belongs_to_one_word_and_words_add_up_to_the_text(tokenizer: Any) -> None:
    seen = 0
    for tokens in written(tokenizer):
        kept = ordinary(tokenizer, tokens)
        text = tokenizer.decode([tokens[i] for i in kept])
        words = words_of(tokenizer, tokens)
        if all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text):
            assert not words  # nothing to be seen
            continue
        assert "".join(word.text for word in words) == text
        assert [i for word in words for i in word.tokens] == kept, text
        assert all(word.label and word.label == word.label.strip() for word in words)
        seen += len(words)
    assert seen > 500


def test_every_token_of_a_text_of_the_users_belongs_to_one_of_its_words(tokenizer: Any) -> None:
    for text in TEXTS:
        tokens = tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        words = words_of(tokenizer, tokens, text.strip())
        assert "".join(word.text for word in words) == text.strip()
        assert [i for word in words for i in word.tokens] == ordinary(tokenizer, tokens), text


class Chance:
    """Talks by chance, the same whenever it is asked."""

    query_types = frozenset({"caption", "prompt"})
    feature_layer, target_layers = "features", ()

    def __init__(self, tokenizer: Any) -> None:
        self.model, self.tokenizer = nn.Linear(1, 1), tokenizer
        self.generator = SimpleNamespace(generation_config=GenerationConfig())
        self.logits = torch.randn(200, len(tokenizer), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def prompt(self, *_: Any) -> list[int]:
        return []

    def read(self, features: torch.Tensor, prompts: list[Prompt], texts: list[list[int]]) -> torch.Tensor:
        return self.logits[: max(map(len, texts))].expand(len(texts), -1, -1)


def test_the_words_scores_add_up_to_the_texts(tokenizer: Any) -> None:
    adapter: Any = Chance(tokenizer)
    task = GenerativeVLM(adapter)
    for text in TEXTS:
        targets = task.targets(torch.zeros(1, 1, 1, 1), caption=text)
        tokens = tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        own = adapter.logits[: len(tokens)].log_softmax(-1)[range(len(tokens)), tokens]
        whole = own[ordinary(tokenizer, tokens)].sum().item()
        scores = task.score(torch.zeros(len(targets), 1, 1, 1), targets)
        assert float(scores.double().sum()) == pytest.approx(whole, rel=1e-5), text
        joined = task.join(targets)
        assert joined.text == text.strip()
        assert float(task.score(torch.zeros(1, 1, 1, 1), [joined])) == pytest.approx(whole, rel=1e-5)


def test_a_phrase_is_found_by_how_it_is_written(tmp_path: Path) -> None:
    """Also where its words stand without spaces or with a comma between."""
    task = GenerativeVLM(Chance(_byte_level(tmp_path)))  # type: ignore[arg-type]
    for text, phrase in {"一只狗在草地上。": "草地", "a red, round frisbee.": "red, round", "a t-shirt (red)": "(red)"}.items():
        targets = task.targets(torch.zeros(1, 1, 1, 1), caption=text)
        again = lambda target: made(task, [target])  # noqa: E731
        words = made(task, targets, again)
        assert words.text == text
        joint = words[phrase]
        first = text.index(phrase)
        inside = [
            t
            for t, at in zip(targets, np.cumsum([len(t.text or "") for t in targets]), strict=True)
            if first < at <= first + len(phrase)
        ]
        assert joint.targets[0].value.positions == tuple(i for t in inside for i in t.value.positions)
        assert joint.text == phrase
        described = words.describe()
        assert described["text"] == text == "".join(t["text"] for t in described["targets"])
        assert Explanation.load(words.save(tmp_path / "made.npz")[0]).text == text


def made(task: GenerativeVLM, targets: Any, again: Any = None) -> Explanation:
    maps, scores = torch.ones(len(targets), 2, 2), torch.zeros(len(targets))
    metadata = Metadata("chance", task.unit, "none", task.feature_layer)
    return Explanation(
        Image.new("RGB", (4, 4)), (0, 0, 1, 1), targets, maps, scores, None, [None] * len(targets), metadata, task, again
    )


def test_punctuation_has_no_panel(tmp_path: Path) -> None:
    task = GenerativeVLM(Chance(_byte_level(tmp_path)))  # type: ignore[arg-type]
    with_marks, without = (
        made(task, task.targets(torch.zeros(1, 1, 1, 1), caption=text)) for text in ("a dog, a cat.", "a dog a cat")
    )
    assert (len(with_marks), len(without)) == (6, 4)
    assert with_marks.panels().size == without.panels().size


LABELS = {
    "What's the t-shirt's colour?": ["What's", "the", "t-shirt's", "colour", "?"],
    "rock'n'roll is 2.5 m, or 1,000!": ["rock'n'roll", "is", "2.5", "m", ",", "or", "1,000", "!"],
    "un café": ["un", "café"],
    "el nin\u0303o": ["el", "nin\u0303o"],
    "🐶 and 👍🏽": ["🐶", "and", "👍🏽"],
    "كلبٌ في الحديقة": ["كلبٌ", "في", "الحديقة"],
}


@pytest.mark.parametrize("text", LABELS)
def test_words_are_what_people_call_words(tokenizer: Any, text: str) -> None:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [word.label for word in words_of(tokenizer, tokens, text)] == LABELS[text]


def test_a_text_without_spaces_is_split_by_character_or_token(tmp_path: Path) -> None:
    tokenizer = _byte_level(tmp_path)
    text = "一只狗在追红色的球。"
    words = words_of(tokenizer, tokenizer(text)["input_ids"])
    assert [word.label for word in words] == list(text)
    assert max(len(word.tokens) for word in words) > 1


def test_what_bert_parts_is_put_together(tmp_path: Path) -> None:
    """Its decoded text has spaces that nobody wrote."""
    tokenizer = _wordpiece(tmp_path, lowercase=True)
    for text, label in {
        "a t-shirt": "t-shirt",
        "it's 2.5 m": "2.5",
        "what's it": "what's",
        "black-and-white": "black-and-white",
    }.items():
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        found = {word.label: word.tokens for word in words_of(tokenizer, tokens)}
        assert label in found, (text, tokenizer.decode(tokens), found)


QUESTIONS = [*LABELS, *TEXTS[:3], "is the zebra🦓's t-shirt 2.5?"]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "around", ["{}", "user: look at this. {} assistant:", "[picture]\n{}\nAnswer the question: what is it?"]
)
def test_the_words_of_a_question_are_found_among_the_prompts_tokens(tokenizer: Any, question: str, around: str) -> None:
    tokens = tokenizer(around.format(question))["input_ids"]
    words = words_among(tokenizer, tokens, question)
    alone = words_of(tokenizer, tokenizer(question, add_special_tokens=False)["input_ids"], question)
    spoken = [word.label for word in alone if any(c.isalnum() or ord(c) > 0x2190 for c in word.label)]
    assert [word.text for word in words] == spoken
    at = [i for word in words for i in range(word.first, word.last + 1)]
    assert at == sorted(set(at))
    if around == "{}" and tokenizer.unk_token_id not in tokens:
        spelled = sum(len(word.tokens) for word in alone if word.label in spoken)
        assert len(at) == spelled


def test_words_of_a_question_that_are_not_found_are_named(tmp_path: Path) -> None:
    tokenizer = _byte_level(tmp_path)
    with pytest.warns(UserWarning, match="no importance is given for 'striped'"):
        assert [
            word.text for word in words_read(tokenizer, tokenizer("is the cat red?")["input_ids"], "is the striped cat red?")
        ]


SPOKEN = Vocabulary(("a", "man", "in", "t", "shirt", "2", "5", "what", "'s", "'", "x-ray", "is", "red"))


def test_words_of_a_closed_vocabulary_are_tokens_as_it_was_trained_and_whole_words_to_people() -> None:
    read = spoken("What's a man in a “t-shirt”, 2.5 x-ray 's ' red?", SPOKEN)
    assert read.words == ("what", "'s", "a", "man", "in", "a", "t", "shirt", "2", "5", "x-ray", "'s", "'", "red")
    assert [w.text for w in read.spans] == ["what's", "a", "man", "in", "a", "t-shirt", "2.5", "x-ray", "'s", "'", "red"]
    assert [i for w in read.spans for i in range(w.first, w.last + 1)] == list(range(14))
    for text in ("a man's t-shirt", "red, a.b 'quoted' t/shirt", "A MAN in 2 - 5", "it's rock'n'roll ½ a_b"):
        words = tuple(w for word in tokenize(text) for w in ([word] if word in SPOKEN else ["?"]))
        own = spoken(text, Vocabulary(tuple(dict.fromkeys(tokenize(text)))))
        assert own.words == tuple(tokenize(text)), words


def test_importances_and_scores_of_a_word_are_the_sums_over_its_parts() -> None:
    torch.manual_seed(0)
    picture, encoder = Image.new("RGB", (16, 16), (9, 99, 199)), nn.Conv2d(3, 6, 4, 4)
    fit = Preprocess((16, 16), how="stretch")
    vqa = VQA(encoder, LSTMAnswerer(len(SPOKEN), 3, 6, 8).eval(), SPOKEN, ["yes", "no", "red"], fit)
    whole, parts = (explain(vqa, picture, question=f"is a man in a {word} red") for word in ("t-shirt", "t shirt"))
    named = dict(whole.importances)
    assert named["t-shirt"] == pytest.approx(
        sum(value for word, value in parts.importances if word in ("t", "shirt")), rel=1e-4
    )
    captioner = Captioning(encoder, LSTMCaptioner(len(SPOKEN), 6, 8).eval(), SPOKEN, fit)
    one, two = (explain(captioner, picture, caption=f"a red {word}") for word in ("t-shirt", "t shirt"))
    assert one.labels == ["a", "red", "t-shirt"]
    assert one["t-shirt"].score == pytest.approx(two["t"].score + two["shirt"].score, rel=1e-5)
    for top in (0, -1, True):
        with pytest.raises(InputError, match="top: expected a whole number of 1 or more"):
            explain(vqa, picture, question="is a man red", top=top)
