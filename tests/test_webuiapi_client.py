"""The PyPI client `webuiapi`, unchanged, against a real server: everything that it is used for with pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import webuiapi
from door_server import PROMPT, Server, serving
from PIL import Image, ImageChops
from starters import CHECKPOINTS

from bottega.api.access.accounts import Accounts
from bottega.families import family
from bottega.settings import Settings

pytestmark = pytest.mark.slow

QUICK = {"prompt": PROMPT, "steps": 3, "seed": 7, "width": 128, "height": 128}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("webuiapi") / "home"
    (home / "models").mkdir(parents=True)
    family("sd1").toy(home / "models" / "toy.safetensors")
    with serving(home) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[webuiapi.WebUIApi]:
    api = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
    with closing(api.session):
        yield api


def test_its_first_call_finds_a_server_without_extensions(api: webuiapi.WebUIApi) -> None:
    assert not (api.has_controlnet or api.has_adetailer or api.has_animatediff)
    assert api.get_scripts() == {"txt2img": [], "img2img": []}


def test_it_lists(api: webuiapi.WebUIApi) -> None:
    titles = [title.partition(" [")[0] for title in api.util_get_model_names()]
    assert titles == [f"{name}.safetensors" for name in sorted({*CHECKPOINTS, "toy"})]
    assert "DPM++ 2M" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    assert api.get_upscalers()[0]["name"] == "None"
    for empty in (
        api.get_latent_upscale_modes, api.get_face_restorers, api.get_realesrgan_models, api.get_prompt_styles,
        api.get_sd_vae,
    ):  # fmt: skip
        assert empty() == []
    assert api.get_cmd_flags()["api"] and api.get_memory()["ram"]["total"] > 0
    assert set(api.get_embeddings()) == {"loaded", "skipped"}
    assert api.refresh_checkpoints() == {}
    assert (api.controlnet_version(), api.controlnet_model_list(), api.controlnet_module_list()) == (2, [], ["none"])


def test_it_chooses_a_model(api: webuiapi.WebUIApi) -> None:
    api.util_set_model("toy")
    try:
        assert api.util_get_current_model().startswith("toy.safetensors [")
        assert api.txt2img(**QUICK).info["sd_model_name"] == "toy"
    finally:
        api.util_set_model("starter-image")
    assert api.txt2img(**QUICK).info["sd_model_name"] == "starter-image"


def test_it_sets_options(api: webuiapi.WebUIApi) -> None:
    before = api.get_options()
    api.set_options({"CLIP_stop_at_last_layers": 2})
    try:
        assert api.txt2img(**QUICK).info["clip_skip"] == 2
    finally:
        api.set_options(before)
    assert api.get_options() == before
    assert api.txt2img(**QUICK).info["clip_skip"] == 1


def test_txt2img_with_all_that_it_always_sends(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(**QUICK, negative_prompt="dark", batch_size=2, sampler_name="Euler a", scheduler="Karras")
    assert [image.size for image in result.images] == [(128, 128)] * 2
    assert (result.info["all_seeds"], result.info["warnings"]) == ([7, 8], [])
    assert result.parameters["negative_prompt"] == "dark"


def test_img2img_and_inpainting(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(**QUICK).image
    varied = api.img2img(images=[made], **{**QUICK, "prompt": "a blue boat"}, denoising_strength=0.6)
    assert varied.image.size == (128, 128) and varied.info["denoising_strength"] == 0.6
    mask = Image.new("L", made.size)
    mask.paste(255, (64, 0, 128, 128))
    result = api.img2img(images=[made], mask_image=mask, prompt="a blue boat", seed=3, steps=4, mask_blur=0)
    assert result.image.size == made.size  # it asks for 512x512 and for "only masked", which keeps the picture's size
    changed = ImageChops.difference(made.convert("RGB"), result.image.convert("RGB")).getbbox()
    assert changed is not None and changed[0] >= 64


def test_progress_with_a_preview_then_skip_and_interrupt(api: webuiapi.WebUIApi, server: Server) -> None:
    results: list[Any] = []

    def make(**changes: Any) -> threading.Thread:
        def ask() -> None:
            own = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
            with closing(own.session):
                results.append(own.txt2img(**{**QUICK, **changes}))

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    thread = make(steps=400, n_iter=2)
    pause = threading.Event()
    while not (told := api.get_progress())["current_image"]:
        pause.wait(0.05)
    assert 0 < told["progress"] < 1 and told["state"]["job_count"] == 2
    assert api.skip() == {}
    while api.get_progress()["current_task"] == told["current_task"]:
        pause.wait(0.05)
    assert api.interrupt() == {}
    thread.join()
    assert results[0].images == [] and len(results[0].info["warnings"]) == 2
    api.util_wait_for_ready(check_interval=0.1)
    assert api.get_progress()["progress"] == 0.0


def test_png_info_of_what_was_made(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(**QUICK)
    told = api.png_info(made.image)
    assert told.info == made.info["infotexts"][0]
    assert told.parameters["Seed"] == "7"


def test_a_unit_of_controlnet_is_refused_and_does_not_come_back(api: webuiapi.WebUIApi) -> None:
    unit = webuiapi.ControlNetUnit(image=Image.new("RGB", (64, 64)), module="canny", model="control_canny")
    with pytest.raises(RuntimeError, match="ControlNet"):
        api.txt2img(**QUICK, controlnet_units=[unit], alwayson_scripts={})
    assert api.txt2img(**QUICK).info["warnings"] == []
    detected = api.controlnet_detect(images=[Image.new("RGB", (64, 64))], module="none")
    assert detected.image.size == (64, 64)


def test_what_is_not_there_is_told_as_an_error(api: webuiapi.WebUIApi) -> None:
    picture = Image.new("RGB", (64, 64))
    for call in (
        lambda: api.extra_single_image(picture),
        lambda: api.extra_batch_images([picture]),
        lambda: api.interrogate(picture),
        lambda: api.txt2img(**QUICK, enable_hr=True),
    ):
        with pytest.raises(RuntimeError) as refused:
            call()
        assert refused.value.args[0] == 422


def test_users_sign_in_with_basic_and_stop_only_their_own(tmp_path: Any) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with closing(Accounts(Settings(home).accounts)) as accounts:
        keys = {name: accounts.add(name) for name in ("ann", "ben")}
    with serving(home) as server:
        stranger = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
        with closing(stranger.session), pytest.raises(RuntimeError, match="401"):
            stranger.txt2img(**QUICK)
        users = {
            name: webuiapi.WebUIApi(host="127.0.0.1", port=server.port, username=name, password=key)
            for name, key in keys.items()
        }
        results: list[Any] = []
        with closing(users["ann"].session), closing(users["ben"].session):
            ann, ben = users["ann"], users["ben"]
            ann.set_options({"CLIP_stop_at_last_layers": 2})
            assert ben.get_options()["CLIP_stop_at_last_layers"] == 1
            thread = threading.Thread(target=lambda: results.append(ann.txt2img(**{**QUICK, "steps": 60})))
            thread.start()
            with server.client(auth=("ann", keys["ann"])) as watching:
                while watching.get("/sdapi/v1/progress").json()["state"]["sampling_step"] == 0:
                    threading.Event().wait(0.05)
            assert ben.get_progress()["state"]["job_count"] == 0
            ben.interrupt()
            ben.skip()
            thread.join()
            assert len(results[0].images) == 1
