"""What the names in a LoRA file mean: to which tensor of a Stable Diffusion model each of its modules belongs.

Trainers write one module under many names. All are brought to kohya's: diffusers' name of the module with `_` for
every dot, after `lora_unet_`, `lora_te_` (SD XL: `lora_te1_`, `lora_te2_`). For SD XL's UNet kohya takes LDM's names
instead; both are understood, for every family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from bottega.families._stable_diffusion.inventory import names_of
from bottega.families._stable_diffusion.keys import REFINER_ENCODER, SINGLE_FILE, source_of, view
from bottega.families._stable_diffusion.parts import Part, parts_of, stored_name
from bottega.families._stable_diffusion.patterns import Matcher
from bottega.families._stable_diffusion.recognise import REFINER, V
from bottega.formats.header import Header, TensorInfo, shown
from bottega.spec import Match, Patch, Patches, Place, Rotation

# How the name of a tensor ends, by what it is in its module: kohya and LyCORIS; diffusers, old and new; peft.
_ROLES = {
    "up": (".lora_up.weight", ".lora_B.weight", ".lora_B.default.weight", ".lora_B.default_0.weight",
           ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight", ".lora_B"),
    "down": (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora_A.default_0.weight",
             ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight", ".lora_A"),
    "up_b": (".lora_B.bias", ".lora_B.default.bias"),
    "mid": (".lora_mid.weight",),
    "alpha": (".alpha",),
    "dora_scale": (".dora_scale",),
    "magnitude": (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight"),
    **{role: (f".{role}",) for role in (
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b",
        "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "diff", "diff_b", "w_norm", "b_norm", "oft_blocks", "oft_diag",
        "rescale", "on_input", "scalar",
    )},
    **{role: (f".{role}.weight",) for role in ("a1", "a2", "b1", "b2", "bm")},
    "ia3_l": (".ia3_l", ".ia3_l.default"),
    "oft_R": (".oft_R.weight", ".oft_R.default.weight"),
}  # fmt: skip
_ENDINGS = sorted(((end, role) for role, ends in _ROLES.items() for end in ends), key=lambda it: -len(it[0]))
_OF_BIAS = ("diff_b", "b_norm", "up_b")  # which change a module's bias and not its weight

_PREFIXES = (
    ("lora_unet_", "unet"), ("oft_unet_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"), ("unet_", "unet"), ("text_encoder_2_", "text_encoder_2"),
    ("text_encoder_", "text_encoder"), ("text_encoders_clip_l_transformer_", "text_encoder"),
    ("text_encoders_clip_g_transformer_", "text_encoder_2"), ("model_diffusion_model_", "unet"),
    ("diffusion_model_", "unet"), ("lycoris_", "unet"), ("text_model_", "text_encoder"),
)  # fmt: skip
_WRAPPERS = re.compile(r"^(base_model\.model\.|lora\.(?=unet))+|(?<=^unet\.)base_model\.model\.")
_NETWORK = re.compile(r"^(unet|text_encoder|text_encoder_2)\.")  # before what peft calls a module
_KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # of text encoders


def places(family: str, header: Header, match: Match) -> list[Place]:
    """The place of every tensor of the model's networks in a single file."""
    return [place for part in parts_of(header, match).items() for place in _places_of(family, match, *part)]


def _places_of(family: str, match: Match, name: str, part: Part) -> Iterator[Place]:
    prefix, naming = SINGLE_FILE[family][name]
    if match.variant == REFINER and name == "text_encoder_2":
        prefix, naming = REFINER_ENCODER
    if name == "vae":
        return
    find, put = source_of(part.shape), source_of(replace(part.shape, naming=naming))
    for ours in names_of(part.shape):
        source = find(ours)
        stored = stored_name(part.header, part.prefix + source.name)
        if stored is None:
            continue
        target = put(ours)
        yield Place(
            part=name,
            name=ours,
            key=_key(family, name, ours, target.name),
            tensor=prefix + target.name,
            shape=view(source, part.header.tensors[stored]).shape,
            third=target.third,
            transposed=target.transposed,
        )


def _key(family: str, part: str, ours: str, theirs: str) -> str:
    """What kohya's trainer calls the module of a tensor."""
    if part == "unet":
        return "lora_unet_" + _flat(theirs if family == "sdxl" else ours)
    prefix = "lora_te1_" if family == "sdxl" and part == "text_encoder" else _KOHYA[part]
    return prefix + _flat(ours if ours.startswith("text_projection") else f"text_model.{ours}")


def _flat(name: str) -> str:
    return name.rpartition(".")[0].replace(".", "_")


_TRAINER_NAMES = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
_ARCHITECTURES = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2-512", "sdxl": "stable-diffusion-xl-v1-base"}


def names_for(family: str, match: Match) -> dict[str, str]:
    """What the metadata of a LoRA for such a model says of its base: kohya's name and ModelSpec's."""
    name, architecture = _TRAINER_NAMES[family], _ARCHITECTURES[family]
    if family == "sd2" and match.dimensions["prediction"] == V:
        name, architecture = "sd_v2_v", "stable-diffusion-v2-768-v"
    return {"ss_base_model_version": name, "modelspec.architecture": f"{architecture}/lora"}


# --- reading a file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Question:
    """One object of what is asked about: two headers are compared by what they are, and not by all that is in them."""

    header: Header
    match: Match
    adapter: Header

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and all(
            mine is theirs for mine, theirs in zip(self._parts, other._parts, strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple(map(id, self._parts)))

    @property
    def _parts(self) -> tuple[object, ...]:
        return self.header, self.match, self.adapter


def patches(family: str, header: Header, match: Match, adapter: Header) -> Patches:
    """What a LoRA does to this model, and which tensors of the LoRA do nothing to it."""
    return _patches(family, _Question(header, match, adapter))


@lru_cache(maxsize=16)  # a job asks several times
def _patches(family: str, question: _Question) -> Patches:
    adapter = question.adapter
    weights, biases = _by_name(places(family, question.header, question.match))
    told, matcher = _told_by_trainer(adapter), Matcher()
    found: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    called: dict[tuple[str, bool], str] = {}
    left = []
    for name, info in adapter.tensors.items():
        part, module, role, own_name = _parse(name, adapter)
        known = biases if role in _OF_BIAS else weights
        place = next((known[part, other] for other in _spellings(part, module) if (part, other) in known), None)
        if place is None:
            left.append(name)
        else:
            key = f"{place.part}.{place.name}", role in _OF_BIAS
            found.setdefault(key, {})[role] = info
            called[key] = own_name
    where = {f"{place.part}.{place.name}": place for known in (weights, biases) for place in known.values()}
    made = []
    for key, numbers in found.items():
        place = where[key[0]]
        config = told.get(place.part, {})
        weight = f"{place.part}.{place.name.rpartition('.')[0]}.weight", False
        scale = _told_scale(config, called[key], found.get(weight, numbers), matcher)  # a bias has no rank of its own
        made.append(Patch(place, numbers, scale, _told_rotation(config)))
    return Patches(tuple(made), tuple(left), tuple(_notes(matcher)))


def _notes(matcher: Matcher) -> Iterator[str]:
    if matcher.unread:
        more = f" and {len(matcher.unread) - 3} more" if len(matcher.unread) > 3 else ""
        patterns = ", ".join(map(shown, list(matcher.unread)[:3]))
        what = "its config gives strengths for modules by patterns that can't be matched here, so not used"
        yield f"{what}: {patterns}{more}"


def _by_name(known: list[Place]) -> tuple[dict[tuple[str, str], Place], dict[tuple[str, str], Place]]:
    """Weights and biases by their part and the flattened name of their module, in each of its namings."""
    weights: dict[tuple[str, str], Place] = {}
    biases: dict[tuple[str, str], Place] = {}
    for place in known:
        named = weights if place.name.endswith(".weight") else biases
        named[place.part, _flat(place.name)] = place
        if place.part == "unet" and "input_blocks" not in place.name:
            named[place.part, _flat(place.tensor.removeprefix("model.diffusion_model."))] = place
    return weights, biases


def _parse(name: str, adapter: Header) -> tuple[str, str, str, str]:
    """The part, the flattened name of the module, the role of a tensor and what peft would call the module.

    They are empty where they can't be told.
    """
    end, role = next(((end, role) for end, role in _ENDINGS if name.endswith(end)), ("", ""))
    if not role and f"{name.removesuffix('.weight')}.on_input" in adapter.tensors:
        end, role = ".weight", "ia3"
    if not role:
        return "", "", "", ""
    dotted = _WRAPPERS.sub("", name[: len(name) - len(end)])
    module = dotted.replace(".processor.", ".").replace(".", "_")
    alone = "text_encoder" if module.startswith("encoder_layers_") else "unet"  # peft's folder of one network
    prefix, part = next(((prefix, part) for prefix, part in _PREFIXES if module.startswith(prefix)), ("", alone))
    return part, module.removeprefix(prefix), role, _NETWORK.sub("", dotted)


def _spellings(part: str, module: str) -> Iterator[str]:
    """The names under which the module may be known here."""
    module = module.removesuffix("_lora")
    if part.startswith("text_encoder"):
        module = module.removeprefix("text_model_")
        yield module
        before, _, last = module.rpartition("self_attn_")
        if last in _OLD_ATTENTION:
            yield f"{before}self_attn_{_OLD_ATTENTION[last]}"
        return
    yield module
    if module.endswith("_to_out"):
        yield f"{module}_0"


# What peft's configuration has to say of strengths, which only LoRA's calls lora_alpha, and of OFT.
_CONFIG = (
    "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "peft_type", "use_cayley_neumann", "num_cayley_neumann_terms", "coft", "eps",
)  # fmt: skip
_MOST_TERMS = 100
_RANKED = ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # which have a row for each rank


def _told_by_trainer(adapter: Header) -> dict[str, dict[str, Any]]:
    """peft's configuration by part, from the metadata of diffusers' files, or the one for all in peft's own folder.

    A file that was made of such a folder has that one in its metadata.
    """
    try:
        told = adapter.configs.get("") or json.loads(adapter.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    if "peft_type" in told:
        return {part: {name: told.get(name) for name in _CONFIG} for part in _KOHYA}
    return {part: {name: told.get(f"{part}.{name}") for name in _CONFIG} for part in _KOHYA}


def _told_scale(
    config: Mapping[str, Any], module: str, numbers: Mapping[str, TensorInfo], matcher: Matcher
) -> float | None:
    """alpha / rank of a module, as peft's configuration of its part says it; None if it says nothing."""
    alpha = config.get("alpha") if config.get("lora_alpha") is None else config["lora_alpha"]
    alpha = _own(config.get("alpha_pattern"), module, alpha, matcher)
    # LoKr of two whole matrices has no rank of its own, and is scaled by the one that was asked for.
    shapes = [numbers[role].shape for role in _RANKED if role in numbers]
    if shapes and shapes[0]:
        rank: Any = shapes[0][0]
    else:
        rank = _own(config.get("rank_pattern"), module, config.get("r"), matcher)
    if not isinstance(alpha, (int, float)) or not isinstance(rank, int) or rank <= 0:
        return None
    return float(alpha) / (rank**0.5 if config.get("use_rslora") is True else rank)


def _told_rotation(config: Mapping[str, Any]) -> Rotation | None:
    """How OFT's rotations are made, as peft's configuration says it; what it leaves out is as peft fills it in."""
    if config.get("peft_type") != "OFT":
        return None
    told = {"use_cayley_neumann": True, "num_cayley_neumann_terms": 5, "coft": False, "eps": 6e-5}
    told |= {name: value for name in told if (value := config.get(name)) is not None}
    terms, bound = told["num_cayley_neumann_terms"], told["eps"]
    if not isinstance(terms, int) or terms > _MOST_TERMS or not isinstance(bound, (int, float)):
        return None
    return Rotation(terms if told["use_cayley_neumann"] else None, float(bound) if told["coft"] else None)


def _own(patterns: object, module: str, other: Any, matcher: Matcher) -> Any:
    """What a module has for itself by the first pattern that fits it, or the other thing."""
    for pattern, own in patterns.items() if isinstance(patterns, dict) else ():
        if matcher.fits(pattern, module):
            return own
        if matcher.is_spent:
            break
    return other
