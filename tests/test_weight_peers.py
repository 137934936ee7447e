"""Weight adapters beside the libraries that train them: peft for LoRA and DoRA, LyCORIS for its own kinds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_weight_adapters import Model, Silent, models
from torch.nn.functional import conv2d, group_norm, linear

from bottega.adapters.lora import attach
from bottega.formats import read_header, safetensors
from bottega.library.convert import Wish, convert
from bottega.runtime.weights import rows

__all__ = ["models"]  # a fixture

TARGETS = {
    "unet": ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "conv1", "conv_shortcut"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("part", list(TARGETS))
@pytest.mark.parametrize("id", ["sd1", *(pytest.param(id, marks=pytest.mark.slow) for id in ("sd2", "sdxl"))])
def test_peft(id: str, part: str, use_dora: bool, models: Callable[[str], Model], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    model = models(id)
    network = model.pipe.unet if part == "unet" else model.pipe.text_encoders[0].model
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=TARGETS[part], use_dora=use_dora, init_lora_weights=False, bias="none"
    )
    torch.manual_seed(0)
    theirs = inject_adapter_in_model(config, copy.deepcopy(network)).eval()
    if use_dora:
        for name, parameter in theirs.named_parameters():
            if "magnitude" in name:
                parameter.data *= torch.rand_like(parameter) + 0.5
    state = {f"{part}.{name}": tensor.detach() for name, tensor in get_peft_model_state_dict(theirs).items()}
    assert any("magnitude" in name for name in state) == use_dora
    told = {"lora_adapter_metadata": json.dumps({f"{part}.r": 4, f"{part}.lora_alpha": 6})}
    safetensors.write(tmp_path / "it.safetensors", rows(state), told)

    heard = Silent()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        expected, plain = run(model, part, theirs, generator), run(model, part, network, generator)
        take_away = attach(model.pipe, model.attachment(tmp_path / "it.safetensors"), heard)
        model.pipe.settle()
        made = run(model, part, network, generator)
        take_away()
        model.pipe.settle()
    assert heard.heard == []
    assert (made - expected).abs().max() < 1e-4 < 1e-2 < (plain - expected).abs().max()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("part", list(TARGETS))
def test_a_folder_that_peft_saved_and_a_file_made_of_it(
    part: str, use_dora: bool, models: Callable[[str], Model], tmp_path: Path
) -> None:
    from peft import LoraConfig

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=TARGETS[part],
        init_lora_weights=False,
        rank_pattern={TARGETS[part][0]: 2},
        alpha_pattern={TARGETS[part][1]: 9},
        use_rslora=True,
        use_dora=use_dora,
    )
    as_peft(config, part, models("sd1"), tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.filterwarnings("ignore:Adapter 'default'. .* have invalid shape")  # which are the biases
@pytest.mark.parametrize("part", list(TARGETS))
def test_what_peft_s_lora_adds_to_biases(part: str, models: Callable[[str], Model], tmp_path: Path) -> None:
    from peft import LoraConfig

    targets = ["to_out.0", "proj_in", "conv1"] if part == "unet" else ["q_proj", "fc1"]
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=targets,
        init_lora_weights=False,
        lora_bias=True,
        rank_pattern={targets[0]: 2},
        alpha_pattern={targets[-1]: 9},
    )
    as_peft(config, part, models("sd1"), tmp_path)


HADAMARD = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 1.5, "conv1": 2}}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("LoHaConfig", {"r": 4, "alpha": 3, **HADAMARD}),
        ("LoHaConfig", {"r": 4, "alpha": 3, "use_effective_conv2d": True}),
        ("LoKrConfig", {"r": 2, "alpha": 1, **HADAMARD}),
        ("LoKrConfig", {"r": 1, "alpha": 0.5, "decompose_both": True, "use_effective_conv2d": True}),
        ("LoKrConfig", {"r": 64, "alpha": 8, "rank_pattern": {"to_q": 90}}),
    ],
    ids=["loha", "loha of convolutions", "lokr", "lokr of two products", "lokr of whole matrices"],
)
def test_loha_and_lokr_that_peft_saved(
    kind: str, told: dict[str, Any], models: Callable[[str], Model], tmp_path: Path
) -> None:
    import peft

    config = getattr(peft, kind)(target_modules=TARGETS["unet"], init_weights=False, **told)
    as_peft(config, "unet", models("sd1"), tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.filterwarnings("ignore:Invalid `oft_block_size`:UserWarning")
@pytest.mark.parametrize(
    "told",
    [
        {"use_cayley_neumann": False},
        *({"num_cayley_neumann_terms": terms} for terms in (2, 3, 4, 5, 8)),
        {"use_cayley_neumann": False, "block_share": True},
        {"use_cayley_neumann": False, "coft": True, "eps": 0.5},
    ],
    ids=str,
)
def test_oft_that_peft_saved(told: dict[str, Any], models: Callable[[str], Model], tmp_path: Path) -> None:
    from peft import OFTConfig

    config = OFTConfig(oft_block_size=8, target_modules=TARGETS["unet"], init_weights=False, **told)
    as_peft(config, "unet", models("sd1"), tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("LoraConfig", {"r": 4, "lora_alpha": 2, "init_lora_weights": False}),
        ("LoKrConfig", {"r": 64, "alpha": 8, "init_weights": False}),
    ],
)
@pytest.mark.parametrize("part", list(TARGETS))
def test_the_first_of_peft_s_patterns_that_fits_counts(
    part: str, kind: str, told: dict[str, Any], models: Callable[[str], Model], tmp_path: Path
) -> None:
    import peft

    alphas = {
        "(down_blocks|text_model.encoder).*(to_q|q_proj)": 9,
        "^mid_block.+": 5,
        r"layers\.1\.mlp\.fc[12]": 12,
        "to_q|q_proj": 1,
    }  # in the order in which peft saves them
    ranks = {"(to_[qk]|[kq]_proj)": 80}
    config = getattr(peft, kind)(target_modules=TARGETS[part], alpha_pattern=alphas, rank_pattern=ranks, **told)
    as_peft(config, part, models("sd1"), tmp_path)


def as_peft(config: Any, part: str, model: Model, folder: Path) -> None:
    """A network with what peft saves answers as one that peft merged it into: the folder, and files made of it."""
    from peft import get_peft_model

    network = model.pipe.unet if part == "unet" else model.pipe.text_encoders[0].model
    torch.manual_seed(0)
    theirs = get_peft_model(copy.deepcopy(network), config).eval()
    theirs.save_pretrained(folder / "it")
    convert(read_header(folder / "it"), folder / "one.safetensors", Wish())
    convert(read_header(folder / "one.safetensors"), folder / "again.safetensors", Wish())
    with torch.no_grad():
        plain = run(model, part, network, torch.Generator())
        expected = run(model, part, theirs.merge_and_unload(), torch.Generator())
        assert (plain - expected).abs().max() > 1e-2
        for name in ("it", "one.safetensors", "again.safetensors"):
            heard = Silent()
            take_away = attach(model.pipe, model.attachment(folder / name), heard)
            model.pipe.settle()
            made = run(model, part, network, torch.Generator())
            take_away()
            model.pipe.settle()
            assert heard.heard == []
            assert (made - expected).abs().max() < 1e-4, name


def run(model: Model, part: str, network: Any, generator: torch.Generator) -> torch.Tensor:
    """What a network answers to always the same question."""
    generator.manual_seed(2)
    if part != "unet":
        answer: torch.Tensor = network(torch.arange(77)[None] * 100).last_hidden_state
        return answer
    config = network.config
    added = None
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim
        added = {"text_embeds": torch.randn(1, 48, generator=generator), "time_ids": torch.ones(1, (width - 48) // 8)}
    latent = torch.randn(1, 4, 8, 8, generator=generator)
    context = torch.randn(1, 77, config.cross_attention_dim, generator=generator)
    projected, network.add_time_proj = getattr(network, "add_time_proj", None), own_projection(network)
    answer = network(latent, torch.tensor(500), context, added_cond_kwargs=added, return_dict=False)[0]
    if projected is not None:
        network.add_time_proj = projected
    return answer


def own_projection(network: Any) -> Any:
    """What embeds SD XL's sizes, as the network was built: the task puts its own numbers in its place."""
    from diffusers.models.embeddings import Timesteps

    return Timesteps(network.config.addition_time_embed_dim or 8, True, 0)


# --- LyCORIS ---------------------------------------------------------------------------------------------------------

MATRIX = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "down_blocks.1.resnets.0.conv2"
NORM = "down_blocks.1.resnets.0.norm2"

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("locon", "LoConModule", {}),
    ("locon of square root", "LoConModule", {"rs_lora": True}),
    ("locon tucker", "LoConModule", {"use_tucker": True}),
    ("dora", "LoConModule", {"weight_decompose": True}),
    ("dora of columns", "LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    ("loha", "LohaModule", {}),
    ("loha tucker", "LohaModule", {"use_tucker": True}),
    ("loha decomposed", "LohaModule", {"weight_decompose": True}),
    ("lokr", "LokrModule", {"factor": 4}),
    ("lokr of two products", "LokrModule", {"factor": 8, "lora_dim": 2, "decompose_both": True}),
    ("lokr whole", "LokrModule", {"full_matrix": True}),
    ("lokr tucker", "LokrModule", {"factor": 4, "lora_dim": 2, "use_tucker": True}),
    ("lokr decomposed", "LokrModule", {"factor": 4, "weight_decompose": True}),
    ("glora", "GLoRAModule", {}),
    ("ia3", "IA3Module", {}),
    ("ia3 of the input", "IA3Module", {"train_on_input": True}),
    ("oft", "DiagOFTModule", {"lora_dim": 8}),
    ("oft bound", "DiagOFTModule", {"lora_dim": 8, "constraint": 0.001}),
    ("oft rescaled", "DiagOFTModule", {"lora_dim": 8, "rescaled": True}),
    ("boft", "ButterflyOFTModule", {"lora_dim": 4}),
    ("boft rescaled", "ButterflyOFTModule", {"lora_dim": 4, "rescaled": True}),
    ("full", "FullModule", {}),
    ("norm", "NormModule", {}),
]
# At other strengths than 1 what it scales the length of DoRA by is applied to the whole change, and `rescale` always.
AT_1_ONLY = ("dora", "dora of columns", "loha decomposed", "lokr decomposed", "oft rescaled", "boft rescaled")


def places_of(name: str) -> tuple[str, ...]:
    """The kinds of layers that are changed so."""
    return (NORM,) if name == "norm" else (CONVOLUTION,) if "tucker" in name else (MATRIX, CONVOLUTION)


@pytest.mark.parametrize(
    ("name", "algorithm", "options", "place"),
    [(*case, place) for case in CASES for place in places_of(case[0])],
    ids=lambda told: told.rpartition(".")[2] if isinstance(told, str) else "",
)
def test_lycoris(
    name: str, algorithm: str, options: dict[str, Any], place: str, models: Callable[[str], Model], tmp_path: Path
) -> None:
    import lycoris.modules as peers

    model = models("sd1")
    own = model.pipe.unet.get_submodule(place)
    torch.manual_seed(0)
    options = {"lora_dim": 4, "alpha": 2, **options}
    kind = getattr(peers, algorithm)
    theirs = kind("lora_unet_" + place.replace(".", "_"), copy.deepcopy(own), **options).eval()
    for parameter in theirs.parameters():
        parameter.data = parameter.data + torch.randn_like(parameter) / 8
    theirs.apply_to()
    state = theirs.custom_state_dict() or theirs.state_dict()
    file = tmp_path / "it.safetensors"
    safetensors.write(file, rows({f"{theirs.lora_name}.{role}": tensor.detach() for role, tensor in state.items()}))
    for strength in (1.0,) if name in AT_1_ONLY else (1.0, 0.5, -1.0):
        theirs.multiplier = strength
        heard = Silent()
        with torch.no_grad():
            take_away = attach(model.pipe, model.attachment(file, weight=strength), heard)
            model.pipe.settle()
            weight, bias = own.weight.data.clone(), None if own.bias is None else own.bias.data.clone()
            take_away()
            model.pipe.settle()
            asked = torch.randn(2, own.weight.shape[1] if own.weight.ndim > 1 else own.weight.shape[0], 8, 8)
            asked = asked[..., 0, 0] if own.weight.ndim == 2 else asked
            expected, plain = theirs(asked), own(asked)
        assert heard.heard == []
        if own.weight.ndim == 2:
            made = linear(asked, weight, bias)
        elif own.weight.ndim == 4:
            made = conv2d(asked, weight, bias, padding=1)
        else:
            made = group_norm(asked, own.num_groups, weight, bias, own.eps)
        assert (made - expected).abs().max() < 1e-4 < 1e-2 < (plain - expected).abs().max()
