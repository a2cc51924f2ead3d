"""GIT (Wang et al. 2022): image tokens and text in one stream; maps are taken at the image encoder's last patches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    return architecture == "GitForCausalLM"


def build(source: Source) -> GenerativeVLM:
    import transformers

    return GenerativeVLM(Git(source.model(transformers.GitForCausalLM), source.fetch(transformers.AutoProcessor)))


class Leaf(nn.Module):
    """Stands where the image encoder stood, and gives what that had made of the picture."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.seen)


class Git:
    """Features are (B, C, tokens), the class token, which has no place, first."""

    query_types = frozenset({"caption", "prompt", "question"})
    feature_layer = "git.image_encoder"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.generator = model, processor.tokenizer, model
        self.prepare = TracedPreprocess(lambda image: processor.image_processor(image, return_tensors="pt")["pixel_values"][0])
        vision = model.config.vision_config
        side = vision.image_size // vision.patch_size
        self.target_layers = (TargetLayer(model.git.image_encoder, tokens((side, side), skip=1)),)
        self.begin, self.end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        self.pad = self.tokenizer.pad_token_id

    def encode(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.git.image_encoder(images.to(self.model.dtype)).last_hidden_state
        return found.transpose(1, 2)

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        return [self.begin, *(self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])]

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        ids, mask = padded(rows_of(prompts, texts), self.pad, features.device)
        with self._given(features):
            logits = self.model(input_ids=ids, attention_mask=mask, pixel_values=_blank(features)).logits
        return after(logits[:, -ids.shape[1] :], prompts, texts)

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        with self._given(features):
            ids = torch.tensor([prompt.tokens], device=features.device)
            return written(
                self.generator, self.tokenizer, most, beams, [self.end], self.pad, skip=len(prompt.tokens),
                pixel_values=_blank(features), input_ids=ids,
            )  # fmt: skip

    @contextmanager
    def _given(self, features: Tensor) -> Iterator[None]:
        """GIT takes pictures and nothing in their stead; within, its image encoder is one that has seen them already."""
        own = self.model.git.image_encoder
        self.model.git.image_encoder = Leaf(features.transpose(1, 2))
        try:
            yield
        finally:
            self.model.git.image_encoder = own

    def words(self) -> nn.Module:
        found: nn.Module = self.model.get_input_embeddings()
        return found


def _blank(features: Tensor) -> Tensor:
    return features.new_zeros(len(features), 3, 1, 1)
