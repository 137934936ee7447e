"""The layouts of published files of architectures that can't be run yet.

`published/*.txt` holds them by medium, in a notation of one line for each run of tensors:

    # where the names come from
    [name] kind family variant (guess) (like=other) (under=prefix.) (scale=4)
    double_blocks.{0..18}.{img,txt}_attn.qkv.* 9216 3072    weight and bias, of 19 blocks, of two streams
    single_stream_modulation.lin.weight 9216 3072
    -img_in.bias                                            not there, though the other layout has it
    +first_stage_model.decoder.conv_in.* 512 16 3 3         not under the prefix

What is not a matter of names in one file, or is of Stable Diffusion's own design, is written in code below. Nothing
here is shared with the code that it tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from headers import stable_diffusion as sd
from headers.layout import Layout

Shapes = dict[str, tuple[int, ...]]

_FOLDER = Path(__file__).parent / "published"
_GROUP = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class Published:
    """A layout as the notation has it, before its prefix."""

    inner: Shapes
    outer: Shapes
    layout: Layout
    scale: int | None


def _choices(group: str) -> list[str]:
    first, dots, last = group.partition("..")
    return [str(index) for index in range(int(first), int(last) + 1)] if dots else group.split(",")


def _names(pattern: str) -> Iterator[str]:
    """All names of a pattern: each `{0..3}` and `{q,k}` in every combination."""
    template = _GROUP.sub("{}", pattern)
    for chosen in product(*map(_choices, _GROUP.findall(pattern))):
        yield template.format(*chosen)


def _line(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    pattern, *sizes = text.split()
    shape = tuple(map(int, sizes))
    for name in _names(pattern):
        if name.endswith(".*"):
            yield f"{name[:-1]}weight", shape
            yield f"{name[:-1]}bias", shape[:1]
        else:
            yield name, shape


def _read(text: str) -> dict[str, Published]:
    read: dict[str, Published] = {}
    for section in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        head, *lines = section.splitlines()
        name, _, rest = head.partition("]")
        kind, family, variant, *options = rest.split()
        told = dict(option.partition("=")[::2] for option in options)
        inner: Shapes = dict(read[told["like"]].inner) if "like" in told else {}
        outer: Shapes = {}
        for line in lines:
            if line.startswith("-"):
                del inner[line[1:]]
            elif line.startswith("+"):
                outer.update(_line(line[1:]))
            elif line and not line.startswith("#"):
                inner.update(_line(line))
        shapes = sd.under(told.get("under", ""), inner) | outer
        layout = Layout(shapes, kind, family, variant, guess="guess" in told)
        read[name] = Published(inner, outer, layout, int(told["scale"]) if "scale" in told else None)
    return read


PUBLISHED = {
    name: published
    for file in sorted(_FOLDER.glob("*.txt"))
    for name, published in _read(file.read_text(encoding="utf-8")).items()
}


# --- relatives of Stable Diffusion, in LDM's names -------------------------------------------------------------------

_LDM = "model.diffusion_model."
_CLIP = {"cond_stage_model.transformer.": sd.clip()}
_OPEN = {"cond_stage_model.model.": sd.openclip(1024, 24)}
_BOTH = {"conditioner.embedders.0.transformer.": sd.clip(), "conditioner.embedders.1.model.": sd.openclip(1280, 32)}
_VISION = {"visual.conv1.weight": (1024, 3, 14, 14), "visual.class_embedding": (1024,)}
_UPSCALER = sd.unet((256, 512, 512, 1024), (0, 1, 1, 1), 1024, into=7, linear=True) | {"label_emb.weight": (1000, 1024)}
_UNCLIP_H = {"embedder.model.ln_final.weight": (1024,), "noise_augmentor.betas": (1000,)}
_DEPTH = {"depth_model.model.pretrained.cls_token": (1, 1, 768)}
_ROBERTA = {"cond_stage_model.roberta.embeddings.word_embeddings.weight": (250002, 1024)}
_MOTION = "down_blocks.{}.motion_modules.{}.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
_EDM = {"edm_mean": (4,), "edm_std": (4,)}


def _over_time(network: Shapes) -> Shapes:
    """The blocks over time of Stable Video Diffusion: a stack beside each stack of transformers."""
    stacks = {
        name.replace("transformer_blocks", "time_stack"): shape
        for name, shape in network.items()
        if "transformer_blocks" in name
    }
    mixers = {
        f"{name.removesuffix('in_layers.2.weight')}time_stack.in_layers.2.weight": (*shape[:2], 3, 1, 1)
        for name, shape in network.items()
        if name.endswith("in_layers.2.weight")
    }
    return network | stacks | mixers


def _moving(width: int) -> Shapes:
    return {_MOTION.format(level, index): (1, 32, width) for level in range(4) for index in range(2)}


def _controlled(network: Shapes) -> Shapes:
    """A ControlNet of this UNet, under its prefix in a whole checkpoint."""
    half = {name: shape for name, shape in network.items() if not name.startswith(("output", "out."))}
    return sd.under("control_model.", half | {"zero_convs.0.0.weight": (320, 320, 1, 1)})


def _checkpoint(shapes: Shapes, family: str, variant: str) -> Layout:
    return Layout(shapes, "checkpoint", family, variant)


def _network(shapes: Shapes, family: str, variant: str) -> Layout:
    return Layout(shapes, "diffusion_model", family, variant)


_SVD = {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)} | sd.under(
    "conditioner.embedders.0.open_clip.model.", _VISION
)

LDM: dict[str, Layout] = {
    "svd": _checkpoint(sd.under(_LDM, _over_time(sd.sd2_unet(8, adm=768))) | _SVD, "svd", "base"),
    "sv3d-u": _checkpoint(sd.under(_LDM, _over_time(sd.sd2_unet(8, adm=256))) | _SVD, "svd", "sv3d-u"),
    "sv3d-p": _checkpoint(sd.under(_LDM, _over_time(sd.sd2_unet(8, adm=1280))) | _SVD, "svd", "sv3d-p"),
    "svd-unet": _network(_over_time(sd.sd2_unet(8, adm=768)), "svd", "base"),
    "zero123": _checkpoint(sd.whole(sd.sd1_unet(8), {}) | {"cc_projection.weight": (768, 772)}, "zero123", "base"),
    "altdiffusion": _checkpoint(sd.whole(sd.sd1_unet(), {}) | _ROBERTA, "altdiffusion", "base"),
    "unclip-h": _checkpoint(sd.whole(sd.sd2_unet(adm=2048), _OPEN) | _UNCLIP_H, "sd2", "unclip-h"),
    "unclip-l": _checkpoint(sd.whole(sd.sd2_unet(adm=1536), _OPEN) | _UNCLIP_H, "sd2", "unclip-l"),
    "unclip-h-unet": _network(sd.sd2_unet(adm=2048), "sd2", "unclip-h"),
    "depth2img": _checkpoint(sd.whole(sd.sd2_unet(5), _OPEN) | _DEPTH, "sd2", "depth2img"),
    "x4-upscaler": _checkpoint(sd.whole(_UPSCALER, _OPEN), "sd-x4-upscaler", "base"),
    "image-variations": _checkpoint(
        sd.whole(sd.sd1_unet(), {"cond_stage_model.model.": _VISION}), "sd1", "image-variations"
    ),
    "playground-2.5": _checkpoint(sd.whole(sd.sdxl_unet(), _BOTH) | _EDM, "sdxl", "playground-2.5"),
    "cosxl": _checkpoint(sd.whole(sd.sdxl_unet(), _BOTH) | {"edm_vpred.sigma_max": ()}, "sdxl", "cosxl"),
    "cosxl-edit": _checkpoint(sd.whole(sd.sdxl_unet(8), _BOTH) | {"edm_vpred.sigma_max": ()}, "sdxl", "cosxl-edit"),
    "sd1-with-controlnet": _checkpoint(
        sd.whole(sd.sd1_unet(), _CLIP) | _controlled(sd.sd1_unet()), "sd1", "with-controlnet"
    ),
    "sd2-with-controlnet": _checkpoint(
        sd.whole(sd.sd2_unet(), _OPEN) | _controlled(sd.sd2_unet()), "sd2", "with-controlnet"
    ),
    "sdxl-with-controlnet": _checkpoint(
        sd.whole(sd.sdxl_unet(), _BOTH) | _controlled(sd.sdxl_unet()), "sdxl", "with-controlnet"
    ),
    "animatediff-merged": _checkpoint(
        sd.whole(sd.sd1_unet(), _CLIP) | sd.under(_LDM, _moving(320)), "sd1", "with-motion"
    ),
}


# --- folders ---------------------------------------------------------------------------------------------------------


def _pipeline(name: str, class_name: str, kind: str, family: str, variant: str, *parts: str) -> Layout:
    """A pipeline's folder: one published network, with the parts that lie beside it."""
    place, _, source = name.partition("=")
    shapes = sd.under(f"{place}/", PUBLISHED[source].inner)
    configs: dict[str, Mapping[str, object]] = {"": {"_class_name": class_name}, place: {}}
    for part in parts:
        shapes[f"{part}/decoder.conv_in.weight" if part == "vae" else f"{part}/shared.weight"] = (512, 16, 3, 3)
        configs[part] = {}
    return Layout(shapes, kind, family, variant, format="diffusers", configs=configs)


def _part(source: str, place: str = "transformer") -> Layout:
    """One part of a pipeline that lies alone in a folder of whatever name."""
    of_file = PUBLISHED[source].layout
    shapes = sd.under(f"{place}/", PUBLISHED[source].inner)
    return replace(of_file, shapes=shapes, format="diffusers", configs={place: {}})


def _named(class_name: str, family: str, variant: str = "base") -> Layout:
    """A pipeline whose network is told by its class alone."""
    shapes: Shapes = {"unet/conv_in.weight": (320, 4, 3, 3), "vae/decoder.conv_in.weight": (512, 4, 3, 3)}
    configs: dict[str, Mapping[str, object]] = {"": {"_class_name": class_name}, "unet": {}, "vae": {}}
    return Layout(shapes, "checkpoint", family, variant, format="diffusers", configs=configs)


_TEXT, _VAE = "text_encoder", "vae"
PIPELINES: dict[str, Layout] = {
    "flux-folder": _pipeline(
        "transformer=flux-dev-diffusers", "FluxPipeline", "checkpoint", "flux", "dev", _TEXT, "text_encoder_2", _VAE
    ),
    "flux-kontext-folder": _pipeline(
        "transformer=flux-dev-diffusers", "FluxKontextPipeline", "checkpoint", "flux", "kontext", _TEXT, _VAE
    ),
    "qwen-image-folder": _pipeline(
        "transformer=qwen-image", "QwenImagePipeline", "checkpoint", "qwen-image", "base", _TEXT, _VAE
    ),
    "qwen-image-edit-folder": _pipeline(
        "transformer=qwen-image", "QwenImageEditPipeline", "checkpoint", "qwen-image", "edit", _TEXT, _VAE
    ),
    "wan-folder": _pipeline("transformer=wan-t2v-diffusers", "WanPipeline", "checkpoint", "wan", "t2v", _TEXT, _VAE),
    "svd-folder": _pipeline("unet=svd-diffusers", "StableVideoDiffusionPipeline", "checkpoint", "svd", "base", _VAE),
    "unclip-folder": _pipeline(
        "unet=sd2-unclip-h-diffusers", "StableUnCLIPImg2ImgPipeline", "checkpoint", "sd2", "unclip-h", _TEXT, _VAE
    ),
    "kandinsky-prior-folder": _pipeline(
        "prior=kandinsky-2.2-prior", "KandinskyV22PriorPipeline", "checkpoint", "kandinsky2", "2.2-prior", _TEXT
    ),
    "cascade-prior-folder": _pipeline(
        "prior=stable-cascade-c", "StableCascadePriorPipeline", "checkpoint", "stable-cascade", "stage-c", _TEXT
    ),
    "shap-e-folder": _named("ShapEPipeline", "shap-e", "text"),
    "audioldm2-folder": _named("AudioLDM2Pipeline", "audioldm2"),
    "dance-diffusion-folder": _named("DanceDiffusionPipeline", "dance-diffusion"),
    "marigold-folder": _named("MarigoldDepthPipeline", "sd2", "depth"),
    "gligen-folder": _named("StableDiffusionGLIGENPipeline", "sd1"),
    "ldm3d-folder": _named("StableDiffusionLDM3DPipeline", "sd1"),
    "x2-upscaler-folder": _named("StableDiffusionLatentUpscalePipeline", "sd-x2-latent-upscaler"),
    "paint-by-example-folder": _named("PaintByExamplePipeline", "sd1"),
    "karlo-folder": _named("UnCLIPPipeline", "karlo"),
    "unidiffuser-folder": _named("UniDiffuserPipeline", "unidiffuser"),
    "vq-diffusion-folder": _named("VQDiffusionPipeline", "vq-diffusion"),
    "flux-part": _part("flux-schnell-diffusers"),
    "flux-part-elsewhere": _part("flux-dev-diffusers", "my-flux"),
    "kolors-part": _part("kolors", "unet"),
    "clip-part": _part("clip-l", "text_encoder"),
    "t5-part": _part("t5-xxl", "text_encoder_2"),
}


def _told(type: str, kind: str, family: str, architecture: str = "", **config: object) -> Layout:
    """A transformers folder, of which config.json says all."""
    classes = {"architectures": [architecture]} if architecture else {}
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32000}
    configs = {"": {"model_type": type, **classes, **sizes, **config}}
    shapes: Shapes = {"model.embed_tokens.weight": (32000, 4096), "model.norm.weight": (4096,)}
    return Layout(shapes, kind, family, "base", format="transformers", configs=configs, guess="guess" in config)


_CHATS = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt2", "gptj", "bloom", "opt",
    "falcon", "mamba", "mamba2", "rwkv", "cohere", "olmo", "granite", "stablelm", "starcoder2", "baichuan", "chatglm",
    "mpt", "minicpm", "nemotron", "jamba", "bitnet", "qwen", "phimoe", "olmoe", "minimax", "exaone", "smollm3",
    "lfm2", "apertus", "dbrx", "arctic", "dots1", "llada", "persimmon", "codegen", "xglm", "helium",
)  # fmt: skip
_NAMED_OTHERWISE = {
    "gpt_neo": "gpt-neo", "gpt_neox": "gpt-neox", "deepseek_v2": "deepseek", "deepseek_v3": "deepseek", "glm4": "glm",
    "internlm2": "internlm2", "qwen2_moe": "qwen2-moe", "qwen3_moe": "qwen3-moe", "gpt_oss": "gpt-oss",
    "gemma3_text": "gemma3", "gpt_bigcode": "starcoder", "llama4_text": "llama4", "qwen3_next": "qwen3-next",
    "qwen3_5_text": "qwen3.5", "qwen3_5_moe_text": "qwen3.5-moe", "gemma3n_text": "gemma3n", "gemma4_text": "gemma4",
    "falcon_h1": "falcon-h1", "Yi": "yi", "ernie4_5": "ernie4.5", "hunyuan_v1_dense": "hunyuan-text",
    "seed_oss": "seed-oss", "grok-1": "grok", "kimi_linear": "kimi-linear", "bailing_moe": "bailing",
    "mimo_v2_flash": "mimo2", "step3p7": "step",
}  # fmt: skip
_SEE = {
    "llava": "llava", "qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2-vl", "qwen3_vl": "qwen3-vl", "idefics": "idefics",
    "blip-2": "blip2", "paligemma": "paligemma", "mllama": "mllama", "internvl": "internvl", "smolvlm": "idefics",
    "gemma3": "gemma3-vl", "mistral3": "mistral3-vl", "florence2": "florence2", "qwen3_5": "qwen3.5-vl",
    "llama4": "llama4-vl", "minicpmv": "minicpm-v", "glm4v": "glm4v", "deepseek_vl": "deepseek-vl",
    "kosmos-2": "kosmos2", "fuyu": "fuyu", "molmo": "molmo", "aria": "aria", "janus": "janus", "chameleon": "chameleon",
    "cogvlm": "cogvlm", "hunyuan_vl": "hunyuan-vl", "paddleocr_vl": "paddleocr", "ovis2": "ovis2",
    "aya_vision": "aya-vision",
}  # fmt: skip
_HEAR = {
    "seamless_m4t": "seamless-m4t", "qwen2_5_omni": "qwen-omni", "qwen2_audio": "qwen2-audio", "voxtral": "voxtral",
    "phi4_multimodal": "phi4-multimodal", "granite_speech": "granite-speech", "moshi": "moshi",
}  # fmt: skip
_OTHERS = {
    "whisper": ("speech_recognition", "whisper"), "wav2vec2": ("speech_recognition", "wav2vec2"),
    "bark": ("text_to_speech", "bark"), "vits": ("text_to_speech", "vits"), "speecht5": ("text_to_speech", "speecht5"),
    "musicgen": ("text_to_music", "musicgen"), "clap": ("clap", "clap"), "clip": ("clip", "clip"),
    "clip_text_model": ("text_encoder", "clip"), "clip_vision_model": ("clip_vision", "clip"),
    "bert": ("text_encoder", "bert"), "roberta": ("text_encoder", "bert"), "t5": ("text_encoder", "t5"),
    "encodec": ("audio_codec", "audio-codec"), "marian": ("text_to_text", "translation"),
    "moonshine": ("speech_recognition", "moonshine"), "parakeet_ctc": ("speech_recognition", "parakeet"),
    "fastspeech2_conformer": ("text_to_speech", "fastspeech2"), "csm": ("text_to_speech", "csm"),
    "dia": ("text_to_speech", "dia"), "vibevoice": ("text_to_speech", "vibevoice"), "git": ("captioner", "git"),
    "parler_tts": ("text_to_speech", "parler-tts"),
    "pocket_tts": ("text_to_speech", "pocket-tts"), "vision-encoder-decoder": ("captioner", "trocr"),
    "dpt": ("depth_estimator", "dpt"), "segformer": ("segmenter", "segformer"),
    "sam": ("segmenter", "sam"), "depth_anything": ("depth_estimator", "depth-anything"), "blip": ("captioner", "blip"),
    "detr": ("detector", "detr"), "vit": ("image_classifier", "vit"), "siglip": ("clip_vision", "siglip"),
    "bart": ("text_to_text", "bart"), "swin2sr": ("upscaler", "swin2sr"), "dinov2": ("image_encoder", "dinov2"),
}  # fmt: skip

FOLDERS: dict[str, Layout] = {
    **{f"{type}-folder": _told(type, "language_model", type) for type in _CHATS},
    **{f"{type}-folder": _told(type, "language_model", family) for type, family in _NAMED_OTHERWISE.items()},
    **{f"{type}-folder": _told(type, "vision_language_model", family) for type, family in _SEE.items()},
    **{f"{type}-folder": _told(type, "audio_language_model", family) for type, family in _HEAR.items()},
    **{f"{type}-folder": _told(type, kind, family) for type, (kind, family) in _OTHERS.items()},
    "a-classifier-folder": _told("llama", "text_classifier", "llama", "LlamaForSequenceClassification"),
    "new-lm-folder": _told("brandnew_9", "language_model", "brandnew_9", "BrandNewForCausalLM", guess=True),
    "new-vlm-folder": _told(
        "new_vl", "vision_language_model", "new_vl", "NewForConditionalGeneration", vision_config={}, guess=True
    ),
    "odd-type-folder": _told("../x y", "language_model", "", "OddForCausalLM", guess=True),
}


# --- GGUF ------------------------------------------------------------------------------------------------------------


def _gguf(architecture: str, kind: str, family: str, **metadata: str) -> Layout:
    """A GGUF file of llama.cpp's, of which the metadata says all."""
    shapes: Shapes = {"token_embd.weight": (32000, 4096), "output_norm.weight": (4096,)}
    shapes |= {f"blk.{block}.attn_q.weight": (4096, 4096) for block in range(32)}
    told = {
        "general.architecture": architecture,
        "general.file_type": "15",
        f"{architecture}.context_length": "8192",
        f"{architecture}.block_count": "32",
        f"{architecture}.embedding_length": "4096",
        "tokenizer.ggml.model": "gpt2",
        **{name.replace("__", "."): value for name, value in metadata.items()},
    }
    told = {name: value for name, value in told.items() if value}
    return Layout(shapes, kind, family, "base", told, dtype="F32", format="gguf", guess="guess" in metadata)


def _no_model(kind: str, shapes: Shapes, **metadata: str) -> Layout:
    """A GGUF file of llama.cpp's that is no model: its metadata says what it is."""
    told = {name.replace("__", "."): value for name, value in metadata.items()}
    return Layout(shapes, kind, "", "base", told, dtype="F32", format="gguf")


_OF_IMATRIX: Shapes = {"blk.0.attn_q.weight.in_sum2": (1, 4096), "blk.0.attn_q.weight.counts": (1, 1)}
_GGUF_LANGUAGE = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3-moe", "gemma3": "gemma3", "phi3": "phi3",
    "gpt-oss": "gpt-oss", "deepseek2": "deepseek", "command-r": "cohere", "mamba": "mamba", "rwkv7": "rwkv",
    "falcon": "falcon", "starcoder2": "starcoder2", "glm4": "glm", "bloom": "bloom", "gptneox": "gpt-neox",
    "minicpm": "minicpm", "granite": "granite", "olmo2": "olmo", "refact": "llama.cpp-others",
}  # fmt: skip
_CONTROL_SHAPE = {"comfy.gguf.orig_shape.img_in.weight": "[3072, 384]"}


def _quantised(source: str, architecture: str, metadata: Mapping[str, str] = {}) -> Layout:
    """A published network in GGUF, as ComfyUI's converter names its architecture."""
    of_file = PUBLISHED[source].layout
    told = {"general.architecture": architecture, "general.file_type": "14", **metadata}
    return replace(of_file, shapes=PUBLISHED[source].inner, metadata=told, format="gguf")


GGUF: dict[str, Layout] = {
    **{f"{name}-gguf": _gguf(name, "language_model", family) for name, family in _GGUF_LANGUAGE.items()},
    "qwen2vl-gguf": _gguf("qwen2vl", "vision_language_model", "qwen2-vl"),
    "wavtokenizer-gguf": _gguf("wavtokenizer-dec", "audio_codec", "wavtokenizer"),
    "bert-gguf": _gguf("bert", "text_encoder", "bert"),
    "llama-shard-gguf": _gguf("llama", "language_model", "llama", split__no="1", split__count="3"),
    "new-gguf": _gguf("brandnew", "language_model", "brandnew", guess="yes"),
    "mmproj-gguf": _gguf("clip", "vision_projector", "", general__type="mmproj", clip__projector_type="mlp"),
    "mmproj-old-gguf": _gguf("clip", "vision_projector", "", clip__projector_type="ldpv2", tokenizer__ggml__model=""),
    "vocabulary-gguf": _no_model(
        "vocabulary", {}, general__architecture="llama", tokenizer__ggml__model="llama", tokenizer__ggml__tokens="a b"
    ),
    "new-vocabulary-gguf": _no_model(
        "vocabulary", {}, general__architecture="brandnew", tokenizer__ggml__model="gpt2", tokenizer__ggml__tokens="a b"
    ),
    "t5-vocabulary-gguf": _no_model(
        "vocabulary", {}, general__architecture="t5", tokenizer__ggml__model="t5", tokenizer__ggml__tokens="a b"
    ),
    "control-vector-gguf": _no_model(
        "control_vector",
        {"direction.1": (4096,), "direction.2": (4096,)},
        general__architecture="controlvector",
        controlvector__model_hint="llama",
    ),
    "imatrix-gguf": _no_model("importance_matrix", _OF_IMATRIX, general__type="imatrix", imatrix__chunk_count="45"),
    "flux-gguf": _quantised("flux-dev", "flux"),
    "flux-folded-gguf": replace(_quantised("flux-dev", "flux", _CONTROL_SHAPE), variant="fill"),
    "chroma-gguf": _quantised("chroma", "flux"),
    "sd3.5-gguf": _quantised("sd3.5-large", "sd3"),
    "wan-gguf": _quantised("wan-t2v-14B", "wan"),
    "hyvid-gguf": _quantised("hunyuan-video", "hyvid"),
    "ltxv-gguf": _quantised("ltx-0.9", "ltxv"),
    "lumina2-gguf": _quantised("lumina2", "lumina2"),
    "qwen-image-gguf": _quantised("qwen-image", "qwen_image"),
    "hidream-gguf": _quantised("hidream", "hidream"),
    "aura-gguf": _quantised("auraflow", "aura"),
    "cosmos-gguf": _quantised("cosmos-1-7B", "cosmos"),
    "flux-sd.cpp-gguf": replace(
        _quantised("flux-schnell", ""),
        shapes=sd.under("model.diffusion_model.", PUBLISHED["flux-schnell"].inner),
        metadata={},
    ),
    "t5-gguf": Layout(
        {
            "token_embd.weight": (32128, 4096),
            "enc.output_norm.weight": (4096,),
            "enc.blk.0.attn_rel_b.weight": (32, 64),
            **{f"enc.blk.{block}.attn_{each}.weight": (4096, 4096) for block in range(24) for each in "qkvo"},
            **{f"enc.blk.{block}.ffn_gate.weight": (10240, 4096) for block in range(24)},
        },
        "text_encoder",
        "t5",
        "v1.1",
        {"general.architecture": "t5encoder", "general.file_type": "18"},
        format="gguf",
    ),
}

LAYOUTS: dict[str, Layout] = {
    **{name: published.layout for name, published in PUBLISHED.items()},
    **LDM,
    **PIPELINES,
    **FOLDERS,
    **GGUF,
}
