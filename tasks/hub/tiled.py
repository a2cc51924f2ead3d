"""Language models that see a picture in tiles: SmolVLM and Idefics3, InternVL, LLaVA-OneVision.

A large picture is cut into squares, and a small copy of all of it stands beside them. Maps are (T, h, w), one plane per
tile; they are put together on the picture, where every tile knows its place.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import PreparedImage
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt
from mmgradcam.tasks.hub.multimodal import ASKED, Multimodal, pooled


def supports(architecture: str) -> bool:
    return architecture in VOICES


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(transformers.AutoModelForImageTextToText)
    return GenerativeVLM(VOICES[source.architecture](model, source.fetch(transformers.AutoProcessor)))


UNKNOWN = "how the tiles of this model lie is not known without the picture: give it as a file or a PIL image"


class Tiled(Multimodal):
    """Tiles of one size, each a square grid of tokens; the processor says in the prompt how they lie."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        return replace(super().prepare(image), size=image.size)

    def _pixels(self, image: Any) -> Tensor:
        found: Tensor = self.processor(images=[image], text=[self.mark], return_tensors="pt")["pixel_values"]
        return found.flatten(0, -4)

    def encode(self, images: Tensor) -> Tensor:
        if images.dim() != 5:
            raise InputError(f"expected a picture, got a tensor {tuple(images.shape)}; {UNKNOWN}")
        made = self._tokens(images.to(self.model.dtype)).transpose(2, 3)  # (B, T, C, cells)
        side = math.isqrt(made.shape[3])
        return torch.unflatten(made, 3, (side, side)).transpose(1, 2)

    def _tokens(self, images: Tensor) -> Tensor:
        """(B, T, 3, h, w) -> (B, T, cells, C), tile by tile as the vision encoder gives them."""
        found = self.model.get_image_features(pixel_values=images.flatten(0, 1), return_dict=True).pooler_output
        return torch.unflatten(found, 0, images.shape[:2])

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        """The processor's own, which it makes of a blank picture of the same size."""
        if size is None:
            raise InputError(f"expected a picture, got a prepared tensor; {UNKNOWN}")
        made = self.processor(images=[Image.new("RGB", size)], text=[self.written(text or ASKED)])
        return list(made["input_ids"][0])

    def seen(self, features: Tensor, prompts: list[Prompt]) -> dict[str, Any]:
        tokens = features.flatten(3).permute(0, 2, 3, 1)  # (R, T, cells, C)
        return {"image": pooled(self.packed(tokens, prompts))}

    def packed(self, tokens: Tensor, prompts: list[Prompt]) -> Any:
        """(R, T, cells, C) as the language model gets them."""
        return tokens.flatten(0, 1)


class Idefics3(Tiled):
    """The vision encoder takes the tiles of several pictures apart itself; transformers 5.18 leaves them in one tensor."""

    def _tokens(self, images: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=images, return_dict=True).pooler_output
        made = found if isinstance(found, Tensor) else torch.stack(list(found))
        return made.reshape(*images.shape[:2], -1, made.shape[-1])


class LlavaOnevision(Tiled):
    """The tiles make one picture again, from which the padding is cut, and a token ends each of its rows."""

    def _tokens(self, images: Tensor) -> Tensor:
        inner, own = self.model.model, self.model.config
        layers = own.vision_feature_layer
        states = inner.vision_tower(images.flatten(0, 1), output_hidden_states=True).hidden_states
        chosen = states[layers] if isinstance(layers, int) else torch.cat([states[layer] for layer in layers], -1)
        if own.vision_feature_select_strategy == "default":
            chosen = chosen[:, 1:]
        made: Tensor = inner.multi_modal_projector(chosen)
        return torch.unflatten(made, 0, images.shape[:2])

    def packed(self, tokens: Tensor, prompts: list[Prompt]) -> Any:
        sizes = [(prompt.size or (0, 0))[::-1] for prompt in prompts]
        made, _ = self.model.model.pack_image_features(
            list(tokens), torch.tensor(sizes), image_newline=self.model.model.image_newline,
            vision_aspect_ratio=self.model.config.vision_aspect_ratio,
        )  # fmt: skip
        return made


VOICES: dict[str, type[Tiled]] = {
    "Idefics3ForConditionalGeneration": Idefics3,
    "SmolVLMForConditionalGeneration": Idefics3,
    "InternVLForConditionalGeneration": Tiled,
    "LlavaOnevisionForConditionalGeneration": LlavaOnevision,
}
