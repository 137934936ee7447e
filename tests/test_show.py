"""`bottega show` tells how a picture was made, by us or by others: short for people, whole for programs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, growth
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.families import family
from bottega.formats import comfyui, infotext, invokeai, media
from bottega.recipe import Media, Recipe, Ref, Sampling, Size

Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a ComfyUI graph; a link is given as a list."""
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def default_graph(**sampler: Any) -> Graph:
    """The graph that ComfyUI begins with."""
    settings = {"seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal"}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": node("KSampler", **{**settings, "denoise": 1, **links, **sampler}),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="a glass bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


def png_with(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    return path


# --- our own ---------------------------------------------------------------------------------------------------------


def our_picture(path: Path, **fields: Any) -> Path:
    """A picture with a resolved recipe, all of whose knobs are as usual but for what `auto` came to."""
    usual = {knob.name: knob.default for knob in family("sd1").knobs}
    auto = {"precision": "bfloat16", "prediction": "epsilon", "vae_tiling": "off"}
    told = {
        "model": Ref(name="castles", sha256="ab" * 32),
        "sampling": Sampling(sampler="DPM++ 2M", schedule="Karras", steps=20, guidance=7.0, seed=7),
        "size": Size(width=64, height=64),
        **fields,
        "knobs": {**usual, **auto, **fields.get("knobs", {})},
    }
    recipe = Recipe.model_validate(told)
    path.write_bytes(media.encode(Image.new("RGB", (64, 64)), "png", recipe=recipe.to_json(), parameters="a\nSteps: 1"))
    return path


def test_a_page_has_what_matters_and_no_more(bottega: Command, tmp_path: Path) -> None:
    path = our_picture(tmp_path / "out.png", prompt="a house\nby the sea")
    lines = bottega("show", path).out.splitlines()
    names = [line[:10].strip() for line in lines]
    assert names == ["file", "picture", "prompt", "", "model", "sampling", "seed", "knobs", "digest"]
    told = dict(zip(names, (line[10:] for line in lines), strict=True))
    assert (lines[2][10:], lines[3][10:]) == ("a house", "by the sea")
    assert told["model"] == "castles [ababababab]"
    assert told["sampling"] == "DPM++ 2M, Karras, 20 steps, CFG 7"
    assert told["knobs"] == "precision=bfloat16, prediction=epsilon, vae_tiling=off"


def test_what_was_set_otherwise_is_on_the_page(bottega: Command, tmp_path: Path) -> None:
    path = our_picture(
        tmp_path / "out.png",
        prompt="a",
        negative="rain",
        inputs=(Media(role="init", sha256="c" * 64),),
        sampling=Sampling(strength=0.5),
        knobs={"clip_skip": 2, "zero_snr": True, "eta": 1.0},
    )
    page = bottega("show", path).out
    assert "clip_skip=2" in page and "zero_snr=true" in page and "eta" not in page
    assert "rain" in page and "cccccccccc..." in page and "strength  0.5" in page


def test_json_tells_all_of_ours(bottega: Command, tmp_path: Path) -> None:
    path = our_picture(tmp_path / "out.png", prompt="a")
    told, carried = bottega("show", path, "--json").json, media.read(path)
    assert told["recipe"] == json.loads(str(carried.recipe))
    assert told["parameters"] == carried.parameters and "texts" not in told


# --- stable-diffusion-webui ------------------------------------------------------------------------------------------


def test_a1111s_text_as_a_page(bottega: Command, tmp_path: Path) -> None:
    text = (
        "a cat\nNegative prompt: rain\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 11, "
        "Size: 512x768, Model hash: 6ce0161689, Model: v1-5, Clip skip: 2"
    )
    lines = bottega("show", png_with(tmp_path / "theirs.png", parameters=text)).out.splitlines()[2:]
    assert [line.split(maxsplit=1) for line in lines[:-2]] == [
        ["prompt", "a cat"],
        ["negative", "rain"],
        ["model", "v1-5 [6ce0161689]"],
        ["sampling", "DPM++ 2M, Karras, 20 steps, CFG 6.5"],
        ["seed", "11"],
    ]
    assert [line.rsplit(maxsplit=1) for line in lines[-2:]] == [["size", "512x768"], ["Clip skip", "2"]]


# --- ComfyUI ---------------------------------------------------------------------------------------------------------


def test_the_graph_that_comfyui_begins_with() -> None:
    assert comfyui.describe(default_graph()) == infotext.Infotext(
        "a glass bottle",
        "text, watermark",
        {
            "Steps": "20",
            "Sampler": "euler",
            "Schedule type": "normal",
            "CFG scale": "8",
            "Seed": "156680208700286",
            "Model": "v1-5-pruned.safetensors",
            "Size": "512x768",
        },
    )


def test_settings_and_words_that_come_over_links() -> None:
    graph = default_graph(seed=["20", 0], steps=["21", 0], model=["24", 0], denoise=0.6)
    graph |= {
        "6": node("CLIPTextEncode", text=["22", 0], clip=["24", 1]),
        "7": node("CLIPTextEncode", text=["22", 1], clip=["24", 1]),
        "20": node("Seed (rgthree)", seed=5),
        "21": node("PrimitiveInt", value=33),
        "22": node("SDXLPromptStyler", text_positive=["23", 0], text_negative="ugly", log_prompt="No"),
        "23": node("Text Concatenate", text_a="one", text_b="two", delimiter=", "),
        "24": node("LoraLoader", lora_name="ink.safetensors", strength_model=0.8, model=["25", 0], clip=["4", 1]),
        "25": node("Power Lora Loader", lora_1={"on": True, "lora": "oil", "strength": 1}, model=["4", 0]),
    }
    told = comfyui.describe(graph)
    assert (told.prompt, told.negative) == ("one\ntwo", "ugly")
    assert (told.fields["Seed"], told.fields["Steps"], told.fields["Denoising strength"]) == ("5", "33", "0.6")
    assert told.fields["Model"] == "v1-5-pruned.safetensors"
    assert told.fields["LoRA"] == "ink.safetensors:0.8, oil:1"


def test_words_pass_a_controlnet_each_in_its_role() -> None:
    graph = default_graph(positive=["30", 0], negative=["30", 1])
    graph["30"] = node(
        "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["31", 0], image=["32", 0]
    )
    graph["31"] = node("ControlNetLoader", control_net_name="depth.safetensors")
    graph["32"] = node("LoadImage", image="a text about depth.png")
    told = comfyui.describe(graph)
    assert (told.prompt, told.negative) == ("a glass bottle", "text, watermark")


def test_a_prompt_that_is_zeroed_out_says_nothing() -> None:
    graph = default_graph(negative=["40", 0])
    graph["40"] = node("ConditioningZeroOut", conditioning=["6", 0])
    told = comfyui.describe(graph)
    assert (told.prompt, told.negative) == ("a glass bottle", "")


def test_flux_with_its_settings_in_nodes_of_their_own() -> None:
    told = comfyui.describe(
        {
            "6": node("CLIPTextEncode", text="a fox", clip=["11", 0]),
            "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
            "9": node("SaveImage", filename_prefix="x", images=["8", 0]),
            "10": node("VAELoader", vae_name="ae.safetensors"),
            "11": node("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux"),
            "12": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
            "13": node(
                "SamplerCustomAdvanced",
                noise=["25", 0],
                guider=["22", 0],
                sampler=["16", 0],
                sigmas=["17", 0],
                latent_image=["27", 0],
            ),
            "16": node("KSamplerSelect", sampler_name="euler"),
            "17": node("BasicScheduler", scheduler="simple", steps=28, denoise=1.0, model=["30", 0]),
            "22": node("BasicGuider", model=["30", 0], conditioning=["26", 0]),
            "25": node("RandomNoise", noise_seed=42),
            "26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
            "27": node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
            "30": node("ModelSamplingFlux", max_shift=1.15, width=1024, height=1024, model=["12", 0]),
        }
    )
    assert (told.prompt, told.negative) == ("a fox", "")
    assert told.fields == {
        "Steps": "28",
        "Sampler": "euler",
        "Schedule type": "simple",
        "Distilled CFG Scale": "3.5",
        "Seed": "42",
        "Model": "flux1-dev.safetensors",
        "Size": "1024x1024",
    }


def test_a_second_pass_is_told_after_the_first_without_what_is_only_the_firsts() -> None:
    graph = default_graph()
    graph["8"] = node("VAEDecode", samples=["51", 0], vae=["4", 2])
    graph["50"] = node("LatentUpscale", upscale_method="nearest-exact", width=1024, height=1536, samples=["3", 0])
    graph = {
        # In front of the first one, as an editor's order of nodes says nothing.
        "51": node(
            "KSampler",
            seed=6,
            steps=10,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=0.5,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["50", 0],
        ),
        **graph,
    }
    fields = comfyui.describe(graph).fields
    assert (fields["Seed"], fields["Size"]) == ("156680208700286", "512x768")
    assert fields["Pass 2"] == (
        "Steps 10, Sampler dpmpp_2m, Schedule type karras, Seed 6, Model v1-5-pruned.safetensors, "
        "Denoising strength 0.5"
    )


def test_a_loader_that_holds_the_prompts_itself() -> None:
    graph = default_graph(model=["60", 0], positive=["60", 1], negative=["60", 2], latent_image=["60", 3])
    graph["60"] = node("Efficient Loader", ckpt_name="xl.safetensors", positive="a fox", negative="rain")
    told = comfyui.describe(graph)
    assert (told.prompt, told.negative, told.fields["Model"]) == ("a fox", "rain", "xl.safetensors")


def test_what_is_not_fed_into_the_saved_picture_is_left_out() -> None:
    graph = default_graph()
    graph["70"] = node("KSampler", **{**graph["3"]["inputs"], "seed": 1})
    graph["71"] = node("PreviewImage", images=["70", 0])
    fields = comfyui.describe(graph).fields
    assert fields["Seed"] == "156680208700286" and "Pass 2" not in fields


def test_links_in_circles_and_into_nowhere() -> None:
    graph = default_graph(model=["3", 0], seed=["80", 0], positive=["no such node", 0])
    graph["80"] = node("Reroute", value=["81", 0])
    graph["81"] = node("Reroute", value=["80", 0])
    told = comfyui.describe(graph)
    assert told.prompt == "" and told.negative == "text, watermark"
    assert "Seed" not in told.fields and told.fields["Steps"] == "20"


@pytest.mark.slow
def test_no_graph_breaks_it() -> None:
    """Any JSON may stand where ComfyUI writes a graph."""
    chance = random.Random(5)
    names = [*default_graph()["3"]["inputs"], "text", "value", "noise", "sigmas", "lora_name", "width", "ckpt_name"]
    values: list[Any] = [None, True, 0, -1.5, "", "3", [], {}, ["3"], ["3", "3"], [3, 0], {"lora": "x"}, {"content": 1}]
    values += [[str(target), 0] for target in range(12)]
    for _ in range(2000):
        graph: Graph = {
            str(number): node("SaveImage", **{name: chance.choice(values) for name in chance.sample(names, 6)})
            for number in range(12)
        }
        graph |= {"x": chance.choice(values), "y": {"inputs": chance.choice(values)}}
        told = comfyui.describe(graph)
        assert all(isinstance(text, str) for text in (told.prompt, told.negative, *told.fields.values()))


def test_a_large_graph_takes_linear_time() -> None:
    samplers = {
        str(index): node("KSampler", seed=index, steps=1, model=[str(index - 1), 0]) for index in range(1, 8000)
    }
    names = " ".join(samplers)
    assert growth(lambda text: comfyui.describe({name: samplers[name] for name in text.split()}), names) < 40


def test_show_tells_of_comfyui(bottega: Command, tmp_path: Path) -> None:
    graph = {**default_graph(), "9": {**default_graph()["9"], "is_changed": [float("nan")]}}
    workflow = {"nodes": [{"id": 3, "type": "KSampler"}], "links": []}
    path = png_with(tmp_path / "comfy.png", prompt=json.dumps(graph), workflow=json.dumps(workflow))
    lines = bottega("show", path).out.splitlines()[2:]
    assert [line.split(maxsplit=1) for line in lines] == [
        ["made", "with  ComfyUI"],
        ["prompt", "a glass bottle"],
        ["negative", "text, watermark"],
        ["model", "v1-5-pruned.safetensors"],
        ["sampling", "euler, normal, 20 steps, CFG 8"],
        ["seed", "156680208700286"],
        ["size", "512x768"],
    ]
    ran = bottega("show", path, "--json")
    assert "NaN" not in ran.out  # which is no JSON
    told = ran.json["comfyui"]
    assert (told["prompt"], told["fields"]["Seed"]) == ("a glass bottle", "156680208700286")
    assert told["graph"]["3"] == graph["3"] and told["graph"]["9"]["is_changed"] == [None]
    assert told["workflow"] == workflow


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"workflow": '{"nodes": []}'}, "understands nothing"),
        ({"prompt": '{"1": {"class_type": "LoadImage", "inputs": {}}}'}, "understands nothing"),
        ({"prompt": "{broken"}, "{broken"),
        ({"prompt": "[" * 100_000}, "nothing that says how it was made"),
        ({"prompt": '{"a":' * 300 + "1" + "}" * 300}, "nothing that says how it was made"),
        ({"Title": "x" * 5000}, "xxx…"),
        ({"workflow": "x" * (2 << 20)}, "the text 'workflow', longer than the 1,048,576 bytes"),
    ],
)
def test_what_can_not_be_understood_is_told_as_far_as_it_goes(
    texts: dict[str, str], said: str, bottega: Command, tmp_path: Path
) -> None:
    path = png_with(tmp_path / "strange.png", **texts)
    ran = bottega("show", path)
    assert ran.code == 0 and said in ran.out and len(ran.out) < 2000
    assert bottega("show", path, "--json").json["format"] == "png"


# --- InvokeAI --------------------------------------------------------------------------------------------------------


def test_invokeai_of_today() -> None:
    told = invokeai.describe(
        {
            "app_version": "5.6.0",
            "generation_mode": "sdxl_txt2img",
            "positive_prompt": "a fox",
            "negative_prompt": "rain",
            "width": 1024,
            "height": 768,
            "seed": 2341,
            "cfg_scale": 7.5,
            "steps": 30,
            "scheduler": "dpmpp_2m_k",
            "clip_skip": 1,
            "model": {"key": "1f", "hash": "blake3:00", "name": "Juggernaut XL", "base": "sdxl", "type": "main"},
            "vae": {"key": "2f", "name": "sdxl-vae"},
            "loras": [{"model": {"key": "3f", "name": "ink"}, "weight": 0.75}],
        }
    )
    assert (told.prompt, told.negative) == ("a fox", "rain")
    assert told.fields == {
        "Steps": "30",
        "Sampler": "dpmpp_2m_k",
        "CFG scale": "7.5",
        "Seed": "2341",
        "Size": "1024x768",
        "Model": "Juggernaut XL",
        "VAE": "sdxl-vae",
        "Clip skip": "2",
        "LoRA": "ink:0.75",
        "Version": "InvokeAI 5.6.0",
    }


def test_invokeai_of_before() -> None:
    third = {
        "model": {"model_name": "dream", "base_model": "sd-1"},
        "loras": [{"lora": {"model_name": "x"}, "weight": 1}],
    }
    assert invokeai.describe(third).fields == {"Model": "dream", "LoRA": "x:1", "Version": "InvokeAI"}
    second = {
        "model": "stable diffusion",
        "model_weights": "sd-1.5",
        "app_version": "2.3.0",
        "image": {"prompt": [{"prompt": "a fox [rain]", "weight": 1.0}], "steps": 50, "sampler": "k_euler", "seed": 3},
    }
    told = invokeai.describe(second)
    assert (told.prompt, told.negative) == ("a fox [rain]", "")
    assert told.fields == {
        "Steps": "50",
        "Sampler": "k_euler",
        "Seed": "3",
        "Model": "sd-1.5",
        "Version": "InvokeAI 2.3.0",
    }


def test_show_tells_of_invokeai(bottega: Command, tmp_path: Path) -> None:
    metadata = {"positive_prompt": "a fox", "steps": 30, "model": {"name": "xl"}, "app_version": "5.6.0"}
    path = png_with(tmp_path / "invoke.png", invokeai_metadata=json.dumps(metadata))
    page = bottega("show", path).out
    assert "a fox" in page and "30 steps" in page and "InvokeAI 5.6.0" in page
    assert bottega("show", path, "--json").json["invokeai"]["metadata"] == metadata


# --- Fooocus and SwarmUI ---------------------------------------------------------------------------------------------


def test_show_tells_of_fooocus(bottega: Command, tmp_path: Path) -> None:
    metadata = {"prompt": "a fox", "steps": 30, "metadata_scheme": "fooocus", "styles": "['Fooocus V2']", "seed": "7"}
    path = png_with(tmp_path / "fooocus.png", parameters=json.dumps(metadata), fooocus_scheme="fooocus")
    page = bottega("show", path).out
    assert "a fox" in page and "30 steps" in page and "made with  Fooocus" in page and "['Fooocus V2']" in page
    told = bottega("show", path, "--json").json
    assert told["fooocus"]["metadata"] == metadata and not {"a1111", "parameters", "texts"} & told.keys()


def test_show_tells_of_swarmui(bottega: Command, tmp_path: Path) -> None:
    metadata = {"sui_image_params": {"prompt": "a fox", "steps": 30, "model": "xl", "swarm_version": "0.9.8"}}
    path = png_with(tmp_path / "swarm.png", parameters=json.dumps(metadata))
    page = bottega("show", path).out
    assert "a fox" in page and "30 steps" in page and "made with  SwarmUI" in page and "SwarmUI 0.9.8" in page
    assert bottega("show", path, "--json").json["swarmui"]["metadata"] == metadata
