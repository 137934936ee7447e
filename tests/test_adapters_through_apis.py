"""Adapters as clients have them: listed, named in prompts and options, refused with the reason, told with hashes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import webuiapi
from door_server import Server, serving
from native import Api, studio
from PIL import Image
from test_lora import write_lora
from test_words import write_embedding, write_hypernetwork, write_vae

from bottega.diffusion.clip_tokenizer import builtin_tokenizer
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.library.scan import scan
from bottega.recognisers import all_recognisers

QUICK = {"prompt": "a red house", "steps": 2, "seed": 7, "width": 64, "height": 64}

NOTES = {"ss_base_model_version": "sd_v1", "ss_tag_frequency": '{"a": {"glow": 3}}'}


def filled(home: Path) -> Path:
    """A home whose shelf has a tiny model of SD 1 and of SD XL, and adapters for them."""
    shelf = home / "models"
    shelf.mkdir(parents=True)
    toys = {
        id: write_single_file(shelf / f"{name}.safetensors", id) for id, name in (("sd1", "small"), ("sdxl", "large"))
    }
    write_lora(shelf / "glow.safetensors", toys["sd1"], metadata=NOTES)
    write_lora(shelf / "wide.safetensors", toys["sdxl"], "sdxl", metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    write_embedding(shelf / "spark.safetensors", count=3)
    write_embedding(shelf / "zap.safetensors", "sdxl")
    write_hypernetwork(shelf / "vivid.pt")
    write_vae(shelf / "soft.safetensors")
    return home


# --- A1111


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(filled(tmp_path_factory.mktemp("adapters") / "home")) as running:
        yield running


@pytest.fixture
def webui(server: Server) -> Iterator[webuiapi.WebUIApi]:
    api = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
    with closing(api.session):
        api.util_set_model("small")
        yield api


def made(api: webuiapi.WebUIApi, **changes: Any) -> Any:
    return api.txt2img(**{**QUICK, **changes})


def pixels(result: Any) -> bytes:
    content: bytes = result.image.convert("RGB").tobytes()
    return content


@pytest.mark.slow
def test_webuiapi_lists_adapters(webui: webuiapi.WebUIApi) -> None:
    webui.refresh_checkpoints()
    loras = {each["name"]: each for each in webui.get_loras()}
    assert {"glow", "wide"} <= set(loras)
    assert loras["glow"]["alias"] == "glow" and loras["glow"]["path"] == "glow.safetensors"
    assert loras["glow"]["metadata"] == {**NOTES, "ss_tag_frequency": {"a": {"glow": 3}}}
    assert "vivid" in [each["name"] for each in webui.get_hypernetworks()]
    assert "soft.safetensors" in [each["model_name"] for each in webui.get_sd_vae()]
    assert webui.session.get(f"{webui.baseurl}/sd-modules").json() == webui.get_sd_vae()
    told = webui.get_embeddings()
    assert told["loaded"]["spark"]["vectors"] == 3 and "zap" in told["skipped"]
    webui.util_set_model("large")
    told = webui.get_embeddings()
    assert "zap" in told["loaded"] and "spark" in told["skipped"]


@pytest.mark.slow
def test_webuiapi_names_adapters_in_the_prompt_and_in_options(webui: webuiapi.WebUIApi) -> None:
    plain = made(webui)
    lora = made(webui, prompt="a red house <lora:glow:0.8>")
    hyper = made(webui, prompt="a red house <hypernet:vivid:0.5>")
    vae = made(webui, override_settings={"sd_vae": "soft.safetensors"})
    assert len({pixels(each) for each in (plain, lora, hyper, vae)}) == 4
    chosen = {"sd_lora": "glow", "extra_networks_default_multiplier": 0.8}
    assert pixels(made(webui, override_settings=chosen)) == pixels(lora)
    again = made(webui, prompt="a red house <lora:glow:0.8>", override_settings={"sd_lora": "glow"})
    assert pixels(again) == pixels(lora)  # it is named already
    chosen = {"sd_hypernetwork": "vivid", "extra_networks_default_multiplier": 0.5}
    assert pixels(made(webui, override_settings=chosen)) == pixels(hyper)
    assert pixels(made(webui, override_settings={"forge_additional_modules": ["soft.safetensors"]})) == pixels(vae)
    assert pixels(made(webui, override_settings={"sd_vae": "None"})) == pixels(plain)
    assert pixels(made(webui, prompt="a red house <lora:glow:0>")) == pixels(plain)


@pytest.mark.slow
def test_webuiapi_is_told_of_all_adapters_with_their_hashes(webui: webuiapi.WebUIApi, server: Server) -> None:
    prompt = "a red house, spark <lora:glow:0.8><hypernet:vivid:0.5>"
    result = made(webui, prompt=prompt, override_settings={"sd_vae": "soft.safetensors"})
    with server.owner() as owner:
        known = {each["name"]: each for each in owner.get("/api/models?limit=500").json()["items"]}
        autov3 = owner.get(f"/api/models/{known['glow']['id']}").json()["autov3"]
    said, text = result.info, result.info["infotexts"][0]
    assert said["prompt"] == prompt == text.partition("\n")[0]
    assert (said["sd_vae_name"], said["sd_vae_hash"]) == ("soft.safetensors", known["soft"]["sha256"][:10])
    extra = said["extra_generation_params"]
    assert extra["Lora hashes"] == f"glow: {autov3[:12]}"
    assert extra["TI hashes"] == f"spark: {known['spark']['sha256'][:12]}"
    assert extra["Hypernet hashes"] == f"vivid: {known['vivid']['sha256'][:12]}"
    told = webui.png_info(result.image)
    assert told.info == text and told.parameters["VAE"] == "soft.safetensors"
    body = {"infotext": text, "force_task_id": "again"}
    repeated = webui.session.post(f"{webui.baseurl}/txt2img", json=body)
    info = json.loads(repeated.json()["info"])
    assert info["infotexts"][0].partition(", RNG")[0] == text.partition(", RNG")[0]
    assert info["extra_generation_params"]["Lora hashes"] == extra["Lora hashes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    (
        ({"prompt": "a <lora:wide:1>"}, ("prompt", "Stable Diffusion XL")),
        ({"prompt": "a <lora:gloe:1>"}, ("prompt", "glow")),
        ({"prompt": "a <lora:glow:many>"}, ("prompt", "no number")),
        ({"override_settings": {"sd_lora": "wide"}}, ("override_settings", "Stable Diffusion XL")),
        ({"override_settings": {"sd_vae": "glow"}}, ("override_settings", "no vae")),
        ({"override_settings": {"sd_hypernetwork": "vivit"}}, ("vivid",)),
    ),
)
def test_what_can_not_be_attached_is_refused_with_the_reason(
    webui: webuiapi.WebUIApi, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(RuntimeError) as refused:
        made(webui, **changes)
    status, text = refused.value.args[0], str(refused.value.args)
    assert status in (404, 422) and all(word in text for word in words), text


@pytest.mark.slow
def test_loras_that_share_a_name_are_told_apart_wherever_they_are_named(
    webui: webuiapi.WebUIApi, server: Server
) -> None:
    shelf = server.home / "models"
    twins = [
        write_lora(shelf / place / "twin.safetensors", shelf / "small.safetensors", seed=seed)
        for seed, place in enumerate((".", "sub"), 1)
    ]
    try:
        webui.session.post(f"{webui.baseurl}/refresh-loras")
        names = sorted(each["name"] for each in webui.get_loras() if each["path"].endswith("twin.safetensors"))
        assert names == ["models/twin.safetensors", "sub/twin.safetensors"]
        results = [made(webui, prompt=f"a red house <lora:{name}:1>") for name in names]
        assert pixels(results[0]) != pixels(results[1])
        short = made(webui, prompt="a red house <lora:sub/twin:1>")
        assert pixels(short) == pixels(results[1])
        for result in (*results, short):
            prompt = webui.png_info(result.image).parameters["Prompt"]
            again = made(webui, prompt=prompt)
            assert pixels(again) == pixels(result) and again.info["infotexts"] == result.info["infotexts"]
            repeated = webui.session.post(f"{webui.baseurl}/txt2img", json={"infotext": result.info["infotexts"][0]})
            assert json.loads(repeated.json()["info"])["prompt"] == prompt
    finally:
        for path in twins:
            path.unlink()
        webui.session.post(f"{webui.baseurl}/refresh-loras")


@pytest.mark.slow
def test_a_lora_is_meant_by_the_name_that_its_trainer_gave_it(webui: webuiapi.WebUIApi, server: Server) -> None:
    shelf = server.home / "models"
    names = {"file_name": "nice alias", "one": "shared", "two": "shared", "three": "Glow"}
    given = {name: {"ss_output_name": alias} for name, alias in names.items()}
    files = [
        write_lora(shelf / f"{name}.safetensors", shelf / "small.safetensors", seed=seed, metadata=told)
        for seed, (name, told) in enumerate(given.items())
    ]
    files.append(write_single_file(shelf / "nice alias.safetensors", "sd1"))  # which is no LoRA, and not in the way
    try:
        webui.session.post(f"{webui.baseurl}/refresh-loras")
        told = {each["name"]: each["alias"] for each in webui.get_loras()}
        assert [told[name] for name in names] == ["nice alias", "one", "two", "three"]
        result = made(webui, prompt="a red house <lora:nice alias:1>")
        assert pixels(result) == pixels(made(webui, prompt="a red house <lora:file_name:1>"))
        assert result.info["prompt"] == "a red house <lora:file_name:1>"
        assert "<lora:glow:1>" in made(webui, prompt="a red house <lora:Glow:1>").info["prompt"]
        with pytest.raises(RuntimeError, match=r"shared.* is the name of 2 models"):
            made(webui, prompt="a red house <lora:shared:1>")
    finally:
        for path in files:
            path.unlink()
        webui.session.post(f"{webui.baseurl}/refresh-loras")


@pytest.mark.slow
def test_options_choose_adapters_until_they_are_gone(webui: webuiapi.WebUIApi, server: Server) -> None:
    before = webui.get_options()
    assert (before["sd_vae"], before["sd_hypernetwork"], before["sd_lora"]) == ("Automatic", "None", "None")
    late = write_vae(server.home / "models" / "late.safetensors", seed=8)
    assert webui.session.post(f"{webui.baseurl}/refresh-vae").json() == {}
    webui.set_options({"sd_vae": "late.safetensors", "sd_hypernetwork": "vivid"})
    try:
        options = webui.get_options()
        assert (options["sd_vae"], options["sd_hypernetwork"]) == ("late.safetensors", "vivid")
        info = made(webui).info
        assert info["sd_vae_name"] == "late.safetensors" and "<hypernet:vivid:1>" in info["prompt"]
        late.unlink()
        webui.session.post(f"{webui.baseurl}/refresh-vae")
        gone = webui.get_options()
        assert gone["sd_vae"] == "Automatic"
        webui.set_options(gone)  # as Open WebUI does
    finally:
        webui.set_options(before)
    assert webui.get_options() == before
    refused = webui.session.post(f"{webui.baseurl}/options", json={"sd_vae": "late.safetensors"})
    assert refused.status_code == 404 and "late" in refused.json()["detail"]


@pytest.mark.slow
def test_openais_clients_name_loras_too(server: Server) -> None:
    asked = {"model": "small", "prompt": "a red house", "seed": 7, "steps": 2, "size": "64x64"}
    plain, tagged, named = (
        pictured(server, {**asked, **more})
        for more in (
            {},
            {"prompt": "a red house <lora:glow:0.8>"},
            {"loras": [{"name": "glow", "weight": 0.8}]},
        )
    )
    assert plain != tagged == named
    with server.owner() as owner:
        refused = owner.post("/v1/images/generations", json={**asked, "loras": ["wide"]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "loras"


def pictured(server: Server, asked: dict[str, Any]) -> bytes:
    with server.owner() as owner:
        answer = owner.post("/v1/images/generations", json={**asked, "response_format": "b64_json"})
    assert answer.status_code == 200, answer.text
    with Image.open(BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as picture:
        return picture.convert("RGB").tobytes()


# --- the native API


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = filled(tmp_path_factory.mktemp("native") / "home")
    with studio(home) as opened:
        scan(opened.shop.catalog, [home / "models"], all_recognisers())
        yield opened


def ids(api: Api) -> dict[str, str]:
    return {each["name"]: each["id"] for each in api.get("/models")["items"]}


def test_a_picker_shows_what_fits(api: Api) -> None:
    known = ids(api)

    def fitting(name: str, query: str = "") -> set[str]:
        return {each["name"] for each in api.get(f"/models?fits={known[name]}{query}")["items"]} & set(known)

    assert fitting("small") >= {"glow", "spark", "vivid", "soft"}
    assert not fitting("small") & {"wide", "zap", "small", "large"}
    assert fitting("small", "&kind=lora") >= {"glow"} and "spark" not in fitting("small", "&kind=lora")
    assert {"wide", "zap"} <= fitting("large") and not fitting("large") & {"glow", "spark", "soft"}
    assert fitting("wide") == {"large"} and "small" in fitting("glow")
    facets = api.get(f"/models/facets?fits={known['large']}")
    assert facets["kind"]["lora"] == 1 and "checkpoint" not in facets["kind"]
    assert api.refused("GET", "/models?fits=0000000000000000")[0] == 404


def test_a_form_tells_what_can_be_attached(api: Api) -> None:
    told = api.get(f"/models/{ids(api)['small']}/form")
    forms = {each["kind"]: each for each in told["adapters"]}
    assert set(forms) >= {"lora", "embedding", "hypernetwork", "vae"}
    assert forms["lora"]["fields"] == ["weight", "unet", "text_encoder", "blocks", "start", "end"]
    assert (forms["lora"]["tag"], forms["embedding"]["fields"], forms["vae"]["most"]) == ("lora", [], 1)
    assert "IN01" in told["blocks"]


def test_an_adapter_is_meant_by_id_name_or_hash(api: Api) -> None:
    known = ids(api)
    base = {"model": {"name": "small"}, "sampling": {"seed": 1}}

    def resolved(ref: dict[str, Any], **fields: Any) -> Any:
        use = {"kind": "lora", "ref": ref, **fields}
        return api.post("/resolve", {"recipe": {**base, "prompt": "a", "adapters": [use]}})

    by_id = resolved({"id": known["glow"]}, weight=0.5)
    (use,) = by_id["recipe"]["adapters"]
    assert (use["ref"]["name"], use["weight"]) == ("glow", 0.5)
    for ref in ({"name": "glow"}, {"sha256": use["ref"]["sha256"]}, {"name": "old", "sha256": use["ref"]["sha256"]}):
        assert resolved(ref, weight=0.5)["recipe"]["adapters"][0]["ref"]["sha256"] == use["ref"]["sha256"]
    tagged = {**base, "prompt": "a <lora:glow:0.5>"}
    assert api.post("/resolve", {"recipe": tagged})["digest"] == by_id["digest"]
    assert by_id["plan"]["weights"]["adapters"] > 0
    told = resolved({"name": "glow"}, unet=0.2, blocks={"IN01": 0.5}, start=0.1, end=0.9)["recipe"]["adapters"][0]
    assert (told["unet"], told["blocks"], told["start"], told["end"]) == (0.2, {"IN01": 0.5}, 0.1, 0.9)


def test_models_whose_names_are_no_text_are_meant_by_their_ids(tmp_path: Path) -> None:
    shelf = tmp_path / "models"
    shelf.mkdir()
    toy = write_single_file(shelf / os.fsdecode(b"small\xe9.safetensors"), "sd1")
    write_lora(shelf / os.fsdecode(b"glow\xe9.safetensors"), toy, metadata=NOTES)
    with studio(tmp_path) as api:
        scan(api.shop.catalog, [shelf], all_recognisers())
        known = ids(api)
        use = {"kind": "lora", "ref": {"id": known["glow?"]}, "weight": 0.5}
        recipe = {"prompt": "a", "model": {"id": known["small?"]}, "adapters": [use]}
        told = api.post("/jobs", {"recipe": recipe}, 202)["recipe"]
        assert (told["model"]["name"], told["adapters"][0]["ref"]["name"]) == ("small?", "glow?")
        assert told["adapters"][0]["weight"] == 0.5 and len(told["adapters"][0]["ref"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("use", "field", "word"),
    (
        ({"kind": "lora", "ref": {"name": "wide"}}, "recipe.adapters.0", "Stable Diffusion XL"),
        ({"kind": "vae", "ref": {"name": "glow"}}, "recipe.adapters.0", "no vae"),
        ({"kind": "lora", "ref": {"name": "glow"}, "blocks": {"X9": 1}}, "recipe.adapters.0.blocks.X9", "no block"),
        ({"kind": "lora", "ref": {"name": "glow"}, "start": 0.9, "end": 0.1}, "recipe.adapters.0.start", "steps"),
        ({"kind": "embedding", "ref": {"name": "spark"}}, "recipe.adapters", "no word"),
        ({"kind": "lora", "ref": {}}, "recipe.adapters.0.ref", "nothing"),
    ),
)
def test_what_can_not_be_attached_is_told_at_its_field(api: Api, use: dict[str, Any], field: str, word: str) -> None:
    recipe = {"model": {"name": "small"}, "prompt": "a", "adapters": [use]}
    status, error = api.refused("POST", "/resolve", {"recipe": recipe})
    told = {each["field"]: each["what"] for each in error["problems"]}
    assert status == 422 and word in told[field], error


def test_tokens_count_embeddings_that_fit(api: Api) -> None:
    known = ids(api)
    text = "a house, (spark:1.2), zap"
    told = api.post("/tokens", {"text": text, "model": known["small"]})
    plain = api.post("/tokens", {"text": text, "model": known["large"]})
    words = {word: len(builtin_tokenizer().encode(word)) for word in ("a house, , ", "spark", "zap")}
    assert told["count"] == words["a house, , "] + 3 + words["zap"]
    assert plain["count"] == words["a house, , "] + words["spark"] + 2
    (spark,) = told["networks"]
    assert (spark["kind"], spark["name"], spark["known"]) == ("embedding", "spark", True)
    assert text[spark["start"] : spark["end"]] == "spark"
    assert [each["name"] for each in plain["networks"]] == ["zap"]
