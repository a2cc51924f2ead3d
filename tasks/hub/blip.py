"""BLIP (Li et al. 2022): captions and answers; maps are taken at the vision model's last patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.images.pictures import TracedPreprocess
from mmgradcam.layers import TargetLayer
from mmgradcam.layouts import tokens
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt, after, rows_of
from mmgradcam.tasks.hub.text import padded
from mmgradcam.tasks.hub.writing import Written, written


def supports(architecture: str) -> bool:
    return architecture in ("BlipForConditionalGeneration", "BlipForQuestionAnswering")


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(getattr(transformers, source.architecture))
    processor = source.fetch(transformers.AutoProcessor)
    return GenerativeVLM((Captions if source.architecture == "BlipForConditionalGeneration" else Answers)(model, processor))


class Blip:
    """What captions and answers share. Features are (B, C, tokens); the class token, which has no place, comes first."""

    feature_layer = "vision_model"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.generator = model, processor.tokenizer, model.text_decoder
        self.prepare = TracedPreprocess(lambda image: processor.image_processor(image, return_tensors="pt")["pixel_values"][0])
        vision, text = model.config.vision_config, model.config.text_config
        side = vision.image_size // vision.patch_size
        self.target_layers = (TargetLayer(model.vision_model, tokens((side, side), skip=1)),)
        self.begin, self.end, self.pad = text.bos_token_id, text.sep_token_id, text.pad_token_id

    def encode(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.vision_model(pixel_values=images.to(self.model.dtype)).last_hidden_state
        return found.transpose(1, 2)

    def _decode(self, prompts: list[Prompt], texts: list[list[int]], seen: Tensor) -> Tensor:
        rows = rows_of(prompts, texts)
        ids, there = padded(rows, self.pad, seen.device)
        found = self.model.text_decoder(input_ids=ids, attention_mask=there, encoder_hidden_states=seen)
        return after(found.logits, prompts, texts)

    def _write(self, prompt: Prompt, most: int, beams: int, seen: Tensor) -> list[Written]:
        return written(
            self.generator, self.tokenizer, most, beams, [self.end], self.pad, skip=len(prompt.tokens),
            input_ids=torch.tensor([prompt.tokens], device=seen.device), encoder_hidden_states=seen,
        )  # fmt: skip


class Captions(Blip):
    """Captions, or what goes on from a prompt."""

    query_types = frozenset({"caption", "prompt"})

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        return [self.begin, *(self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])]

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        return self._decode(prompts, texts, features.transpose(1, 2))

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        return self._write(prompt, most, beams, features.transpose(1, 2))

    def words(self) -> nn.Module:
        found: nn.Module = self.model.text_decoder.get_input_embeddings()
        return found


class Answers(Blip):
    """Answers: the question is read on sight of the picture, and the answer written on sight of the question."""

    query_types = frozenset({"question"})

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        """Decoded apart for each length of question: transformers 5 drops the mask that would hide what fills short ones up."""
        asked, longest = self._ask(features, prompts), max(map(len, texts))
        found: list[Tensor] = [asked] * len(texts)
        lengths = [len(prompt.tokens) for prompt in prompts]
        for length in set(lengths):
            rows = [r for r, its in enumerate(lengths) if its == length]
            logits = self._decode([Prompt((self.begin,))] * len(rows), [texts[r] for r in rows], asked[rows, :length])
            for r, row in zip(rows, logits, strict=True):
                found[r] = nn.functional.pad(row, (0, 0, 0, longest - len(row)))
        return torch.stack(found)

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        return self._write(Prompt((self.begin,)), most, beams, self._ask(features, [prompt]))

    def _ask(self, features: Tensor, prompts: list[Prompt]) -> Tensor:
        """The questions as the text encoder understands them on sight of the pictures."""
        ids, mask = padded([p.tokens for p in prompts], self.pad, features.device)
        seen = features.transpose(1, 2)
        found = self.model.text_encoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen)
        asked: Tensor = found.last_hidden_state
        return asked

    def words(self) -> nn.Module:
        found: nn.Module = self.model.text_encoder.get_input_embeddings()
        return found
