"""Tiny random models of each family, built from the real classes, with real processors and a sub-word tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LIST = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] [DEC] <image> <s> </s> a dog catch ##es red fris ##bee ball what color is the cat blue ? . : "
    "user assistant describe picture in one sentence on grass two ##s <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> "
    "caption en answer <fake_token_around_image> <global-img> <end_of_utterance> <row_1_col_1> <row_1_col_2> <row_1_col_3> "
    "<row_2_col_1> <row_2_col_2> <row_2_col_3> <img> </img> <IMG_CONTEXT> <video>"
)
WORDS = LIST.split()
SPECIAL = [w for w in WORDS if w[0] in "[<" or w.startswith("<|")]
CHAT = (
    "{% for m in messages %}user: {% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE {% else %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}assistant:"
)
TEXT = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(folder: Path, **more: Any) -> Any:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    made = BertTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)._tokenizer, **more
    )
    made.add_special_tokens({"additional_special_tokens": SPECIAL[6:]})
    return made


def number(word: str) -> int:
    return WORDS.index(word)


def blip(folder: Path, kind: str) -> tuple[Any, Any]:
    import transformers as t

    text = {**TEXT, "encoder_hidden_size": 16, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = t.BlipConfig(text_config=text, vision_config={**VISION, "image_size": 32, "patch_size": 8}, projection_dim=16)
    processor = t.BlipProcessor(t.BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer(folder))
    return getattr(t, kind)(config), processor


def llava(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION, image_size=32, patch_size=8, projection_dim=16),
        text_config=t.LlamaConfig(**TEXT, num_key_value_heads=2, bos_token_id=7, eos_token_id=8, pad_token_id=0),
        image_token_id=number("<image>"),
    )
    words = tokenizer(folder)
    pictures = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = t.LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=CHAT.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return t.LlavaForConditionalGeneration(config), processor


def paligemma(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**VISION, image_size=32, patch_size=8),
        text_config=t.GemmaConfig(**TEXT, num_key_value_heads=1, head_dim=8, bos_token_id=7, eos_token_id=8, pad_token_id=0),
        image_token_id=number("<image>"), projection_dim=16,
    )  # fmt: skip
    words = tokenizer(folder)
    words.bos_token, words.eos_token = "<s>", "</s>"
    pictures = t.SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    return t.PaliGemmaForConditionalGeneration(config), t.PaliGemmaProcessor(pictures, words)


def qwen(folder: Path, kind: str) -> tuple[Any, Any]:
    import transformers as t

    tokens = {
        "image_token_id": number("<|image_pad|>"), "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"), "vision_end_token_id": number("<|vision_end|>"),
    }  # fmt: skip
    text = {**TEXT, "num_key_value_heads": 2, "bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    shared = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
    if kind == "Qwen2VL":
        vision = {**shared, "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    elif kind == "Qwen2_5_VL":
        vision = {
            **shared, "depth": 2, "hidden_size": 16, "out_hidden_size": 16, "num_heads": 2, "intermediate_size": 32,
            "window_size": 16, "fullatt_block_indexes": [1],
        }  # fmt: skip
    else:
        vision = {
            **shared, "depth": 3, "hidden_size": 16, "out_hidden_size": 16, "num_heads": 2, "intermediate_size": 32,
            "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
        }  # fmt: skip
        text["head_dim"] = 8
    config = getattr(t, f"{kind}Config")(vision_config=vision, text_config={**text, "rope_parameters": rope}, **tokens)
    words = tokenizer(folder)
    pictures = t.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 2304}
    )
    film = t.Qwen2VLVideoProcessor(patch_size=4, merge_size=2)
    template = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    if kind == "Qwen3VL":
        film = t.Qwen3VLVideoProcessor(patch_size=4, merge_size=2)
    processor = getattr(t, f"{kind}Processor")(pictures, words, film, chat_template=template)
    return getattr(t, f"{kind}ForConditionalGeneration")(config), processor


def git(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    config = t.GitConfig(
        vision_config={**VISION, "image_size": 32, "patch_size": 8}, **TEXT, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    pictures = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return t.GitForCausalLM(config), t.GitProcessor(pictures, tokenizer(folder))


def encoder_decoder(folder: Path, kind: str) -> tuple[Any, Any]:
    import transformers as t

    encoder = (
        t.ViTConfig(**VISION, image_size=32, patch_size=8)
        if kind == "vit"
        else t.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    )
    decoder = t.GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, add_cross_attention=True, is_decoder=True, bos_token_id=7,
        eos_token_id=8, pad_token_id=0,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 7, 0
    return t.VisionEncoderDecoderModel(config), Both(t.ViTImageProcessor(size={"height": 32, "width": 32}), tokenizer(folder))


def blip2(folder: Path, text: str) -> tuple[Any, Any]:
    import transformers as t

    shared = {"vocab_size": len(WORDS), "bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
    talks = (
        t.OPTConfig(**shared, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2)
        if text == "opt"
        else t.T5Config(**shared, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )
    config = t.Blip2Config(
        vision_config=t.Blip2VisionConfig(**VISION, image_size=32, patch_size=8),
        qformer_config=t.Blip2QFormerConfig(**TEXT, encoder_hidden_size=16), text_config=talks, num_query_tokens=4,
        image_token_index=number("<image>"),
    )  # fmt: skip
    pictures = t.BlipImageProcessor(size={"height": 32, "width": 32})
    return t.Blip2ForConditionalGeneration(config), t.Blip2Processor(pictures, tokenizer(folder), num_query_tokens=4)


def florence2(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    config = t.Florence2Config(
        vision_config={
            "embed_dim": [8, 8, 8, 16], "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "num_groups": [2, 2, 2, 2],
            "window_size": 4, "projection_dim": 16, "patch_stride": [2, 2, 2, 1],
        },
        text_config=t.BartConfig(
            vocab_size=len(WORDS), d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            encoder_attention_heads=2, decoder_attention_heads=2, bos_token_id=7, eos_token_id=8, pad_token_id=0,
            decoder_start_token_id=8,
        ),
        image_token_id=number("<image>"),
    )  # fmt: skip
    words = tokenizer(folder, model_specific_special_tokens={"image_token": "<image>"}, bos_token="<s>", eos_token="</s>")
    pictures = t.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    pictures.image_seq_length = 17
    return t.Florence2ForConditionalGeneration(config), t.Florence2Processor(pictures, words, num_additional_image_tokens=1)


def tiled(folder: Path, kind: str) -> tuple[Any, Any]:
    """Models that see a picture of more than 32 pixels in several tiles."""
    import transformers as t

    qwen = t.Qwen2Config(**TEXT, num_key_value_heads=2, bos_token_id=7, eos_token_id=8, pad_token_id=0)
    picture = number("<IMG_CONTEXT>" if kind == "InternVL" else "<image>")
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    words = tokenizer(folder, **({"extra_special_tokens": named} if kind == "InternVL" else {}))
    template = CHAT.replace("IMAGE", WORDS[picture])
    shared = {"text_config": qwen, "image_token_id": picture}
    if kind == "InternVL":
        seen = t.InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[4, 4])
        pictures = t.GotOcr2ImageProcessor(size={"height": 32, "width": 32}, min_patches=1, max_patches=4)
        film = t.InternVLVideoProcessor()
        processor = t.InternVLProcessor(pictures, words, film, image_seq_length=16, chat_template=template)
        return t.InternVLForConditionalGeneration(t.InternVLConfig(vision_config=seen, **shared)), processor
    if kind == "LlavaOnevision":
        seen = t.SiglipVisionConfig(**VISION, image_size=32, patch_size=8)
        grids = [[32, 64], [64, 32], [64, 64], [32, 96]]
        pictures = t.LlavaOnevisionImageProcessor(size={"height": 32, "width": 32}, image_grid_pinpoints=grids)
        film = t.LlavaOnevisionVideoProcessor()
        config = t.LlavaOnevisionConfig(vision_config=seen, image_grid_pinpoints=grids, **shared)
        processor = t.LlavaOnevisionProcessor(
            pictures, words, film, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=template
        )
        return t.LlavaOnevisionForConditionalGeneration(config), processor
    seen = getattr(t, f"{kind}VisionConfig")(**VISION, image_size=32, patch_size=4)
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    pictures = getattr(t, f"{kind}ImageProcessor")(**sizes)
    config = getattr(t, f"{kind}Config")(vision_config=seen, scale_factor=2, pad_token_id=0, **shared)
    more = () if kind == "Idefics3" else (t.SmolVLMVideoProcessor(**sizes),)
    processor = getattr(t, f"{kind}Processor")(pictures, words, *more, image_seq_len=16, chat_template=template)
    return getattr(t, f"{kind}ForConditionalGeneration")(config), processor


def vilt(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    config = t.ViltConfig(**TEXT, image_size=32, patch_size=8, num_labels=3, id2label={0: "red", 1: "blue", 2: "a dog"})
    pictures = t.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    return t.ViltForQuestionAnswering(config), t.ViltProcessor(pictures, tokenizer(folder))


class Both:
    """A model's image processor and tokenizer that are saved apart."""

    def __init__(self, pictures: Any, words: Any) -> None:
        self.parts = pictures, words

    def save_pretrained(self, folder: Path) -> None:
        for part in self.parts:
            part.save_pretrained(folder)


TALKING: dict[str, Any] = {
    "blip": lambda folder: blip(folder, "BlipForConditionalGeneration"),
    "blip-vqa": lambda folder: blip(folder, "BlipForQuestionAnswering"),
    "git": git,
    "vit-gpt2": lambda folder: encoder_decoder(folder, "vit"),
    "swin-gpt2": lambda folder: encoder_decoder(folder, "swin"),
    "blip2-opt": lambda folder: blip2(folder, "opt"),
    "blip2-t5": lambda folder: blip2(folder, "t5"),
    "florence2": florence2,
    "llava": llava,
    "paligemma": paligemma,
    "qwen2-vl": lambda folder: qwen(folder, "Qwen2VL"),
    "qwen2.5-vl": lambda folder: qwen(folder, "Qwen2_5_VL"),
    "qwen3-vl": lambda folder: qwen(folder, "Qwen3VL"),
    "idefics3": lambda folder: tiled(folder, "Idefics3"),
    "smolvlm": lambda folder: tiled(folder, "SmolVLM"),
    "internvl": lambda folder: tiled(folder, "InternVL"),
    "llava-onevision": lambda folder: tiled(folder, "LlavaOnevision"),
}
SEEDS = {"git": 1, "florence2": 1, "blip2-t5": 1, "internvl": 1, "qwen3-vl": 1}
"""Of models that would write nothing with the first."""
OTHERS: dict[str, Any] = {"vilt": vilt}


def saved(name: str, folder: Path) -> Path:
    """A model folder as the hub has it."""
    torch.manual_seed(SEEDS.get(name, 0))
    model, processor = {**TALKING, **OTHERS}[name](folder / "words")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    return folder / name
