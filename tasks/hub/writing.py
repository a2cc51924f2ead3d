"""Generation with transformers: what of a model's own settings is kept, and whether a text came to its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgradcam.tasks.hub.text import text_of, until

KEPT = {
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cache_implementation", "decoder_start_token_id",
    "early_stopping", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "eos_token_id",
    "exponential_decay_length_penalty", "forced_bos_token_id", "length_penalty", "min_length", "min_new_tokens",
    "no_repeat_ngram_size", "pad_token_id", "remove_invalid_values", "renormalize_logits", "repetition_penalty",
    "sequence_bias", "suppress_tokens", "use_cache",
}  # fmt: skip
"""Settings of a model that hold for the likeliest text as well."""

SILENT = {
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "compile_config", "disable_compile",
    "epsilon_cutoff", "eta_cutoff", "forced_eos_token_id", "max_length", "max_matching_ngram_size", "max_new_tokens",
    "min_p", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_logits", "output_scores", "prompt_lookup_num_tokens", "return_dict_in_generate",
    "stop_strings", "target_lookbehind", "temperature", "top_h", "top_k", "top_p", "transformers_version", "typical_p",
}  # fmt: skip
"""Settings that say how words are drawn, how many, or what is returned beside them: they change no likeliest word. Stop
strings are looked for here, since `generate` finds them with some tokenizers only."""


@dataclass(frozen=True)
class Written:
    """A text that a model wrote, without special tokens at its end.

    Attributes:
        tokens: of the text.
        cut: the most tokens allowed were written before the text came to an end.
    """

    tokens: tuple[int, ...]
    cut: bool


def overruled(generator: Any) -> list[str]:
    """A model's own generation settings that would change the text and do not hold here, as "do_sample=True"."""
    own = generator.generation_config.to_dict()
    neutral = (None, False, 0, 1)  # of numbers; True is 1, so what is switched on is looked at apart
    return [
        f"{name}={value!r}"
        for name, value in sorted(own.items())
        if name not in KEPT | SILENT and not name.startswith("_") and (value is True or value not in neutral)
    ]


def written(
    generator: Any, tokenizer: Any, most: int, beams: int, ends: Sequence[int | None], pad: int, *,
    skip: int = 0, lead: Sequence[int] = (), never: Sequence[int] = (), **inputs: Any,
) -> list[Written]:  # fmt: skip
    """The `beams` likeliest texts that beam search of that width finds; of one beam, the likeliest token at each step.

    Args:
        generator: the module that has `generate`.
        tokenizer: the model's own.
        most: tokens written at most.
        beams: how many texts are kept while they are searched for.
        ends: tokens that end a text.
        pad: what fills up short texts.
        skip: how many tokens of a row stand before the text.
        lead: tokens that may stand before the text after those.
        never: tokens that must not be written, besides those that the model's settings forbid.
        **inputs: of `generate`.
    """
    last = {*ends, pad}
    stops = generator.generation_config.stop_strings or ()
    stops = (stops,) if isinstance(stops, str) else tuple(stops)

    def stopped(row: Tensor) -> bool:
        text = text_of(tokenizer, row[skip:].tolist()) if stops else ""
        return any(stop in text for stop in stops)

    def ending(rows: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.tensor([stopped(row) for row in rows], device=rows.device)

    with _settings(generator, most, never):
        rows = generator.generate(
            **inputs, max_new_tokens=most, do_sample=False, num_beams=beams, num_return_sequences=beams, pad_token_id=pad,
            eos_token_id=[token for token in ends if token is not None and token >= 0] or None, return_dict_in_generate=False,
            stopping_criteria=[ending],
        )  # fmt: skip
    found = []
    for row in rows:
        new = row[skip:].tolist()
        body = list(itertools.dropwhile(lambda token: token in lead, new))
        text = until(body, last)
        found.append(Written(tuple(text), len(new) >= most and len(text) == len(body) and not stopped(row)))
    return found


@contextmanager
def _settings(generator: Any, most: int, never: Sequence[int]) -> Iterator[None]:
    """Within, the model's generation settings are those of its own that are kept; `generate` fills in no others."""
    own = generator.generation_config
    kept = {name: value for name, value in own.to_dict().items() if name in KEPT and value is not None}
    for name in ("min_length", "min_new_tokens"):
        if name in kept:
            kept[name] = min(kept[name], most)
    if never:
        kept["suppress_tokens"] = sorted({*(kept.get("suppress_tokens") or ()), *never})
    generator.generation_config = type(own)(**kept)
    try:
        yield
    finally:
        generator.generation_config = own
