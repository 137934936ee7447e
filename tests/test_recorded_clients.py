"""Requests as SillyTavern and Open WebUI send them, in their order and with all that they send, to a real server."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from door_server import PROMPT, Server, serving
from PIL import Image
from starters import CHECKPOINTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("recorded") / "home") as running:
        yield running


def picture(encoded: str) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as shown:
        return shown.format, shown.size


# --- SillyTavern: its server asks with Basic, empty if the user has set no password


@pytest.fixture
def tavern(server: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Basic {base64.b64encode(b':').decode()}", "User-Agent": "node-fetch"}
    with server.client(headers=headers) as client:
        yield client


def test_sillytavern_connects(tavern: httpx.Client) -> None:
    def names(path: str, field: str) -> list[str]:
        answer = tavern.get(f"/sdapi/v1/{path}")
        assert answer.is_success
        return [each[field] for each in answer.json()]

    assert tavern.get("/sdapi/v1/options").is_success  # its ping
    titles = names("sd-models", "title")
    assert tavern.get("/sdapi/v1/options").json()["sd_model_checkpoint"] in titles
    upscalers, latent = names("upscalers", "name"), names("latent-upscale-modes", "name")
    assert [*upscalers[:1], *latent, *upscalers[1:]][0] == "None"
    assert "Euler a" in names("samplers", "name") and "automatic" in names("schedulers", "name")
    assert isinstance(names("sd-vae", "model_name"), list) and isinstance(names("sd-modules", "model_name"), list)


def test_sillytavern_chooses_a_model_and_asks_whether_it_is_loaded(tavern: httpx.Client) -> None:
    title = tavern.get("/sdapi/v1/sd-models").json()[0]["title"]
    assert tavern.post("/sdapi/v1/options", json={"sd_model_checkpoint": title}).is_success
    told = tavern.get("/sdapi/v1/progress").json()
    assert (told["progress"], told["state"]["job_count"]) == (0.0, 0)


def test_sillytavern_makes_a_picture(tavern: httpx.Client) -> None:
    assert "forge_preset" not in tavern.get("/sdapi/v1/options").json()
    body = {
        "url": "http://localhost:7860", "auth": "user:secret",
        "prompt": PROMPT, "negative_prompt": "lowres, bad anatomy", "sampler_name": "Euler a", "scheduler": "normal",
        "steps": 4, "cfg_scale": 7, "width": 128, "height": 128, "restore_faces": False, "enable_hr": False,
        "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": [], "denoising_strength": 0.7,
        "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
        "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True,
        "do_not_save_grid": False, "do_not_save_samples": False,
        "alwayson_scripts": {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}},
    }  # fmt: skip
    answer = tavern.post("/sdapi/v1/txt2img", json=body)
    assert answer.is_success and "secret" not in answer.text
    assert picture(answer.json()["images"][0]) == ("PNG", (128, 128))
    assert json.loads(answer.json()["info"])["scheduler"] == "Normal"


def test_sillytavern_stops_what_its_user_no_longer_wants(tavern: httpx.Client) -> None:
    assert tavern.post("/sdapi/v1/interrupt").is_success  # without a body


# --- Open WebUI


@pytest.fixture
def webui(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_open_webui_checks_lists_and_sets_the_model_of_a1111(webui: httpx.Client) -> None:
    headers = {"authorization": ""}
    assert webui.get("/sdapi/v1/options", headers=headers).is_success
    first = webui.get("/sdapi/v1/sd-models", headers=headers).json()[0]["title"]
    # Used once, as the title of a model has no hash before.
    assert webui.post("/sdapi/v1/options", json={"sd_model_checkpoint": first}, headers=headers).is_success
    models = [(each["title"], each["model_name"]) for each in webui.get("/sdapi/v1/sd-models", headers=headers).json()]
    options = webui.get("/sdapi/v1/options", headers=headers).json()
    options["sd_model_checkpoint"] = models[0][0]
    assert webui.post("/sdapi/v1/options", json=options, headers=headers).is_success
    assert webui.get("/sdapi/v1/options").json() == options


def test_open_webui_makes_pictures_with_a1111(webui: httpx.Client) -> None:
    body = {"prompt": PROMPT, "batch_size": 2, "width": 128, "height": 128, "steps": 4, "negative_prompt": "dark"}
    told = webui.post("/sdapi/v1/txt2img", json=body, headers={"authorization": ""}).json()
    assert [picture(image) for image in told["images"]] == [("PNG", (128, 128))] * 2
    assert isinstance(told["info"], str)


@pytest.mark.parametrize("asked", [{"response_format": "b64_json"}, {}])
def test_open_webui_makes_pictures_with_openai(webui: httpx.Client, asked: dict[str, str]) -> None:
    headers = {"Authorization": "Bearer sk-none", "Content-Type": "application/json"}
    body = {"model": "gpt-image-1.5", "prompt": PROMPT, "n": 1, "size": "128x128", **asked}
    answer = webui.post("/v1/images/generations", json=body, headers=headers)
    (image,) = answer.json()["data"]
    if asked:
        assert "url" not in image and picture(image["b64_json"])[1] == (128, 128)
    else:  # it takes the address where there is one, and sends its key along
        shown = webui.get(image["url"], headers={"Authorization": "Bearer sk-none"})
        assert shown.headers["content-type"].split("/")[0] == "image"


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_open_webui_edits_a_picture(webui: httpx.Client, field: str) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((128, 128)).convert("RGB").save(buffer, "PNG")
    files = [(field, ("image.png", buffer.getvalue(), "image/png"))]
    form: dict[str, Any] = {"model": "gpt-image-1", "prompt": PROMPT, "n": "1", "size": "128x128"}
    answer = webui.post(
        "/v1/images/edits?api-version=2026-01-01",
        data={**form, "response_format": "b64_json"},
        files=files,
        headers={"Authorization": "Bearer sk-none"},
    )
    assert answer.is_success, answer.text
    assert picture(answer.json()["data"][0]["b64_json"])[1] == (128, 128)


def test_open_webui_finds_the_models_and_no_voices(webui: httpx.Client) -> None:
    assert [model["id"] for model in webui.get("/v1/models").json()["data"]] == sorted(CHECKPOINTS)
    assert webui.get("/v1/audio/voices").json() == {"voices": []}
    answer = webui.post("/v1/chat/completions", json={"model": "starter-image", "messages": []})
    assert answer.status_code == 404 and answer.json()["error"]["message"]


# --- plug-ins of painting programs: masks as base64 without a type, everything spelled out


def test_a_painting_program_fills_a_selection(webui: httpx.Client) -> None:
    buffer, white = io.BytesIO(), io.BytesIO()
    Image.linear_gradient("L").resize((128, 128)).convert("RGB").save(buffer, "PNG")
    selection = Image.new("L", (128, 128))
    selection.paste(255, (0, 0, 64, 128))
    selection.save(white, "PNG")
    body = {
        "prompt": PROMPT, "negative_prompt": "", "sampler_name": "DPM++ SDE Karras", "steps": 4, "cfg_scale": 7,
        "seed": -1, "batch_size": 1, "n_iter": 1, "width": 128, "height": 128, "resize_mode": 1,
        "init_images": [base64.b64encode(buffer.getvalue()).decode()],
        "mask": base64.b64encode(white.getvalue()).decode(), "mask_blur": 0, "inpainting_fill": 1,
        "inpaint_full_res": False, "inpaint_full_res_padding": 32, "inpainting_mask_invert": 0,
        "denoising_strength": 0.8, "override_settings": {}, "override_settings_restore_afterwards": False,
        "alwayson_scripts": {"ControlNet": {"args": []}}, "save_images": False, "include_init_images": False,
    }  # fmt: skip
    told = webui.post("/sdapi/v1/img2img", json=body).json()
    assert picture(told["images"][0]) == ("PNG", (128, 128))
    assert json.loads(told["info"])["sampler_name"] == "DPM++ SDE"
