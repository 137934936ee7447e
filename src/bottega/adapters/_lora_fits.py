"""Which family a weight adapter fits, told by the names of the modules that it changes and by their widths."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from bottega.adapters._fits import FAMILY_OF_CONTEXT, Fit, settle
from bottega.formats.header import shown


@dataclass(frozen=True)
class Target:
    """The modules that an adapter changes: names without prefix, and with it, for which width and rank are known."""

    denoiser: Mapping[str, str]
    encoders: Mapping[str, Mapping[str, str]]
    width: Callable[[str], int | None]  # features that go into a module
    answer: Callable[[str], int | None]  # features that come out of a module
    rank: Callable[[str], int]  # axes of its first factor
    cascade: bool = False
    _widths: dict[tuple[str, ...], int | None] = field(default_factory=dict)  # by the words that were asked for

    @cached_property
    def text(self) -> str:
        """All names of the denoiser's modules in one text, dots as underscores, each after a line's end."""
        return "\n" + "\n".join(self.denoiser).replace(".", "_")

    def has(self, *words: str) -> bool:
        """Whether each of these is somewhere in the names."""
        return all(word in self.text for word in words)

    @cached_property
    def _plain(self) -> list[tuple[str, str]]:
        """Each name as in `text`, without diffusers' word before a projection; and the module's whole name."""
        return [(short.replace(".", "_").replace("_processor_", "_"), full) for short, full in self.denoiser.items()]

    def width_of(self, *words: str) -> int | None:
        """Features that go into the first module whose name has one of these, and whose width can be told."""
        if words not in self._widths:
            modules = (each for each in self._plain if _has_any(each[0], words))
            widths = (width for each in modules if (width := self._width_of(*each)) is not None)
            self._widths[words] = next(widths, None)
        return self._widths[words]

    def _width_of(self, plain: str, module: str) -> int | None:
        width = self.width(module)
        return self.answer(module) if width is None and _has_any(plain, _AS_WIDE) else width

    def answer_of(self, *words: str) -> int | None:
        """Features that come out of the first module whose name has one of these, and of which that can be told."""
        modules = (module for plain, module in self._plain if _has_any(plain, words))
        return next((answer for module in modules if (answer := self.answer(module)) is not None), None)

    def sizes_of(self, word: str) -> tuple[int, int] | None:
        """Features that go into, and come out of, the first module whose name has this, and of which both are told."""
        modules = (module for plain, module in self._plain if word in plain)
        sizes = ((self.width(module), self.answer(module)) for module in modules)
        return next(((width, answer) for width, answer in sizes if width is not None and answer is not None), None)

    @cached_property
    def encoder_text(self) -> str:
        """As `text`, of the modules of the text encoders."""
        return "\n".join(name for names in self.encoders.values() for name in names).replace(".", "_")


@dataclass(frozen=True)
class Found:
    """The family, what more the names told, and a variant where the algorithm does not say enough.

    `fit` hears the metadata: it is all that can tell two files apart that are laid out alike.
    """

    fit: Callable[[Mapping[str, str]], Fit]
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""


def _settled(families: Sequence[str], why: str) -> Callable[[Mapping[str, str]], Fit]:
    return partial(settle, families, why)


def _certain(family: str, *because: str) -> Callable[[Mapping[str, str]], Fit]:
    return lambda metadata: Fit(family, because)


# Stable Cascade counts what is in a level, whatever it is; UNets of other families have a word before that number.
_OF_CASCADE = re.compile("\n(?:down|up)_blocks_[0-9]+_[0-9]+_(?:attention|kv_mapper|channelwise|depthwise|mapper)")


def fit(target: Target) -> Found:
    """The family of what an adapter changes; metadata decides where names and widths leave several."""
    if target.cascade or _OF_CASCADE.search(target.text):
        return Found(_settled(["stable-cascade"], "its modules are those of Stable Cascade's prior"))
    if not target.denoiser:
        return Found(_settled(*_by_encoders(target)))
    if target.has("motion_modules_"):
        return _motion(target)
    if is_unet(target):
        return _unet(target)
    for rule in _TRANSFORMERS:
        if rule.holds(target):
            return Found(_settled(rule.families, f"its modules {rule.why}"))
    if (by_width := _transformer_by_width(target)) is not None:
        return Found(_settled(*by_width))
    return _language(target)


def is_unet(target: Target) -> bool:
    """Whether the denoiser's modules are those of a UNet, in the original's names or in diffusers'."""
    return _has_any(target.text, _UNET_BLOCKS)


_UNET_BLOCKS = (
    "\ninput_blocks_", "\nmiddle_block_", "\noutput_blocks_", "\ndown_blocks_", "\nmid_block_", "\nup_blocks_",
)  # fmt: skip


def _has_any(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


# --- UNets -----------------------------------------------------------------------------------------------------------

# Levels without attention in SD XL, and those that SD XL has not: only SD 1 and 2 have modules there.
_FOUR_LEVELS = (
    "\ninput_blocks_1_1_", "\ninput_blocks_2_1_", "\ninput_blocks_9_", "\ninput_blocks_10_", "\ninput_blocks_11_",
    "\noutput_blocks_9_", "\noutput_blocks_10_", "\noutput_blocks_11_",
    "\ndown_blocks_0_attentions_", "\ndown_blocks_3_", "\nup_blocks_3_",
)  # fmt: skip
_THREE_LEVELS = ("\nup_blocks_0_attentions_", "\noutput_blocks_0_1_", "\noutput_blocks_1_1_", "\noutput_blocks_2_1_t")
# What comes out of residual blocks on the way up is half as wide in SD XL, which begins at its third level.
_ON_THE_WAY_UP = (
    (("up_blocks_2_resnets_", "output_blocks_6_0_", "output_blocks_7_0_", "output_blocks_8_0_"), 320, 640),
    (("up_blocks_1_resnets_", "output_blocks_3_0_", "output_blocks_4_0_", "output_blocks_5_0_"), 640, 1280),
)
_ORIGINAL_BLOCKS = ("\ninput_blocks_", "\nmiddle_block_", "\noutput_blocks_")
_DEEP = re.compile("_transformer_blocks_[1-9]")  # SD 1 and 2 have one block in each transformer


# UNets that are built like Stable Diffusion's, by what they have more than it.
_RELATIVES = (
    ("_temporal_transformer_blocks_", "svd"),
    ("_time_stack_", "svd"),
    ("_temp_attentions_", "modelscope-t2v"),
    ("_add_k_proj", "kandinsky2"),
)


def _unet(target: Target) -> Found:
    for word, relative in _RELATIVES:
        if word in target.text:
            return Found(_settled([relative], f"a UNet with modules called {word.strip('_')}"))
    width = target.width_of("attn2_to_k", "attn2_to_v")
    if width is not None:
        family = FAMILY_OF_CONTEXT.get(width)
        why = f"the UNet's cross-attention hears text of width {width}"
        dimensions: dict[str, Any] = {"context": width}
        if width == 1280:
            dimensions["refiner"] = True
            why += ", as SD XL's refiner does"
        return Found(_settled([family] if family else [], why), dimensions)
    if "text_encoder_2" in target.encoders:
        return Found(_settled(["sdxl"], "it changes a UNet and two text encoders"))
    if _DEEP.search(target.text):
        return Found(_settled(["sdxl"], "several transformer blocks in one place of a UNet"))
    if _has_any(target.text, _FOUR_LEVELS):
        return Found(_settled(*_first_or_second(target)))
    if _has_any(target.text, _THREE_LEVELS):
        return Found(_settled(["sdxl"], "attention where only SD XL's UNet has it"))
    for words, of_xl, of_others in _ON_THE_WAY_UP:
        answer = target.answer_of(*words)
        if answer == of_xl:
            return Found(_settled(["sdxl"], f"residual blocks on the way up that are {answer} wide, as SD XL's are"))
        if answer == of_others:
            return Found(_settled(*_first_or_second(target)))
    if target.encoders and (by_encoders := _by_encoders(target))[0] == ["sd2"]:
        return Found(_settled(*by_encoders))
    # kohya's trainer calls SD XL's blocks as the original does, and those of SD 1 and 2 as diffusers does.
    likely = ["sdxl", "sd1", "sd2"] if _has_any(target.text, _ORIGINAL_BLOCKS) else ["sd1", "sd2", "sdxl"]
    return Found(_settled(likely, "modules that every UNet has"))


def _first_or_second(target: Target) -> tuple[list[str], str]:
    """SD 1 and 2 have the same blocks; they differ in their text encoders, and in how their transformers begin."""
    families, why = _by_encoders(target)
    if target.encoders and len(families) == 1 and families[0] in ("sd1", "sd2"):
        return families, why
    for short, module in target.denoiser.items():
        if short.endswith(("proj_in", "proj_out")):
            axes = target.rank(module)
            if axes == 4 and target.width(module):
                return ["sd1"], "transformers that begin with a convolution, at four levels"
            if axes == 2 and target.width(module):
                return ["sd2"], "transformers that begin with a linear layer, at four levels"
    return ["sd1", "sd2"], "a UNet of four levels, and nothing whose width would tell more"


_SQUARE = ("self_attn", "layer_norm")  # as much comes out of these modules of a text encoder as goes in
_BEYOND_TWELVE = re.compile("_layers_(1[2-9]|2[0-9])_")


_T5 = "SelfAttention"


def _width_of_encoder(target: Target, short: str, module: str) -> int | None:
    """How wide a text encoder is, where what goes into a module of it, or comes out, tells that."""
    if _has_any(short, _SQUARE):
        return target.width(module) or target.answer(module)
    if short.endswith("fc1"):
        return target.width(module)
    return target.answer(module) if short.endswith("fc2") else None


def _by_encoders(target: Target) -> tuple[list[str], str]:
    """What the text encoders tell by themselves: how many there are, how deep, how wide."""
    parts = set(target.encoders)
    if {"text_encoder_2", "text_encoder_3"} <= parts:
        return ["sd3"], "it changes three text encoders"
    # Trainers of FLUX call it the second one, which in SD XL and 3 is a CLIP.
    if "text_encoder_3" in parts or any(_T5 in name for name in target.encoders.get("text_encoder_2", ())):
        return ["flux", "sd3"], "it changes a T5 text encoder"
    if "text_encoder_2" in parts:
        return ["sdxl", "sd3"], "it changes two text encoders and nothing else"
    width = next(
        (
            width
            for short, module in target.encoders.get("text_encoder", {}).items()
            if (width := _width_of_encoder(target, short, module)) is not None
        ),
        None,
    )
    if width == 1024 or (width is None and _BEYOND_TWELVE.search(target.encoder_text)):
        return ["sd2"], "a text encoder of width 1024" if width else "a text encoder of more than twelve layers"
    if width == 768 or (width is None and "_layers_11_" in target.encoder_text):
        words = "a text encoder of width 768" if width else "a text encoder of twelve layers"
        single = any(module.startswith("lora_te_") for module in target.encoders["text_encoder"].values())
        if single or is_unet(target):
            return ["sd1"], words
        return ["sd1", "sdxl", "flux"], words
    return ["sd1", "sd2", "sdxl"] if target.encoders else [], "modules of a text encoder"


def _motion(target: Target) -> Found:
    """AnimateDiff's motion LoRA: it changes a motion module, not the UNet around it."""
    four = _has_any(target.text, ("down_blocks_3_motion", "up_blocks_3_motion"))
    families = ["sd1"] if four else ["sd1", "sdxl"]
    found = _settled(families, f"modules of a motion module of {'four' if four else 'unknown'} levels")
    return Found(found, {"motion": True}, "motion")


# --- transformers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """Families that have all of some words in their modules' names.

    `widths` restricts what goes into the modules with the words in `of`, `answers` what comes out of them.
    """

    families: tuple[str, ...]
    words: tuple[str, ...]
    why: str
    without: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    of: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()

    def holds(self, target: Target) -> bool:
        return (
            target.has(*self.words)
            and not _has_any(target.text, self.without)
            and (not self.widths or target.width_of(*self.of) in self.widths)
            and (not self.answers or target.answer_of(*self.of) in self.answers)
        )


_QKV = ("attn_to_q", "attn_to_k", "attn_to_v", "attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj")
_DOUBLE = ("img_attn_qkv", "img_attn_proj", "txt_attn_qkv", "txt_attn_proj", "img_attn_q", "txt_attn_q")
_FEED = ("img_mlp_2", "txt_mlp_2")
_SELF = ("attn1_to_q", "attn1_to_k", "attn1_to_v")
_ATTENTION = ("attention_qkv", "attention_to_q", "attention_out", "attention_to_out", "attn_to_q", "feed_forward_w1")
_AS_WIDE = (*_QKV, *_SELF, "attention_to_q", "attention_out", "attention_to_out")  # as much comes out as goes in

# In this order: the first that holds is taken.
_TRANSFORMERS = (
    # FLUX and HunyuanVideo have the same blocks; they call, and count, some modules otherwise.
    _Rule(("hunyuan-image",), ("double_blocks_",), "are as wide as HunyuanImage's", widths=(3584,), of=_DOUBLE),
    _Rule(("hunyuan-video",), ("double_blocks_", "img_mod_linear"), "are called as HunyuanVideo calls them"),
    _Rule(("hunyuan-video",), ("single_blocks_", "modulation_linear"), "are called as HunyuanVideo calls them"),
    _Rule(("hunyuan-video",), ("individual_token_refiner_",), "are called as HunyuanVideo calls them"),
    _Rule(("hunyuan-video",), ("double_blocks_19_",), "are in 20 double blocks, FLUX has 19"),
    _Rule(("hunyuan-video",), ("double_blocks_", "_mlp_fc"), "are called as HunyuanVideo calls them"),
    _Rule(("flux2",), ("double_blocks_",), "are wider than FLUX.1's", widths=(4096, 6144), of=_DOUBLE),
    _Rule(("flux2",), ("double_blocks_",), "are gated as FLUX.2's are", widths=(9216,), of=_FEED),
    _Rule(("flux2",), ("single_blocks_",), "are gated as FLUX.2's are", (), (12288, 16384, 24576), ("linear2",)),
    _Rule(("flux2",), ("single_blocks_",), "are gated as FLUX.2's are", of=("linear1",), answers=(27648, 36864, 55296)),
    _Rule(("flux2",), ("stream_modulation_",), "share one modulation, as FLUX.2's do"),
    _Rule(("flux2",), ("single_transformer_blocks_", "to_qkv_mlp_proj"), "are fused as FLUX.2's are"),
    _Rule(("flux2",), ("transformer_blocks_", "ff_linear_in"), "are called as FLUX.2's are in diffusers"),
    _Rule(("chroma",), ("distilled_guidance_layer_",), "have Chroma's distilled guidance"),
    _Rule(("flux",), ("_processor_qkv_lora",), "are XLabs' processors of FLUX"),
    _Rule(("flux",), ("single_blocks_", "_processor_"), "are XLabs' processors of FLUX"),
    _Rule(("flux",), ("double_blocks_", "_mod_lin"), "are FLUX's double blocks with their modulation"),
    _Rule(("flux",), ("single_blocks_", "_modulation_lin"), "are FLUX's single blocks with their modulation"),
    _Rule(("flux", "chroma"), ("double_blocks_", "_mlp_0"), "are FLUX's double blocks without modulation"),
    _Rule(("flux", "chroma", "hunyuan-video"), ("double_blocks_",), "are double blocks without modulation"),
    _Rule(("flux", "chroma", "hunyuan-video"), ("single_blocks_", "linear1"), "are single blocks without modulation"),
    _Rule(
        ("flux", "chroma", "hunyuan-video"),
        ("single_blocks_",),
        "are single blocks without modulation",
        widths=(15360,),
        of=("linear2",),
    ),
    # The same in diffusers' names. LTX-2 is as wide as FLUX.2, where its pictures and its sound hear each other.
    _Rule(("ltx",), ("_audio_attn",), "are beside blocks for sound, as LTX-2's are"),
    _Rule(("ltx",), ("_audio_to_video_attn",), "join pictures and sound, as LTX-2's do"),
    _Rule(("ltx",), ("_video_to_audio_attn",), "join pictures and sound, as LTX-2's do"),
    _Rule(("hunyuan-image",), ("transformer_blocks_",), "are as wide as HunyuanImage's", (), (3584,), _QKV),
    _Rule(("hunyuan-video",), ("transformer_blocks_",), "are as wide as HunyuanVideo 1.5's", (), (2048,), _QKV),
    _Rule(("flux2",), ("transformer_blocks_",), "are wider than FLUX.1's", (), (4096, 6144), _QKV),
    _Rule(("hunyuan-video",), ("single_transformer_blocks_38_",), "are in more than 38 single blocks"),
    _Rule(("hunyuan-video",), ("\ntransformer_blocks_19_", "single_transformer_blocks_"), "are in 20 double blocks"),
    _Rule(("kandinsky5",), ("\nvisual_transformer_blocks_",), "are called as Kandinsky 5 calls them"),
    _Rule(("kandinsky5",), ("\ntext_transformer_blocks_",), "are called as Kandinsky 5 calls them"),
    _Rule(("auraflow",), ("joint_transformer_blocks_",), "are called as AuraFlow calls them"),
    _Rule(("auraflow",), ("double_layers_",), "are called as AuraFlow calls them"),
    _Rule(("auraflow",), ("single_layers_",), "are called as AuraFlow calls them"),
    _Rule(("flux",), ("single_transformer_blocks_", "_norm_linear"), "are FLUX's, with their modulation"),
    _Rule(("flux", "chroma"), ("single_transformer_blocks_",), "are FLUX's, without their modulation"),
    # Transformers with joint attention only.
    _Rule(("sd3",), ("joint_blocks_",), "are called as Stable Diffusion 3 calls them"),
    _Rule(("hidream",), ("double_stream_blocks_",), "are called as HiDream calls them"),
    _Rule(("hidream",), ("single_stream_blocks_",), "are called as HiDream calls them"),
    _Rule(("qwen-image",), ("transformer_blocks_", "img_mod_1"), "are called as Qwen-Image calls them"),
    _Rule(("qwen-image",), ("transformer_blocks_", "img_mlp_net_"), "are called as Qwen-Image calls them"),
    _Rule(("qwen-image",), ("transformer_blocks_", "txt_mlp_net_"), "are called as Qwen-Image calls them"),
    _Rule(("mochi",), ("_attn_qkv_x",), "are called as Mochi calls them"),
    _Rule(("mochi",), ("transformer_blocks_", "attn1_add_"), "are called as Mochi calls them"),
    _Rule(("sd3",), ("transformer_blocks_",), "are as wide as Stable Diffusion 3's", (), (1536, 2432), _QKV),
    _Rule(("qwen-image",), ("transformer_blocks_19_",), "are in more than 19 blocks", (), (3072,), _QKV),
    _Rule(("flux", "qwen-image"), ("transformer_blocks_",), "are as wide as FLUX's", (), (3072,), _QKV),
    # Blocks with self- and cross-attention.
    _Rule(("latte",), ("\ntemporal_transformer_blocks_",), "are beside blocks over time, as Latte's are"),
    _Rule(("anima",), ("\nllm_adapter_",), "are called as Anima calls them"),
    _Rule(("cosmos",), ("\nblocks_", "self_attn_q_proj"), "are called as Cosmos calls them"),
    _Rule(("cosmos",), ("\nblocks_", "cross_attn_q_proj"), "are called as Cosmos calls them"),
    _Rule(("krea2",), ("\nblocks_", "_attn_wq"), "are called as Krea 2 calls them"),
    _Rule(("wan",), ("\nblocks_", "self_attn_"), "are called as Wan calls them"),
    _Rule(("wan",), ("\nblocks_", "cross_attn_"), "are called as Wan calls them"),
    _Rule(("hunyuan-dit",), ("\nblocks_", "attn1_Wqkv"), "are called as HunyuanDiT calls them"),
    _Rule(("wan",), ("\nblocks_", "ffn_net_"), "are called as Wan's are in diffusers"),
    _Rule(("wan",), ("\nblocks_",), "are as wide as Wan's", (), (1536, 3072, 5120), ("_ffn_0",)),
    _Rule(("wan",), ("\nblocks_",), "are as wide inside as Wan's", (), (8960, 13824, 14336), ("_ffn_2",)),
    _Rule(("wan",), ("\nblocks_", "attn1_to_"), "are as wide as Wan's", (), (1536, 3072, 5120), _SELF),
    _Rule(("hunyuan-dit",), ("\nblocks_", "attn1_to_"), "are as wide as HunyuanDiT's", (), (1408,), _SELF),
    # One stack of layers, some with refiners before it.
    _Rule(("ace-step",), ("\nlayers_", "cross_attn_"), "are called as ACE-Step calls them"),
    _Rule(("ace-step",), ("transformer_blocks_", "_cross_attn_to_"), "are called as ACE-Step's are in diffusers"),
    _Rule(("ideogram4",), ("\nlayers_", "_adaln_modulation"), "are called as Ideogram 4 calls them"),
    _Rule(("lumina2",), ("layers_",), "are as wide as Lumina 2's", ("self_attn",), (2304,), _ATTENTION),
    _Rule(("z-image",), ("layers_",), "are as wide as Z-Image's", ("self_attn",), (3840,), _ATTENTION),
    _Rule(("z-image",), ("layers_",), "are modulated as Z-Image's are", (), (256,), ("adaLN_modulation_0",)),
    _Rule(("z-image", "lumina2"), ("layers_", "_refiner_"), "have refiners before them"),
)


# By how wide they are, and how wide the text that they hear in an attention of its own.
_OF_WIDTH: Mapping[int, Mapping[int, str]] = {
    1152: {1152: "pixart"},
    2240: {2240: "sana"},
    2048: {2048: "ltx", 1024: "cosmos"},
    4096: {4096: "ltx", 1024: "cosmos"},
    5120: {1024: "cosmos"},
}


def _transformer_by_width(target: Target) -> tuple[list[str], str] | None:
    """PixArt, Sana, LTX, Cosmos and CogVideoX call their modules alike in diffusers; their widths differ."""
    if not target.has("transformer_blocks_", "attn1_to_"):
        return None
    width, heard = target.width_of(*_SELF), target.width_of("attn2_to_k", "attn2_to_v")
    why = f"transformer blocks of width {width}"
    if "attn2_" not in target.text:
        return _transformer_with_joint_attention(target, width)
    families = _OF_WIDTH.get(width or 0, {})
    if heard is None or len(families) == 1:
        return list(families.values()), why
    return ([families[heard]] if heard in families else []), f"{why} that hear text of width {heard}"


_BLOCKS_OF_MOCHI = re.compile("transformer_blocks_4[2-7]_")


def _transformer_with_joint_attention(target: Target, width: int | None) -> tuple[list[str], str]:
    """CogVideoX has 30 blocks, or 42 wider ones; Mochi, as wide as those, has 48. CogView is built alike, and wider."""
    why = f"transformer blocks of width {width} without cross-attention"
    match width:
        case 1920:
            return ["cogvideox"], why
        case 2560:
            return ["cogview"], why
        case 3072 if _BLOCKS_OF_MOCHI.search(target.text):
            return ["mochi"], why + ", more than the 42 of CogVideoX"
        case 3072 if "transformer_blocks_41_" in target.text:
            return ["cogvideox"], why + ", up to the last one of CogVideoX's 42"
        case 3072:
            return ["cogvideox", "mochi"], why
        case 4096:  # or of LTX or Cosmos, where only how they hear themselves was trained
            return ["cogview", "ltx", "cosmos"], why
    return [], why


# --- language models -------------------------------------------------------------------------------------------------

# Names that one family of language models has alone. Llama's are also those of Mistral, Qwen2, Gemma and many others.
_LANGUAGE = (
    ("gpt_neox_layers_", "gpt-neox"),
    ("_SelfAttention_", "t5"),
    ("_attention_self_query", "bert"),
    ("_self_attn_qkv_proj", "phi3"),
    ("_attention_wqkv", "internlm2"),
    ("_mixer_in_proj", "mamba"),
    ("_block_sparse_moe_", "mixtral"),
)
_WITH_DECODER = ("\nmodel_decoder_layers_", "\nmodel_encoder_layers_")
_LLAMA_LIKE = ("_self_attn_q_proj", "_self_attn_k_proj", "_self_attn_v_proj", "_self_attn_o_proj", "_mlp_gate_proj")


# Fused projections that several families call alike: what comes out of them, beside what goes in, tells them apart.
_FUSED, _FUSED_IN_GPT2 = "_self_attention_query_key_value", "_attn_c_attn"
_OF_CHATGLM = re.compile("transformer_encoder_layers_[0-9]+_self_attention_")
_HEAD_OF_STARCODER = 128
_WIDEST_GPT2 = 1600


def _language(target: Target) -> Found:
    if _OF_CHATGLM.search(target.text):
        why = "modules called as those of ChatGLM are"
        return Found(_certain("chatglm", why), {"language_model": True})
    if _FUSED in target.text:
        return Found(_settled(*_bloom_or_falcon(target)), {"language_model": True})
    if _FUSED_IN_GPT2 in target.text:
        return Found(_settled(*_like_gpt2(target)), {"language_model": True})
    for word, family in _LANGUAGE:
        if word in target.text:
            return Found(_certain(family, f"modules called as those of {family} are"), {"language_model": True})
    if _has_any(target.text, _WITH_DECODER):
        why = "modules called as those of OPT, and of models with an encoder and a decoder (BART, Whisper), are"
        return Found(_certain("", why), {"language_model": True})
    if _has_any(target.text, _LLAMA_LIKE):
        why = "modules called as those of Llama, Mistral, Qwen, Gemma and others are: the header can't tell which"
        return Found(_certain("", why), {"language_model": True})
    return Found(_settled([], "modules that are called as no known family's are"))


def _bloom_or_falcon(target: Target) -> tuple[list[str], str]:
    """Of Falcon's models, only early small ones have as many keys and values as queries, as BLOOM's all have."""
    sizes = target.sizes_of(_FUSED)
    if sizes is None:
        return ["bloom", "falcon"], "modules called as those of BLOOM and Falcon are"
    width, answer = sizes
    if answer != 3 * width:
        return ["falcon"], "a fused projection with fewer keys and values than queries, as Falcon has"
    return ["bloom", "falcon"], "a fused projection of three times the width, as BLOOM has"


def _like_gpt2(target: Target) -> tuple[list[str], str]:
    """GPT-2 and the first Qwen have as many keys and values as queries; all heads of StarCoder's share one of each."""
    why = "modules called as those of GPT-2 are"
    sizes = target.sizes_of(_FUSED_IN_GPT2)
    if sizes is None:
        return ["gpt2", "starcoder", "qwen"], why
    width, answer = sizes
    if answer == 3 * width:
        return (["gpt2"] if width <= _WIDEST_GPT2 else ["qwen", "gpt2"]), why
    if answer == width + 2 * _HEAD_OF_STARCODER:
        return ["starcoder"], "a fused projection with one head of keys and one of values, as StarCoder has"
    return [], f"{why}, but with fewer keys and values than queries"


def told_by_gguf(metadata: Mapping[str, str]) -> Found:
    """The family of what an adapter in GGUF changes: its metadata says it."""
    family = metadata.get("general.architecture", "")
    base = metadata.get("general.base_model.0.name", "")
    because = [f"general.architecture is {shown(family)}"] if family else []
    if base:
        because.append(f"made for {shown(base)}")
    dimensions: dict[str, Any] = {"language_model": True}
    if alpha := metadata.get("adapter.lora.alpha"):
        dimensions["alpha"] = alpha
    return Found(_certain(family, *because), dimensions)
