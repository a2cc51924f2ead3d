"""BLIP-2 (Li et al. 2023): a Q-Former between a ViT and a language model; its queries have no place, the ViT's patches do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.images.pictures import TracedPreprocess
from mmgradcam.layers import TargetLayer
from mmgradcam.layouts import tokens
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt, after, rows_of, scattered
from mmgradcam.tasks.hub.text import padded
from mmgradcam.tasks.hub.writing import Written, written


def supports(architecture: str) -> bool:
    return architecture == "Blip2ForConditionalGeneration"


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(transformers.Blip2ForConditionalGeneration)
    return GenerativeVLM(Blip2(model, source.fetch(transformers.AutoProcessor)))


class Blip2:
    """Features are (B, C, tokens) of the ViT, the class token, which has no place, first; the Q-Former reads them per row."""

    query_types = frozenset({"caption", "prompt", "question"})
    feature_layer = "vision_model"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.generator = model, processor.tokenizer, model.language_model
        self.prepare = TracedPreprocess(lambda image: processor.image_processor(image, return_tensors="pt")["pixel_values"][0])
        vision, own = model.config.vision_config, model.config.text_config
        side = vision.image_size // vision.patch_size
        self.target_layers = (TargetLayer(model.vision_model, tokens((side, side), skip=1)),)
        self.image: int = model.config.image_token_index
        self.one_stream: bool = model.config.use_decoder_only_language_model
        self.begin = own.bos_token_id if self.one_stream else own.decoder_start_token_id
        self.end = own.eos_token_id
        self.pad = next(t for t in (own.pad_token_id, self.tokenizer.pad_token_id, self.end) if t is not None)

    def encode(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.vision_model(pixel_values=images.to(self.model.dtype)).last_hidden_state
        return found.transpose(1, 2)

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        asked = text if not question else f"Question: {text} Answer:"
        said = self.tokenizer(asked)["input_ids"] if asked else [self.begin] if self.one_stream else [self.end]
        return [self.image] * self.model.config.num_query_tokens + said

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        if self.one_stream:
            ids, mask = padded(rows_of(prompts, texts), self.pad, features.device)
            found = self.model.language_model(inputs_embeds=self._embedded(ids, features), attention_mask=mask)
            return after(found.logits, prompts, texts)
        ids, mask = padded([p.tokens for p in prompts], self.pad, features.device)
        said, _ = padded([[self.begin, *t[:-1]] for t in texts], self.pad, features.device)
        found = self.model.language_model(
            inputs_embeds=self._embedded(ids, features), attention_mask=mask, decoder_input_ids=said
        )
        logits: Tensor = found.logits
        return logits

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        ids = torch.tensor([prompt.tokens], device=features.device)
        return written(
            self.generator, self.tokenizer, most, beams, [self.end], self.pad, skip=0 if self.one_stream else 1,
            lead=[self.begin] * self.one_stream, inputs_embeds=self._embedded(ids, features),
            attention_mask=torch.ones_like(ids),
        )  # fmt: skip

    def _embedded(self, ids: Tensor, features: Tensor) -> Tensor:
        seen = features.transpose(1, 2)
        queries = self.model.query_tokens.expand(len(seen), -1, -1)
        asked = self.model.qformer(query_embeds=queries, encoder_hidden_states=seen.to(queries.dtype)).last_hidden_state
        words = self.model.get_input_embeddings()(ids)
        return scattered(words, ids == self.image, self.model.language_projection(asked.to(seen.dtype)))

    def words(self) -> nn.Module:
        found: nn.Module = self.model.get_input_embeddings()
        return found
