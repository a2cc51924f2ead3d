"""Florence-2 (Xiao et al. 2023): an encoder-decoder that is told its task in words; maps are taken at the vision tower."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import TracedPreprocess
from mmgradcam.layers import TargetLayer
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt, scattered
from mmgradcam.tasks.hub.text import padded
from mmgradcam.tasks.hub.writing import Written, written

ASKED = "<CAPTION>"


def supports(architecture: str) -> bool:
    return architecture == "Florence2ForConditionalGeneration"


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(transformers.Florence2ForConditionalGeneration)
    return GenerativeVLM(Florence2(model, source.fetch(transformers.AutoProcessor)))


class Florence2:
    """Features are (B, C, 1 + cells): a token that is the mean of all comes first. The tower's own grid lies before them."""

    query_types = frozenset({"caption", "prompt", "question"})
    feature_layer = "model.vision_tower"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor, self.tokenizer, self.generator = model, processor, processor.tokenizer, model
        self.prepare = TracedPreprocess(lambda image: processor.image_processor(image, return_tensors="pt")["pixel_values"][0])
        self.target_layers = (TargetLayer(model.model.vision_tower),)
        own = model.config.text_config
        self.image: int = model.config.image_token_id
        self.begin, self.end, self.pad = own.decoder_start_token_id, own.eos_token_id, own.pad_token_id

    def encode(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.get_image_features(images.to(self.model.dtype)).pooler_output
        return found.transpose(1, 2)

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        """The processor's own, which it makes of a blank picture."""
        try:
            made = self.processor(images=[Image.new("RGB", (64, 64))], text=[text or ASKED])
        except ValueError as error:
            raise InputError(f"prompt: {error}") from None
        found: list[int] = list(made["input_ids"][0])
        return found

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        ids, mask = padded([p.tokens for p in prompts], self.pad, features.device)
        said, _ = padded([[self.begin, *t[:-1]] for t in texts], self.pad, features.device)
        words = scattered(self.model.get_input_embeddings()(ids), ids == self.image, features.transpose(1, 2))
        logits: Tensor = self.model(inputs_embeds=words, attention_mask=mask, decoder_input_ids=said).logits
        return logits

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        ids = torch.tensor([prompt.tokens], device=features.device)
        seen = {"image": BaseModelOutputWithPooling(pooler_output=features.transpose(1, 2))}
        return written(
            self.generator, self.tokenizer, most, beams, [self.end], self.pad, skip=1,
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_encoder_outputs=seen,
        )  # fmt: skip

    def words(self) -> nn.Module:
        found: nn.Module = self.model.get_input_embeddings()
        return found
