"""Language models that see: LLaVA, PaliGemma, Qwen-VL, ... through the one argument most of them share.

`mm_encoder_outputs` takes what the vision encoder made of the picture, so that it runs once for writing and for scoring;
it is the feature layer. Maps are taken at the image tokens as the language model gets them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import PreparedImage, TracedPreprocess
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.generative import GenerativeVLM, Prompt, after, rows_of
from mmgradcam.tasks.hub.text import padded
from mmgradcam.tasks.hub.writing import Written, written

ASKED = "Describe the picture in one sentence."
"""What a model that only replies is told when the user says nothing."""


def supports(architecture: str) -> bool:
    return architecture in VOICES


def build(source: Source) -> GenerativeVLM:
    import transformers

    model = source.model(transformers.AutoModelForImageTextToText)
    return GenerativeVLM(VOICES[source.architecture](model, source.fetch(transformers.AutoProcessor)))


class Multimodal:
    """One picture of a fixed size, one token per cell of its grid."""

    query_types = frozenset({"caption", "prompt", "question"})
    feature_layer = "image tokens"
    target_layers = ()

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor, self.tokenizer, self.generator = model, processor, processor.tokenizer, model
        self.image: int = model.config.image_token_id
        self._seen = TracedPreprocess(self._pixels)
        settings = model.generation_config
        ends = settings.eos_token_id if settings.eos_token_id is not None else self.tokenizer.eos_token_id
        self.ends: list[int] = ends if isinstance(ends, list) else [ends]
        self.pad = next((t for t in (settings.pad_token_id, self.tokenizer.pad_token_id, *self.ends) if t is not None), 0)

    @property
    def mark(self) -> str:
        """What stands for the picture in a prompt."""
        return str(self.tokenizer.convert_ids_to_tokens(self.image))

    def prepare(self, image: Image.Image) -> PreparedImage:
        return self._seen(image)

    def _pixels(self, image: Any) -> Tensor:
        found: Tensor = self.processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return found

    def encode(self, images: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=images.to(self.model.dtype), return_dict=True).pooler_output
        made = torch.stack(list(found)).transpose(1, 2)  # (B, C, cells)
        rows = round(math.sqrt(made.shape[2] * images.shape[-2] / images.shape[-1]))
        return torch.unflatten(made, 2, (rows, -1))

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        """The model's own chat template, its one image token repeated for each cell."""
        written = self.written(text or ASKED)
        begun = written.startswith(self.tokenizer.bos_token or self.tokenizer.decode([self.image]))
        found: list[int] = self.tokenizer(written, add_special_tokens=not begun)["input_ids"]
        if found.count(self.image) != 1:
            raise InputError(f"expected a prompt with one picture, got {found.count(self.image)}: {written[:200]!r}")
        at = found.index(self.image)
        return found[:at] + [self.image] * math.prod(features.shape[2:]) + found[at + 1 :]

    def written(self, asked: str) -> str:
        """The prompt before it becomes tokens: by the chat template, or as it is where it holds the picture's token itself."""
        if self.mark in asked:
            return asked
        if not getattr(self.processor, "chat_template", None):
            raise InputError(
                "its processor has no chat template, which says how the model is asked; give the whole prompt, "
                f"with {self.mark} where the picture stands, as prompt= or question="
            )
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        found: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return found

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        rows = rows_of(prompts, texts)
        ids, mask = padded(rows, self.pad, features.device)
        first = min(len(prompt.tokens) for prompt in prompts) - 1
        found = self.model(
            input_ids=ids, attention_mask=mask, mm_encoder_outputs=self.seen(features, prompts),
            logits_to_keep=ids.shape[1] - first, **self.beside(ids, prompts, features),
        )  # fmt: skip
        return after(found.logits, [Prompt(prompt.tokens[first:]) for prompt in prompts], texts)

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        ids = torch.tensor([prompt.tokens], device=features.device)
        return written(
            self.generator, self.tokenizer, most, beams, self.ends, self.pad, skip=len(prompt.tokens), never=[self.image],
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_encoder_outputs=self.seen(features, [prompt]),
            **self.beside(ids, [prompt], features),
        )  # fmt: skip

    def seen(self, features: Tensor, prompts: list[Prompt]) -> dict[str, Any]:
        """What the vision encoder made of the pictures, as the model takes it."""
        return {"image": pooled(list(features.flatten(2).transpose(1, 2)))}

    def beside(self, ids: Tensor, prompts: list[Prompt], features: Tensor) -> dict[str, Any]:
        """What else the model wants to know of the tokens and the pictures."""
        return {}

    def words(self) -> nn.Module:
        found: nn.Module = self.model.get_input_embeddings()
        return found


def pooled(tokens: Any) -> Any:
    """What a vision encoder made, in the wrapping transformers wants."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return BaseModelOutputWithPooling(pooler_output=tokens)


class PaliGemma(Multimodal):
    """Looks at all of the prompt at once, and at what it writes from left to right; it wants to know which is which."""

    def written(self, asked: str) -> str:
        picture = self.tokenizer.decode([self.image])
        return f"{picture}{self.tokenizer.bos_token}{'caption en' if asked == ASKED else asked}\n"

    def seen(self, features: Tensor, prompts: list[Prompt]) -> dict[str, Any]:
        found = super().seen(features, prompts)
        found["image"]["pooler_output"] = torch.stack(found["image"]["pooler_output"])
        return found

    def beside(self, ids: Tensor, prompts: list[Prompt], features: Tensor) -> dict[str, Any]:
        at = torch.arange(ids.shape[1], device=ids.device)
        return {"token_type_ids": torch.stack([(at >= len(prompt.tokens)).long() for prompt in prompts])}


class Qwen(Multimodal):
    """A picture of any size, cut into patches that are ordered in squares; two of them a side make one token.

    Features hold, after what the language model reads, what its first layers are given besides (Qwen3-VL's deep stack).
    """

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        vision = model.config.vision_config
        self.patch, self.merge, self.frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size

    def _pixels(self, image: Any) -> Tensor:
        made = self.processor.image_processor(image, return_tensors="pt")
        _, rows, columns = made["image_grid_thw"][0].tolist()
        m, p = self.merge, self.patch
        patches = made["pixel_values"].view(rows // m, columns // m, m, m, 3, self.frames, p, p)[:, :, :, :, :, 0]
        found: Tensor = patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * p, columns * p)
        return found

    def encode(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        m, p = self.merge, self.patch
        patches = images.to(self.model.dtype).view(batch, 3, height // p // m, m, p, width // p // m, m, p)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3, 1, p * p).expand(-1, -1, self.frames, -1)
        grid = self._grid(batch, height // p, width // p)
        found = self.model.get_image_features(pixel_values=patches.flatten(1), image_grid_thw=grid)
        made = torch.stack(list(found.pooler_output))
        deep = getattr(found, "deepstack_features", None)
        if deep is not None:
            made = torch.cat([made, *(torch.stack(list(layer)) for layer in deep)], -1)
        return torch.unflatten(made.transpose(1, 2), 2, (height // p // m, width // p // m))

    def _grid(self, count: int, rows: int, columns: int) -> Tensor:
        return torch.tensor([[1, rows, columns]] * count, device=self.model.device)

    def seen(self, features: Tensor, prompts: list[Prompt]) -> dict[str, Any]:
        width = self.model.config.text_config.hidden_size
        read, *deep = torch.split(features.flatten(2).transpose(1, 2), width, -1)
        found = super().seen(read.transpose(1, 2)[..., None], prompts)
        if deep:
            found["image"]["deepstack_features"] = [list(layer) for layer in deep]
        return found

    def beside(self, ids: Tensor, prompts: list[Prompt], features: Tensor) -> dict[str, Any]:
        rows, columns = features.shape[2:]
        grid = self._grid(len(ids), rows * self.merge, columns * self.merge)
        return {"image_grid_thw": grid, "mm_token_type_ids": (ids == self.image).int()}


VOICES: dict[str, type[Multimodal]] = {
    "LlavaForConditionalGeneration": Multimodal,
    "PaliGemmaForConditionalGeneration": PaliGemma,
    "Qwen2VLForConditionalGeneration": Qwen,
    "Qwen2_5_VLForConditionalGeneration": Qwen,
    "Qwen3VLForConditionalGeneration": Qwen,
}
