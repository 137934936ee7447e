"""Language models, alone or with eyes and ears: by config, by GGUF's metadata, and by the names of single files.

The types are transformers' (https://huggingface.co/docs/transformers/model_doc/auto), the architectures llama.cpp's
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-arch.cpp). Of some, single files lie on shelves too, as
text encoders of other models: these are told by the names of their first layer.
"""

from __future__ import annotations

import re

from bottega.families._known._signature import BARE, BASE, PART, Is, Naming, Signature, Variant, known

_LANGUAGE, _SEEING, _HEARING = "language_model", "vision_language_model", "audio_language_model"

_FIRST = "model.layers.0."
_QUERY, _KEY, _GATE = (
    f"{_FIRST}self_attn.q_proj.weight",
    f"{_FIRST}self_attn.k_proj.weight",
    f"{_FIRST}mlp.gate_proj.weight",
)
_NORM = f"{_FIRST}input_layernorm.weight"
_SIZES = {"width": (_NORM, 0), "vocabulary": ("model.embed_tokens.weight", 0), "inner": (_GATE, 0)}
_COUNTS = {"layers": "model.layers.{}.input_layernorm.weight"}
_QUERY_NORM, _QUERY_BIAS = f"{_FIRST}self_attn.q_norm.weight", f"{_FIRST}self_attn.q_proj.bias"
_BEFORE_MLP, _AFTER_MLP = f"{_FIRST}pre_feedforward_layernorm.weight", f"{_FIRST}post_feedforward_layernorm.weight"
_ROUTER, _MIXTRAL_ROUTER = f"{_FIRST}mlp.gate.weight", f"{_FIRST}block_sparse_moe.gate.weight"
_SEES = (
    "visual.blocks.0.attn.qkv.weight", "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "model.visual.blocks.0.attn.qkv.weight",
)  # fmt: skip
_KEY_NORM, _KEY_BIAS = f"{_FIRST}self_attn.k_norm.weight", f"{_FIRST}self_attn.k_proj.bias"
_ODD = (
    _QUERY_NORM, _QUERY_BIAS, _KEY_NORM, _KEY_BIAS, _BEFORE_MLP, _AFTER_MLP, _ROUTER, _MIXTRAL_ROUTER,
    f"{_FIRST}input_layernorm.bias", "multi_modal_projector.linear_1.weight",
)  # fmt: skip


def _decoder(
    *keys: str,
    absent: tuple[str, ...] = (),
    variants: tuple[Variant, ...] = (),
) -> Naming:
    """A decoder in the naming that Llama began, with what sets it apart from the others."""
    return Naming(
        (*keys, _NORM),
        absent=(*absent, *_SEES),
        sizes=_SIZES,
        counts=_COUNTS,
        variants=variants,
        label="transformers",
    )


_LLAMA_NAMES = _decoder(
    _QUERY,
    _KEY,
    _GATE,
    absent=_ODD,
    variants=(Variant(BASE, (), "Mistral, Yi and others have the same names: nothing tells them apart", guess=True),),
)
_META_NAMES = Naming(
    ("layers.0.attention.wq.weight", "layers.0.feed_forward.w1.weight", "tok_embeddings.weight"),
    absent=("cap_embedder.1.weight",),
    sizes={"width": ("tok_embeddings.weight", 1), "vocabulary": ("tok_embeddings.weight", 0)},
    counts={"layers": "layers.{}.attention.wq.weight"},
    variants=(Variant(BASE, (), "Mistral's own files have the same names", guess=True),),
    label="Meta's",
)


def _moe(router: str, *keys: str, absent: tuple[str, ...] = ()) -> Naming:
    return _decoder(router, _QUERY, *keys, absent=absent)


def _model(
    id: str,
    title: str,
    types: tuple[str, ...] = (),
    gguf: tuple[str, ...] = (),
    *namings: Naming,
    kind: str = _LANGUAGE,
) -> Signature:
    return Signature(id, title, "text", namings, types, gguf, kind=kind, part="model", prefixes=BARE)


def _blocks(first: str, *others: str, absent: tuple[str, ...] = (), words: tuple[str, int] | None = None) -> Naming:
    """A model with names of its own; `words` is its table of tokens and the axis of its width."""
    sizes = {"width": words, "vocabulary": (words[0], 1 - words[1])} if words else {}
    counts = {"layers": re.sub(r"\.0\.", ".{}.", first, count=1)}
    return Naming((first, *others), absent=absent, sizes=sizes, counts=counts, label="transformers")


_MODELS = (
    _model("llama", "Llama", ("llama", "code_llama"), ("llama", "llama-embed"), _LLAMA_NAMES, _META_NAMES),
    _model("llama4", "Llama 4", ("llama4_text",), ("llama4",)),
    _model("mistral", "Mistral", ("mistral", "ministral", "ministral3"), ("mistral3", "mistral4")),
    _model(
        "mixtral",
        "Mixtral",
        ("mixtral",),
        (),
        _moe(_MIXTRAL_ROUTER, f"{_FIRST}block_sparse_moe.experts.0.w1.weight"),
    ),
    _model("qwen", "Qwen", ("qwen",), ("qwen",)),
    _model(
        "qwen2",
        "Qwen2",
        ("qwen2",),
        ("qwen2", "dream"),
        _decoder(_QUERY_BIAS, _GATE, absent=(_QUERY_NORM, _ROUTER, f"{_FIRST}self_attn.o_proj.bias")),
    ),
    _model("qwen2-moe", "Qwen2 MoE", ("qwen2_moe",), ("qwen2moe",), _moe(_ROUTER, _QUERY_BIAS)),
    _model(
        "qwen3",
        "Qwen3",
        ("qwen3",),
        ("qwen3",),
        _decoder(_QUERY_NORM, _GATE, absent=(_BEFORE_MLP, _AFTER_MLP, _ROUTER, _QUERY_BIAS)),
    ),
    _model(
        "qwen3-moe",
        "Qwen3 MoE",
        ("qwen3_moe",),
        ("qwen3moe",),
        _moe(_ROUTER, _QUERY_NORM, f"{_FIRST}mlp.experts.0.gate_proj.weight", absent=(_QUERY_BIAS,)),
    ),
    _model("qwen3-next", "Qwen3-Next", ("qwen3_next",), ("qwen3next",)),
    _model("qwen3.5", "Qwen3.5", ("qwen3_5_text",), ("qwen35",)),
    _model("qwen3.5-moe", "Qwen3.5 MoE", ("qwen3_5_moe_text",), ("qwen35moe",)),
    _model("gemma", "Gemma", ("gemma",), ("gemma",)),
    _model("gemma2", "Gemma 2", ("gemma2",), ("gemma2",), _decoder(_BEFORE_MLP, _GATE, _QUERY, absent=(_QUERY_NORM,))),
    _model(
        "gemma3",
        "Gemma 3",
        ("gemma3_text",),
        ("gemma3", "gemma-embedding"),
        _decoder(_BEFORE_MLP, _GATE, _QUERY, _QUERY_NORM, absent=("model.layers.0.layer_scalar",)),
    ),
    _model("gemma3n", "Gemma 3n", ("gemma3n_text",), ("gemma3n",)),
    _model("gemma4", "Gemma 4", ("gemma4_text",), ("gemma4", "gemma4-assistant")),
    _model(
        "phi",
        "Phi",
        ("phi",),
        ("phi2",),
        Naming(
            (f"{_FIRST}self_attn.dense.weight", f"{_FIRST}mlp.fc1.weight", "model.embed_tokens.weight"),
            sizes={"width": ("model.embed_tokens.weight", 1), "vocabulary": ("model.embed_tokens.weight", 0)},
            counts={"layers": "model.layers.{}.self_attn.dense.weight"},
            label="transformers",
        ),
    ),
    _model(
        "phi3",
        "Phi-3",
        ("phi3",),
        ("phi3",),
        _decoder(f"{_FIRST}mlp.gate_up_proj.weight", f"{_FIRST}self_attn.qkv_proj.weight"),
    ),
    _model("phimoe", "Phi-3.5 MoE", ("phimoe",), ("phimoe",)),
    _model(
        "gpt2",
        "GPT-2",
        ("gpt2", "gpt-sw3"),
        ("gpt2",),
        _blocks(
            "transformer.h.0.attn.c_attn.weight",
            "transformer.wte.weight",
            "transformer.wpe.weight",
            words=("transformer.wte.weight", 1),
        ),
        _blocks("h.0.attn.c_attn.weight", "wte.weight", "wpe.weight", words=("wte.weight", 1)),
    ),
    _model(
        "gpt-neo",
        "GPT-Neo",
        ("gpt_neo",),
        (),
        _blocks(
            "transformer.h.0.attn.attention.q_proj.weight",
            "transformer.wte.weight",
            words=("transformer.wte.weight", 1),
        ),
    ),
    _model(
        "gptj",
        "GPT-J",
        ("gptj",),
        ("gptj",),
        _blocks(
            "transformer.h.0.mlp.fc_in.weight",
            "transformer.h.0.attn.q_proj.weight",
            words=("transformer.wte.weight", 1),
        ),
    ),
    _model(
        "gpt-neox",
        "GPT-NeoX",
        ("gpt_neox", "gpt_neox_japanese"),
        ("gptneox",),
        _blocks(
            "gpt_neox.layers.0.attention.query_key_value.weight",
            "gpt_neox.embed_in.weight",
            words=("gpt_neox.embed_in.weight", 1),
        ),
    ),
    _model(
        "bloom",
        "BLOOM",
        ("bloom",),
        ("bloom",),
        _blocks(
            "transformer.h.0.self_attention.query_key_value.weight",
            "transformer.word_embeddings_layernorm.weight",
            words=("transformer.word_embeddings.weight", 1),
        ),
        _blocks(
            "h.0.self_attention.query_key_value.weight",
            "word_embeddings_layernorm.weight",
            words=("word_embeddings.weight", 1),
        ),
    ),
    _model(
        "falcon",
        "Falcon",
        ("falcon", "RefinedWeb", "RefinedWebModel"),
        ("falcon",),
        _blocks(
            "transformer.h.0.self_attention.query_key_value.weight",
            "transformer.word_embeddings.weight",
            absent=("transformer.word_embeddings_layernorm.weight",),
            words=("transformer.word_embeddings.weight", 1),
        ),
    ),
    _model("falcon-h1", "Falcon-H1", ("falcon_h1",), ("falcon-h1",)),
    _model(
        "opt",
        "OPT",
        ("opt",),
        ("opt",),
        _blocks(
            "model.decoder.layers.0.self_attn.q_proj.weight",
            "model.decoder.embed_positions.weight",
            absent=("model.encoder.layers.0.self_attn.q_proj.weight",),
            words=("model.decoder.embed_tokens.weight", 1),
        ),
    ),
    _model(
        "mpt",
        "MPT",
        ("mpt",),
        ("mpt",),
        _blocks("transformer.blocks.0.attn.Wqkv.weight", "transformer.wte.weight", words=("transformer.wte.weight", 1)),
    ),
    _model(
        "mamba",
        "Mamba",
        ("mamba", "falcon_mamba"),
        ("mamba",),
        _blocks(
            "backbone.layers.0.mixer.A_log",
            "backbone.layers.0.mixer.x_proj.weight",
            words=("backbone.embeddings.weight", 1),
        ),
    ),
    _model(
        "mamba2",
        "Mamba 2",
        ("mamba2",),
        ("mamba2",),
        _blocks(
            "backbone.layers.0.mixer.A_log",
            "backbone.layers.0.mixer.norm.weight",
            absent=("backbone.layers.0.mixer.x_proj.weight",),
            words=("backbone.embeddings.weight", 1),
        ),
    ),
    _model("jamba", "Jamba", ("jamba",), ("jamba",)),
    _model(
        "rwkv",
        "RWKV",
        ("rwkv", "rwkv5", "rwkv6", "rwkv7"),
        ("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"),
        Naming(
            ("blocks.0.att.key.weight", "emb.weight", "blocks.0.ffn.key.weight", "ln_out.weight"),
            sizes={"width": ("emb.weight", 1), "vocabulary": ("emb.weight", 0)},
            counts={"layers": "blocks.{}.att.key.weight"},
            variants=(
                Variant("7", (Is("blocks.0.att.r_k"),), "a bonus by head and channel: version 7"),
                Variant("6", (Is("blocks.0.att.time_maa_x"),), "mixing that depends on the data: version 6"),
                Variant("5", (Is("blocks.0.att.time_faaaa"),), "heads with a bonus: version 5"),
                Variant("5", (Is("blocks.0.att.ln_x.weight"),), "heads: version 5"),
                Variant("4", (Is("blocks.0.att.time_first"),), "one bonus by channel: version 4"),
                Variant(BASE, (), "of no published version", guess=True),
            ),
            label="its own",
        ),
    ),
    _model(
        "deepseek",
        "DeepSeek",
        ("deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2"),
        ("deepseek", "deepseek2", "deepseek32", "deepseek4"),
        _decoder(f"{_FIRST}self_attn.kv_a_proj_with_mqa.weight", f"{_FIRST}self_attn.kv_b_proj.weight"),
    ),
    _model(
        "chatglm",
        "ChatGLM",
        ("chatglm",),
        ("chatglm",),
        _blocks(
            "transformer.encoder.layers.0.self_attention.query_key_value.weight",
            "transformer.embedding.word_embeddings.weight",
            words=("transformer.embedding.word_embeddings.weight", 1),
        ),
    ),
    _model("glm", "GLM", ("glm", "glm4", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"), ("glm4", "glm4moe", "glm-dsa")),
    _model(
        "internlm2",
        "InternLM",
        ("internlm", "internlm2", "internlm3"),
        ("internlm2",),
        _blocks(
            "model.layers.0.attention.wqkv.weight",
            "model.tok_embeddings.weight",
            words=("model.tok_embeddings.weight", 1),
        ),
    ),
    _model(
        "baichuan",
        "Baichuan",
        ("baichuan",),
        ("baichuan",),
        _decoder(f"{_FIRST}self_attn.W_pack.weight", _GATE),
    ),
    _model("yi", "Yi", ("Yi", "yi")),
    _model(
        "starcoder2",
        "StarCoder 2",
        ("starcoder2",),
        ("starcoder2",),
        _decoder(f"{_FIRST}mlp.c_fc.weight", _QUERY),
    ),
    _model("starcoder", "StarCoder", ("gpt_bigcode",), ("starcoder",)),
    _model("cohere", "Command", ("cohere", "cohere2", "cohere2_moe"), ("command-r", "cohere2", "cohere2moe")),
    _model("olmo", "OLMo", ("olmo", "olmo2", "olmo3", "olmo_hybrid"), ("olmo", "olmo2")),
    _model("olmoe", "OLMoE", ("olmoe", "flex_olmo"), ("olmoe",)),
    _model(
        "granite",
        "Granite",
        ("granite", "granitemoe", "granitemoehybrid", "granitemoeshared"),
        ("granite", "granitemoe", "granitehybrid"),
    ),
    _model(
        "stablelm",
        "StableLM",
        ("stablelm", "stablelm_epoch"),
        ("stablelm",),
        _decoder(f"{_FIRST}input_layernorm.bias", _QUERY, _KEY, _GATE),
    ),
    _model(
        "gpt-oss",
        "gpt-oss",
        ("gpt_oss",),
        ("gpt-oss",),
        _decoder(f"{_FIRST}mlp.router.weight", f"{_FIRST}self_attn.sinks"),
    ),
    _model("minicpm", "MiniCPM", ("minicpm", "minicpm3"), ("minicpm", "minicpm3")),
    _model("minimax", "MiniMax", ("minimax", "minimax_m2"), ("minimax-m2",)),
    _model("nemotron", "Nemotron", ("nemotron", "nemotron_h"), ("nemotron", "nemotron_h", "nemotron_h_moe")),
    _model("exaone", "EXAONE", ("exaone", "exaone4", "exaone_moe"), ("exaone", "exaone4", "exaone-moe")),
    _model("ernie4.5", "ERNIE 4.5", ("ernie4_5", "ernie4_5_moe"), ("ernie4_5", "ernie4_5-moe")),
    _model(
        "hunyuan-text",
        "Hunyuan",
        ("hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3"),
        ("hunyuan-dense", "hunyuan-moe", "hy_v3"),
    ),
    _model("smollm3", "SmolLM3", ("smollm3",), ("smollm3",)),
    _model("lfm2", "LFM2", ("lfm2", "lfm2_moe", "lfm3"), ("lfm2", "lfm2moe")),
    _model("seed-oss", "Seed-OSS", ("seed_oss",), ("seed_oss",)),
    _model("apertus", "Apertus", ("apertus",), ("apertus",)),
    _model("bitnet", "BitNet", ("bitnet",), ("bitnet",)),
    _model("dbrx", "DBRX", ("dbrx",), ("dbrx",)),
    _model("grok", "Grok", ("grok-1", "grok"), ("grok",)),
    _model("arctic", "Arctic", ("arctic",), ("arctic",)),
    _model("kimi-linear", "Kimi Linear", ("kimi_linear",), ("kimi-linear",)),
    _model("bailing", "Bailing", ("bailing_moe", "bailing_hybrid"), ("bailingmoe", "bailingmoe2")),
    _model("dots1", "dots.llm1", ("dots1",), ("dots1",)),
    _model("mimo2", "MiMo", ("mimo_v2_flash",), ("mimo2",)),
    _model("step", "Step", ("step3p7",), ("step35",)),
    _model("llada", "LLaDA", ("llada",), ("llada", "llada-moe")),
    _model("persimmon", "Persimmon", ("persimmon",), ()),
    _model("codegen", "CodeGen", ("codegen",), ()),
    _model("xglm", "XGLM", ("xglm",), ()),
    _model("helium", "Helium", ("helium",), ()),
    _model(
        "llama.cpp-others",
        "a language model of llama.cpp's",
        (),
        (
            "refact",
            "plamo",
            "plamo2",
            "plamo3",
            "codeshell",
            "orion",
            "xverse",
            "openelm",
            "jais",
            "jais2",
            "plm",
            "arcee",
            "afmoe",
            "laguna",
            "smallthinker",
            "grovemoe",
            "rnd1",
            "pangu-embedded",
            "deci",
            "maincoder",
            "talkie",
            "mellum",
            "eagle3",
            "dflash",
        ),
    ),
    # Those that also see.
    _model(
        "llava",
        "LLaVA",
        ("llava", "llava_next", "llava_next_video", "llava_onevision", "vipllava"),
        (),
        Naming(
            (
                "multi_modal_projector.linear_1.weight",
                "language_model.model.layers.0.self_attn.q_proj.weight",
                "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
            ),
            sizes={"width": ("language_model.model.embed_tokens.weight", 1)},
            counts={"layers": "language_model.model.layers.{}.input_layernorm.weight"},
            label="transformers",
        ),
        kind=_SEEING,
    ),
    _model(
        "qwen2-vl",
        "Qwen2-VL and Qwen2.5-VL",
        ("qwen2_vl", "qwen2_5_vl"),
        ("qwen2vl", "qwen25vl"),
        Naming(
            ("visual.blocks.0.attn.qkv.weight", "visual.merger.mlp.0.weight", _NORM),
            sizes=_SIZES,
            counts=_COUNTS,
            variants=(
                Variant("2.5", (Is("visual.blocks.0.mlp.gate_proj.weight"),), "gated layers in its eyes: 2.5"),
                Variant("2", (), "ungated layers in its eyes: 2"),
            ),
            label="transformers",
        ),
        kind=_SEEING,
    ),
    _model(
        "qwen3-vl",
        "Qwen3-VL",
        ("qwen3_vl", "qwen3_vl_moe"),
        ("qwen3vl", "qwen3vlmoe"),
        Naming(
            ("model.visual.blocks.0.attn.qkv.weight", "model.visual.merger.linear_fc1.weight"),
            counts={"layers": "model.language_model.layers.{}.input_layernorm.weight"},
            sizes={"width": ("model.language_model.embed_tokens.weight", 1)},
            label="transformers",
        ),
        Naming(
            ("visual.blocks.0.attn.qkv.weight", "visual.merger.linear_fc1.weight", _NORM),
            sizes=_SIZES,
            counts=_COUNTS,
            label="transformers",
        ),
        kind=_SEEING,
    ),
    _model("qwen3.5-vl", "Qwen3.5 with eyes", ("qwen3_5", "qwen3_5_moe"), kind=_SEEING),
    _model(
        "gemma3-vl",
        "Gemma 3 with eyes",
        ("gemma3", "gemma3n", "gemma4"),
        (),
        Naming(
            (
                "multi_modal_projector.mm_input_projection_weight",
                "language_model.model.layers.0.pre_feedforward_layernorm.weight",
            ),
            sizes={"width": ("language_model.model.embed_tokens.weight", 1)},
            counts={"layers": "language_model.model.layers.{}.input_layernorm.weight"},
            label="transformers",
        ),
        kind=_SEEING,
    ),
    _model("mistral3-vl", "Mistral 3 with eyes", ("mistral3", "mistral4", "pixtral"), kind=_SEEING),
    _model("mllama", "Llama 3.2 Vision", ("mllama",), kind=_SEEING),
    _model("llama4-vl", "Llama 4 with eyes", ("llama4",), kind=_SEEING),
    _model("idefics", "IDEFICS", ("idefics", "idefics2", "idefics3", "smolvlm"), kind=_SEEING),
    _model("blip2", "BLIP-2", ("blip-2", "instructblip", "instructblipvideo"), kind=_SEEING),
    _model("paligemma", "PaliGemma", ("paligemma",), kind=_SEEING),
    _model("internvl", "InternVL", ("internvl", "internvl_chat"), kind=_SEEING),
    _model("florence2", "Florence-2", ("florence2",), kind=_SEEING),
    _model("minicpm-v", "MiniCPM-V", ("minicpmv", "minicpmo", "minicpmv4_6", "minicpmv4_7"), kind=_SEEING),
    _model("glm4v", "GLM-4V", ("glm4v", "glm4v_moe", "glm46v", "glm_ocr"), kind=_SEEING),
    _model(
        "deepseek-vl",
        "DeepSeek-VL",
        ("deepseek_vl", "deepseek_vl_hybrid", "deepseek_ocr2"),
        ("deepseek2-ocr",),
        kind=_SEEING,
    ),
    _model("kosmos2", "Kosmos-2", ("kosmos-2", "kosmos-2.5"), kind=_SEEING),
    _model("fuyu", "Fuyu", ("fuyu",), kind=_SEEING),
    _model("molmo", "Molmo", ("molmo", "molmo2"), kind=_SEEING),
    _model("aria", "Aria", ("aria",), kind=_SEEING),
    _model("janus", "Janus", ("janus", "multi_modality"), kind=_SEEING),
    _model("chameleon", "Chameleon", ("chameleon",), ("chameleon",), kind=_SEEING),
    _model("cogvlm", "CogVLM", ("cogvlm", "cogvlm2"), ("cogvlm",), kind=_SEEING),
    _model("hunyuan-vl", "Hunyuan-VL", ("hunyuan_vl",), ("hunyuan_vl",), kind=_SEEING),
    _model("paddleocr", "PaddleOCR-VL", ("paddleocr_vl",), ("paddleocr",), kind=_SEEING),
    _model("ovis2", "Ovis2", ("ovis2",), kind=_SEEING),
    _model("aya-vision", "Aya Vision", ("aya_vision", "cohere2_vision"), kind=_SEEING),
    # Those that also hear or speak.
    _model("qwen-omni", "Qwen Omni", ("qwen2_5_omni", "qwen3_omni_moe"), kind=_HEARING),
    _model("qwen2-audio", "Qwen2-Audio", ("qwen2_audio",), kind=_HEARING),
    _model("voxtral", "Voxtral", ("voxtral", "voxtral_realtime"), kind=_HEARING),
    _model("phi4-multimodal", "Phi-4 multimodal", ("phi4_multimodal", "phi4mm"), kind=_HEARING),
    _model("granite-speech", "Granite Speech", ("granite_speech", "granite_speech_plus"), kind=_HEARING),
    _model("moshi", "Moshi", ("moshi",), kind=_HEARING),
    _model("seamless-m4t", "SeamlessM4T", ("seamless_m4t", "seamless_m4t_v2"), kind=_HEARING),
)


def _folder(
    id: str, title: str, medium: str, kind: str, *types: str, category: str = BASE, gguf: tuple[str, ...] = ()
) -> Signature:
    """What is told by its config alone."""
    return Signature(id, title, medium, (), types, gguf, kind=kind, category=category, part="model", prefixes=BARE)


_TRANSLATES = "text_to_text"
_FOLDERS = (
    _folder(
        "wav2vec2",
        "Wav2Vec2",
        "audio",
        "speech_recognition",
        "wav2vec2",
        "wav2vec2-bert",
        "wav2vec2-conformer",
        "hubert",
        "wavlm",
    ),
    _folder("moonshine", "Moonshine", "audio", "speech_recognition", "moonshine", "moonshine_streaming"),
    _folder(
        "parakeet", "Parakeet", "audio", "speech_recognition", "parakeet_ctc", "parakeet_tdt", "parakeet_rnnt", "canary"
    ),
    _folder("speecht5", "SpeechT5", "audio", "text_to_speech", "speecht5"),
    _folder("vits", "VITS", "audio", "text_to_speech", "vits"),
    _folder(
        "fastspeech2",
        "FastSpeech 2",
        "audio",
        "text_to_speech",
        "fastspeech2_conformer",
        "fastspeech2_conformer_with_hifigan",
    ),
    _folder("csm", "CSM", "audio", "text_to_speech", "csm"),
    _folder("dia", "Dia", "audio", "text_to_speech", "dia"),
    _folder("vibevoice", "VibeVoice", "audio", "text_to_speech", "vibevoice"),
    _folder("parler-tts", "Parler-TTS", "audio", "text_to_speech", "parler_tts"),
    _folder("pocket-tts", "Pocket TTS", "audio", "text_to_speech", "pocket_tts"),
    _folder("wavtokenizer", "WavTokenizer", "audio", "audio_codec", category=PART, gguf=("wavtokenizer-dec",)),
    _folder(
        "audio-codec",
        "an audio codec",
        "audio",
        "audio_codec",
        "encodec",
        "dac",
        "mimi",
        "xcodec",
        "xcodec2",
        "neucodec",
        category=PART,
    ),
    _folder("bart", "BART", "text", _TRANSLATES, "bart", "mbart", "pegasus", "led"),
    _folder("translation", "a translator", "text", _TRANSLATES, "marian", "m2m_100", "nllb-moe", "fsmt"),
    _folder("git", "GIT", "image", "captioner", "git"),
    _folder("trocr", "TrOCR and Donut", "image", "captioner", "vision-encoder-decoder"),
    _folder(
        "vit",
        "ViT",
        "image",
        "image_classifier",
        "vit",
        "swin",
        "swinv2",
        "convnext",
        "convnextv2",
        "beit",
        "deit",
        "resnet",
    ),
    _folder("dpt", "DPT and kin", "image", "depth_estimator", "dpt", "zoedepth", "glpn", "depth_pro"),
    _folder(
        "segformer",
        "SegFormer and kin",
        "image",
        "segmenter",
        "segformer",
        "mask2former",
        "maskformer",
        "oneformer",
        "upernet",
    ),
    _folder(
        "detr",
        "DETR and kin",
        "image",
        "detector",
        "detr",
        "rt_detr",
        "rt_detr_v2",
        "d_fine",
        "yolos",
        "owlvit",
        "owlv2",
        "grounding-dino",
    ),
)

SIGNATURES = (*_MODELS, *_FOLDERS)

KNOWN = known(SIGNATURES)
