"""An image encoder and a text decoder put together (`VisionEncoderDecoderModel`): ViT or Swin with GPT-2, and their like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.images.pictures import TracedPreprocess
from mmgradcam.layers import TargetLayer
from mmgradcam.layouts import tokens_of
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt, after, rows_of
from mmgradcam.tasks.hub.text import padded
from mmgradcam.tasks.hub.writing import Written, written


def supports(architecture: str) -> bool:
    return architecture == "VisionEncoderDecoderModel"


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(transformers.VisionEncoderDecoderModel)
    pictures = source.fetch(transformers.AutoImageProcessor)
    return GenerativeVLM(EncoderDecoder(model, pictures, source.fetch(transformers.AutoTokenizer)))


class EncoderDecoder:
    """Features are (B, C, tokens), those that have no place first; maps are taken at the encoder's last."""

    query_types = frozenset({"caption", "prompt"})
    feature_layer = "encoder"

    def __init__(self, model: Any, pictures: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.generator = model, tokenizer, model
        self.prepare = TracedPreprocess(lambda image: pictures(image, return_tensors="pt")["pixel_values"][0])
        side = model.encoder.config.image_size
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        with torch.no_grad():
            found = self.encode(torch.zeros(1, 3, height, width, dtype=model.dtype))
        self.target_layers = (TargetLayer(model.encoder, tokens_of(found.shape[2], height / width)),)
        said, own = model.generation_config, model.config
        self.begin = _first(own.decoder_start_token_id, said.decoder_start_token_id, tokenizer.bos_token_id)
        self.end = _first(said.eos_token_id, own.decoder.eos_token_id, tokenizer.eos_token_id, -1)
        self.pad = _first(said.pad_token_id, own.pad_token_id, tokenizer.pad_token_id, self.end)

    def encode(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.encoder(pixel_values=images.to(self.model.dtype)).last_hidden_state
        return found.transpose(1, 2)

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        return [self.begin, *(self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [])]

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        ids, mask = padded(rows_of(prompts, texts), self.pad, features.device)
        found = self.model(encoder_outputs=self._seen(features), decoder_input_ids=ids, decoder_attention_mask=mask)
        return after(found.logits, prompts, texts)

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        ids = torch.tensor([prompt.tokens], device=features.device)
        return written(
            self.generator, self.tokenizer, most, beams, [self.end], self.pad, skip=len(prompt.tokens),
            encoder_outputs=self._seen(features), decoder_input_ids=ids,
        )  # fmt: skip

    def _seen(self, features: Tensor) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=features.transpose(1, 2))

    def words(self) -> nn.Module:
        found: nn.Module = self.model.decoder.get_input_embeddings()
        return found


def _first(*tokens: int | None) -> int:
    """The first that is known."""
    return next(token for token in tokens if token is not None)
