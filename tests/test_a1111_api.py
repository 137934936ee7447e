"""What clients of A1111 depend on, asked of a real server: the same bytes as the command line, JSON always."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from door_server import PROMPT, Server, made_by_command, serving, until
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starters import CHECKPOINTS

from bottega.families import family
from bottega.formats import media
from bottega.recipe import read_recipe

pytestmark = pytest.mark.slow

QUICK = {"prompt": PROMPT, "steps": 3, "seed": 7, "width": 128, "height": 128}
LONG = {**QUICK, "steps": 400}
INFO = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed", "all_subseeds",
    "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size", "restore_faces",
    "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w",
    "seed_resize_from_h", "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts",
    "styles", "job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("a1111") / "home"
    (home / "models" / "toys").mkdir(parents=True)
    family("sd1").toy(home / "models" / "toys" / "toy.safetensors")
    with serving(home) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def post(api: httpx.Client, path: str, **body: Any) -> Any:
    answer = api.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(api: httpx.Client, path: str, status: int, **body: Any) -> str:
    answer = api.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "detail", "body", "errors"}
    return str(told["detail"])


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def picture() -> bytes:
    gradient = Image.linear_gradient("L").resize((128, 128))
    return png(Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))))


@pytest.fixture(scope="module")
def mask() -> bytes:
    white = Image.new("L", (128, 128))
    white.paste(255, (32, 32, 96, 96))
    return png(white)


# --- the same as the command line


def test_txt2img_makes_the_bytes_that_the_command_line_makes(api: httpx.Client, tmp_path: Path) -> None:
    body = {"sampler_name": "DPM++ 2M Karras", "negative_prompt": "dark", "cfg_scale": 5}
    (image,) = post(api, "txt2img", **QUICK, **body)["images"]
    content = base64.b64decode(image, validate=True)
    words = ("--steps", "3", "--seed", "7", "--size", "128x128", "--sampler", "DPM++ 2M", "--schedule", "Karras")
    expected = made_by_command(tmp_path / "home", tmp_path, *words, "--negative", "dark", "--cfg", "5")
    assert content == expected
    (tmp_path / "api.png").write_bytes(content)
    recipe = read_recipe(media.read(tmp_path / "api.png").recipe or "")
    assert recipe.digest == read_recipe(media.read(tmp_path / "made.png").recipe or "").digest


def test_inpainting_makes_the_bytes_that_the_command_line_makes(
    api: httpx.Client, tmp_path: Path, picture: bytes, mask: bytes
) -> None:
    (tmp_path / "init.png").write_bytes(picture)
    (tmp_path / "mask.png").write_bytes(mask)
    body = {"init_images": [text_of(picture)], "mask": text_of(mask), "mask_blur": 2, "inpainting_fill": 0}
    (image,) = post(api, "img2img", **QUICK, **body, denoising_strength=0.8, inpaint_full_res=False)["images"]
    words = ("--steps", "3", "--seed", "7", "--size", "128x128", "--strength", "0.8", "--set", "mask_blur=2")
    files = ("--init", str(tmp_path / "init.png"), "--mask", str(tmp_path / "mask.png"))
    expected = made_by_command(tmp_path / "home", tmp_path, *words, *files, "--set", "masked_content=fill")
    assert base64.b64decode(image) == expected


# --- what txt2img answers


def test_info_is_json_within_json_with_all_its_keys(api: httpx.Client) -> None:
    answer = api.post("/sdapi/v1/txt2img", json={**QUICK, "batch_size": 1, "n_iter": 2})
    told = answer.json()
    assert len(answer.headers["X-Job-Id"]) == 20
    assert isinstance(told["info"], str) and not told["images"][0].startswith("data:")
    info = json.loads(told["info"])
    assert set(info) >= INFO
    assert info["all_seeds"] == [7, 8] and info["seed"] == 7
    assert info["batch_size"] == 1 and info["index_of_first_image"] == 0
    assert len(info["infotexts"]) == len(told["images"]) == 2
    assert "Seed: 8" in info["infotexts"][1]
    assert told["parameters"]["steps"] == 3


def test_a_seed_of_minus_one_is_drawn_and_told(api: httpx.Client) -> None:
    seeds = {json.loads(post(api, "txt2img", **{**QUICK, "seed": -1})["info"])["seed"] for _ in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


def test_pictures_are_left_out_when_they_are_not_wanted(api: httpx.Client) -> None:
    told = post(api, "txt2img", **QUICK, send_images=False)
    assert told["images"] == []
    assert len(json.loads(told["info"])["infotexts"]) == 1


@pytest.mark.parametrize(("format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_the_format_of_the_options(api: httpx.Client, format: str, kind: str) -> None:
    told = post(api, "txt2img", **QUICK, override_settings={"samples_format": format})
    content = base64.b64decode(told["images"][0])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == kind
    assert post(api, "png-info", image=told["images"][0])["info"].startswith(PROMPT)


def test_a_variation_counts_its_own_seeds(api: httpx.Client) -> None:
    info = json.loads(post(api, "txt2img", **QUICK, subseed=3, subseed_strength=0.4, batch_size=2)["info"])
    assert (info["all_seeds"], info["all_subseeds"]) == ([7, 7], [3, 4])


def test_what_is_left_out_is_said_in_info(api: httpx.Client) -> None:
    scripts = {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}}
    info = json.loads(post(api, "txt2img", **QUICK, alwayson_scripts=scripts)["info"])
    assert any("ADetailer" in warning for warning in info["warnings"])


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"prompt": "a house <lora:nothing:0.8>"}, "lora:nothing"),
        ({"enable_hr": True}, "enable_hr"),
        ({"sampler_name": "Nonsense"}, "sampler_name"),
        ({"scheduler": "Nonsense"}, "scheduler"),
        ({"steps": 0}, "steps"),
        ({"width": 32}, "width"),
        ({"steps": "many"}, "steps"),
        ({"override_settings": {"sd_vae": "no-such-vae"}}, "no-such-vae"),
        ({"override_settings": {"rho": 0.05}}, "rho"),
        ({"override_settings": {"sigma_min": 100, "sigma_max": 1}}, "sigma_min: 100"),
        ({"steps": 501}, "steps"),
        ({"batch_size": 13, "n_iter": 5}, "batch_size * n_iter: 65"),
        ({"batch_size": -1, "n_iter": -1}, "batch_size: -1 is less than 1 | n_iter: -1 is less than 1"),
        ({"n_iter": 0}, "n_iter: 0"),
        ({"width": 8192, "height": 4096}, "width"),
    ],
)
def test_what_cannot_be_made_is_said_in_a1111s_envelope(api: httpx.Client, body: dict[str, Any], word: str) -> None:
    answer = api.post("/sdapi/v1/txt2img", json={**QUICK, **body})
    assert answer.status_code in (404, 422) and set(answer.json()) == {"error", "detail", "body", "errors"}
    assert word in answer.json()["detail"]


# --- pictures without words


def test_nothing_of_a_request_is_needed_for_a_picture(server: Server, tmp_path: Path) -> None:
    with server.client() as api, server.owner() as owner:
        told = post(api, "txt2img")
        (tmp_path / "made.png").write_bytes(base64.b64decode(told["images"][0]))
        recipe = read_recipe(media.read(tmp_path / "made.png").recipe or "")
        assert recipe.prompt == json.loads(told["info"])["prompt"] == ""
        assert post(api, "png-info", image=told["images"][0])["info"].startswith("Steps: ")
        again = owner.post("/api/resolve", json={"recipe": json.loads(recipe.to_json())})
        assert again.json()["digest"] == recipe.digest
    replay = [sys.executable, "-m", "bottega", "replay", str(tmp_path / "made.png"), "--check"]
    assert subprocess.run(replay, env={**os.environ, "BOTTEGA_HOME": str(tmp_path / "home")}).returncode == 0


def test_a_picture_is_changed_without_words(api: httpx.Client, picture: bytes, mask: bytes) -> None:
    body = {**QUICK, "prompt": "", "init_images": [text_of(picture)]}
    assert len(post(api, "img2img", **body)["images"]) == 1
    assert len(post(api, "img2img", **body, mask=text_of(mask))["images"]) == 1


# --- pictures that come with a request


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
def test_a_picture_may_come_with_its_type_or_without(api: httpx.Client, picture: bytes, before: str) -> None:
    told = post(api, "img2img", **QUICK, init_images=[before + text_of(picture)], denoising_strength=0.5)
    info = json.loads(told["info"])
    assert info["denoising_strength"] == 0.5
    assert told["parameters"]["init_images"] is None


def test_without_a_picture_there_is_no_img2img(api: httpx.Client) -> None:
    assert refused(api, "img2img", 404, **QUICK) == "Init image not found"


@pytest.mark.parametrize("image", ["nonsense!", text_of(b"<svg/>"), text_of(b"\x89PNG\r\n\x1a\n")])
def test_what_is_no_picture_is_refused(api: httpx.Client, image: str) -> None:
    assert "init_images" in refused(api, "img2img", 422, **QUICK, init_images=[image])


def test_an_address_of_this_machine_is_not_fetched(api: httpx.Client, server: Server) -> None:
    assert "init_images" in refused(api, "img2img", 422, **QUICK, init_images=[f"{server.url}/health"])


def test_a_mask_may_be_inverted_or_painted_on_a_transparent_ground(
    api: httpx.Client, picture: bytes, mask: bytes
) -> None:
    white = Image.open(io.BytesIO(mask))
    inverted = png(white.point(lambda value: 255 - value))
    painted = Image.new("RGBA", white.size, (0, 0, 0, 0))
    painted.paste((9, 9, 9, 255), (32, 32, 96, 96))
    body = {**QUICK, "init_images": [text_of(picture)], "inpaint_full_res": False}
    plain = post(api, "img2img", **body, mask=text_of(mask))
    turned = post(api, "img2img", **body, mask=text_of(inverted), inpainting_mask_invert=1)
    transparent = post(api, "img2img", **body, mask=text_of(png(painted)))
    assert pixels(plain) == pixels(turned) == pixels(transparent)


def pixels(told: Any) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(told["images"][0]))) as picture:
        return picture.tobytes()


def test_a_picture_of_another_shape_is_cropped_or_filled(api: httpx.Client, picture: bytes) -> None:
    wide = Image.open(io.BytesIO(picture)).resize((256, 128))
    body = {**QUICK, "init_images": [text_of(png(wide))], "denoising_strength": 0.3}
    made = {mode: pixels(post(api, "img2img", **body, resize_mode=mode)) for mode in (0, 1, 2)}
    assert len(set(made.values())) == 3
    assert "resize_mode" in refused(api, "img2img", 422, **body, resize_mode=3)
    for size in ({"width": 10**6, "height": 10**6}, {"width": -8, "height": 128}, {"width": 0}):
        refused(api, "img2img", 422, **{**body, **size}, resize_mode=1)
    middle = png(wide.crop((64, 0, 192, 128)))
    cropped = post(api, "img2img", **{**body, "init_images": [text_of(middle)]}, resize_mode=0)
    assert pixels(cropped) == made[1]


# --- options and models


def test_the_whole_of_the_options_is_taken_back(api: httpx.Client) -> None:
    told = api.get("/sdapi/v1/options").json()
    assert post(api, "options", **told) == {}
    assert api.get("/sdapi/v1/options").json() == told
    assert told["sd_model_checkpoint"] in [model["title"] for model in api.get("/sdapi/v1/sd-models").json()]
    assert "forge_preset" not in told


def test_a_model_is_chosen_by_its_title_and_stays_chosen(api: httpx.Client) -> None:
    (toy,) = [model for model in api.get("/sdapi/v1/sd-models").json() if model["model_name"] == "toy"]
    before = api.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    post(api, "options", sd_model_checkpoint=toy["title"])
    try:
        (toy,) = [model for model in api.get("/sdapi/v1/sd-models").json() if model["model_name"] == "toy"]
        assert toy["title"] == f"toys/toy.safetensors [{toy['hash']}]"
        told = api.get("/sdapi/v1/options").json()
        assert (told["sd_model_checkpoint"], told["sd_checkpoint_hash"]) == (toy["title"], toy["sha256"])
        assert json.loads(post(api, "txt2img", **QUICK)["info"])["sd_model_name"] == "toy"
        once = post(api, "txt2img", **QUICK, override_settings={"sd_model_checkpoint": before})
        assert json.loads(once["info"])["sd_model_name"] == "starter-image"
        assert api.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == toy["title"]
    finally:
        post(api, "options", sd_model_checkpoint=before)


def test_overrides_that_are_not_to_be_restored_stay(api: httpx.Client) -> None:
    override = {"CLIP_stop_at_last_layers": 2}
    post(api, "txt2img", **QUICK, override_settings=override)
    before = api.get("/sdapi/v1/options").json()
    assert before["CLIP_stop_at_last_layers"] == 1
    post(api, "txt2img", **QUICK, override_settings=override, override_settings_restore_afterwards=False)
    try:
        assert api.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    finally:
        post(api, "options", **before)


@pytest.mark.parametrize("name", ["nothing", "../../etc/passwd", "/etc/passwd", 5])
def test_a_model_that_is_not_there_is_refused(api: httpx.Client, name: Any) -> None:
    answer = api.post("/sdapi/v1/options", json={"sd_model_checkpoint": name})
    # Whatever lies at a path, nothing on record is called so: it isn't looked at.
    assert answer.status_code == (404 if isinstance(name, str) else 422)
    assert "model" in answer.json()["detail"]


# --- progress, interrupt, skip


def in_background(api: httpx.Client, **body: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    url = str(api.base_url)

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120.0) as client:
            answers.append(post(client, "txt2img", **body))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def progress(api: httpx.Client, **query: Any) -> Any:
    return api.get("/sdapi/v1/progress", params=query).json()


def idle(api: httpx.Client) -> bool:
    told = progress(api)
    return bool(told["progress"] == 0.0 and told["state"]["job_count"] == 0)


def test_progress_tells_of_steps_and_shows_a_preview(api: httpx.Client) -> None:
    assert idle(api)
    thread, answers = in_background(api, **LONG, force_task_id="task(mine)")
    told = until(lambda: (now := progress(api))["state"]["sampling_step"] > 5 and now)
    assert 0 < told["progress"] < 1 and told["state"]["job_count"] == 1 and told["eta_relative"] > 0
    assert told["state"]["sampling_steps"] == 400
    shown = until(lambda: progress(api)["current_image"])
    with Image.open(io.BytesIO(base64.b64decode(shown, validate=True))) as preview:
        assert preview.size == (128, 128)
    assert progress(api, skip_current_image=True)["current_image"] is None
    own = api.post("/internal/progress", json={"id_task": "task(mine)", "id_live_preview": -1}).json()
    assert own["active"] and own["live_preview"].startswith("data:image/png;base64,")
    assert progress(api)["progress"] >= told["progress"]
    assert post(api, "interrupt") == {}
    thread.join()
    (answer,) = answers
    assert answer["images"] == [] and "interrupted" in json.loads(answer["info"])["warnings"][0]
    assert idle(api)
    assert api.post("/internal/progress", json={"id_task": "task(mine)"}).json()["completed"]


def test_skip_gives_one_picture_up_and_goes_on(api: httpx.Client) -> None:
    name = {"id_task": "task(skipped)"}
    thread, answers = in_background(api, **{**LONG, "steps": 60}, n_iter=3, force_task_id=name["id_task"])
    until(lambda: progress(api)["state"]["job_no"] == 1 and progress(api)["state"]["sampling_step"] > 0)
    told = [progress(api)]
    post(api, "skip")
    told.append(progress(api))
    assert told[1]["state"]["skipped"] or told[1]["state"]["job_no"] >= 2  # a busy machine asks late

    def is_over() -> bool:
        is_completed = api.post("/internal/progress", json=name).json()["completed"]
        told.append(progress(api))
        assert not is_completed or not told[-1]["state"]["job_count"]
        return not thread.is_alive()

    until(is_over)
    while not told[-1]["state"]["job_count"]:
        told.pop()
    shares = [each["progress"] for each in told]
    assert shares == sorted(shares) and {each["state"]["job_count"] for each in told} == {3}
    assert told[-1]["state"]["job_no"] >= 2 and not any(each["state"]["interrupted"] for each in told)
    assert json.loads(answers[0]["info"])["all_seeds"] == [7, 9]
    assert "skipped" in json.loads(answers[0]["info"])["warnings"][0]


def test_what_the_user_makes_elsewhere_is_left_alone(api: httpx.Client, server: Server) -> None:
    recipe = {"prompt": PROMPT, "sampling": {"steps": 200}, "size": {"width": 128, "height": 128}}
    with server.owner() as owner:
        job = owner.post("/api/jobs", json={"recipe": recipe}).json()["id"]
    until(server.running)
    assert idle(api)
    post(api, "interrupt")
    post(api, "skip")
    assert server.running() == [job]
    server.cancel(job)


def test_a_client_that_goes_away_takes_its_job_with_it(api: httpx.Client, server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=server.url, timeout=1.0) as client:
        client.post("/sdapi/v1/txt2img", json=LONG)
    assert server.open_jobs() == 1  # it may come back
    until(lambda: server.open_jobs() == 0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the worker")
def test_a_worker_that_dies_costs_its_client_nothing_but_time(api: httpx.Client, server: Server) -> None:
    thread, answers = in_background(api, **{**QUICK, "steps": 60})
    until(server.running)
    pid = json.loads((server.home / "serve.json").read_text())["pid"]
    told = [each.read_text().split() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for children in told for child in children}
    (worker,) = [child for child, command in commands.items() if "bottega.worker\0make" in command]
    os.kill(worker, signal.SIGKILL)
    thread.join()
    assert len(answers[0]["images"]) == 1


# --- everything else that is asked


@pytest.mark.parametrize(
    "path",
    [
        "progress", "options", "cmd-flags", "samplers", "schedulers", "upscalers", "latent-upscale-modes", "sd-models",
        "sd-modules", "sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "embeddings",
        "memory", "scripts", "script-info", "extensions", "loras",
    ],
)  # fmt: skip
def test_whatever_clients_ask_for_at_their_start_is_there(api: httpx.Client, path: str) -> None:
    answer = api.get(f"/sdapi/v1/{path}")
    assert answer.status_code == 200 and answer.json() is not None


@pytest.mark.parametrize(
    "path",
    [
        "interrupt", "skip", "refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings",
        "unload-checkpoint", "reload-checkpoint",
    ],
)  # fmt: skip
def test_what_is_told_to_be_done_answers_with_json(api: httpx.Client, path: str) -> None:
    answer = api.post(f"/sdapi/v1/{path}")  # without a body, as webuiapi sends it
    assert (answer.status_code, answer.json()) == (200, {})


def test_unload_checkpoint_frees_the_memory_of_models(server: Server, api: httpx.Client) -> None:
    def held() -> list[Any]:
        with server.owner() as owner:
            told = owner.get("/api/system").json()
        return [model for device in told["devices"] for model in device["models"]]

    post(api, "txt2img", **QUICK)
    assert held()
    assert post(api, "unload-checkpoint") == {} and not held()
    post(api, "txt2img", **QUICK)


def test_lists_have_the_shapes_that_clients_read(api: httpx.Client) -> None:
    def get(path: str) -> Any:
        return api.get(f"/sdapi/v1/{path}").json()

    assert {"name", "aliases", "options"} == set(get("samplers")[0])
    assert "DPM++ 2M Karras" in next(each["aliases"] for each in get("samplers") if each["name"] == "DPM++ 2M")
    assert {"name", "label", "aliases", "default_rho", "need_inner_model"} == set(get("schedulers")[0])
    assert get("schedulers")[0]["name"] == "automatic"
    assert get("upscalers")[0]["name"] == "None"
    assert get("scripts") == {"txt2img": [], "img2img": []}
    assert set(get("embeddings")) == {"loaded", "skipped"}
    assert {"title", "model_name", "hash", "sha256", "filename", "config"} == set(get("sd-models")[0])
    assert set(get("memory")) == {"ram", "cuda"} and get("memory")["ram"]["total"] > 0


def test_the_names_of_samplers_and_schedules_are_taken_as_they_are_told(api: httpx.Client) -> None:
    schedules = [each["name"] for each in api.get("/sdapi/v1/schedulers").json()]
    schedules += [each["label"] for each in api.get("/sdapi/v1/schedulers").json()]
    for name in schedules:
        info = json.loads(post(api, "txt2img", **{**QUICK, "steps": 1}, sampler_name="Euler", scheduler=name)["info"])
        assert info["scheduler"]


def test_png_info_of_a_picture_that_carries_nothing(api: httpx.Client, picture: bytes) -> None:
    told = post(api, "png-info", image=f"data:image/png;base64,{text_of(picture)}")
    assert told == {"info": "", "items": {}, "parameters": {}}
    assert refused(api, "png-info", 404, image=" ") == "Image not found"


def test_png_info_keeps_the_texts_of_all_programs(api: httpx.Client) -> None:
    said = {
        "prompt": '{"1": {}}',
        "workflow": "{}",
        "invokeai_metadata": "{}",
        "Software": "NovelAI",
        "Comment": '{"steps": 28}',
        "Author": "me",
    }
    told = PngInfo()
    for name, words in said.items():
        told.add_text(name, words)
    content = io.BytesIO()
    Image.new("RGB", (64, 96)).save(content, "PNG", pnginfo=told)
    answer = post(api, "png-info", image=text_of(content.getvalue()))
    assert {name: words for name, words in answer["items"].items() if name != "parameters"} == said
    assert "Size: 64x96" in answer["items"]["parameters"] == answer["info"]
    ours = base64.b64decode(post(api, "txt2img", **QUICK)["images"][0])
    assert set(post(api, "png-info", image=text_of(ours))["items"]) == {"bottega", "parameters"}


@pytest.mark.parametrize("side", [128, 60_000])
def test_png_info_reads_no_pixels(api: httpx.Client, side: int) -> None:
    head, pixels = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), zlib.compress(bytes(1000))
    chunks = ((b"IHDR", head), (b"tEXt", b"parameters\0a house"), (b"IDAT", pixels), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    assert post(api, "png-info", image=text_of(content))["info"] == "a house"
    assert "cut short" in refused(api, "png-info", 422, image=text_of(content[:-8]))


def test_crafts_that_are_not_there_say_so(api: httpx.Client, picture: bytes) -> None:
    image = text_of(picture)
    assert "describes pictures" in refused(api, "interrogate", 422, image=image, model="clip")
    assert "enlarges" in refused(api, "extra-single-image", 422, image=image)
    assert "enlarges" in refused(api, "extra-batch-images", 422, imageList=[])
    assert "trains" in refused(api, "create/embedding", 422, name="x")
    for path in ("server-kill", "server-stop", "server-restart"):
        assert "not ended" in refused(api, path, 403)


def test_controlnet_is_answered_as_a_server_without_models_would(api: httpx.Client, picture: bytes) -> None:
    def get(path: str) -> Any:
        return api.get(f"/controlnet/{path}").json()

    assert get("version") == {"version": 2}
    assert get("model_list?update=true") == {"model_list": []}
    assert get("module_list?alias_names=true") == {"module_list": ["none"], "module_detail": {}}
    assert set(get("control_types")["control_types"]["All"]) == {
        "module_list", "model_list", "default_option", "default_model",
    }  # fmt: skip
    assert "control_net_unit_count" in get("settings")
    for field in ("controlnet_input_images", "controlnet_images"):
        body = {"controlnet_module": "none", field: [f"data:image/png;base64,{text_of(picture)}"]}
        told = api.post("/controlnet/detect", json=body).json()
        assert told == {"images": [text_of(picture)], "info": "Success"}
    answer = api.post("/controlnet/detect", json={"controlnet_module": "canny", "controlnet_images": ["x"]})
    assert answer.status_code == 422 and "canny" in answer.json()["detail"]


def test_the_page_of_a1111_finds_its_server(api: httpx.Client) -> None:
    assert api.get("/internal/ping").json() == {}
    assert api.get("/internal/pending-tasks").json() == {"size": 0, "tasks": []}
    sysinfo = api.get("/internal/sysinfo")
    assert "Version" in sysinfo.json() and "/home" not in sysinfo.text


@pytest.mark.parametrize("path", ["/sdapi/v1/nothing", "/controlnet/nothing", "/internal/nothing"])
def test_a_path_that_is_not_there_is_said_in_a1111s_envelope(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 404 and set(answer.json()) == {"error", "detail", "body", "errors"}


def test_a_body_that_is_no_json_is_refused(api: httpx.Client) -> None:
    answer = api.post("/sdapi/v1/txt2img", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and "detail" in answer.json()


def test_a_file_that_was_put_on_a_shelf_is_there_after_a_refresh(api: httpx.Client, server: Server) -> None:
    toys = server.home / "models" / "toys"
    (toys / "later.safetensors").write_bytes((toys / "toy.safetensors").read_bytes())
    try:
        assert api.post("/sdapi/v1/refresh-checkpoints").json() == {}
        assert "later" in [model["model_name"] for model in api.get("/sdapi/v1/sd-models").json()]
    finally:
        (toys / "later.safetensors").unlink()
        api.post("/sdapi/v1/refresh-checkpoints")
    assert "later" not in [model["model_name"] for model in api.get("/sdapi/v1/sd-models").json()]


def test_a_refresh_does_not_wait_for_a_queue_that_rests(api: httpx.Client, server: Server) -> None:
    with server.owner() as owner:
        owner.post("/api/queue/pause", json={}).raise_for_status()
        try:
            assert api.post("/sdapi/v1/refresh-loras", timeout=60).json() == {}
        finally:
            owner.post("/api/queue/resume", json={}).raise_for_status()


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_a_model_that_no_recipe_can_name_breaks_no_list(api: httpx.Client, server: Server) -> None:
    toys = server.home / "models" / "toys"
    odd = os.fsencode(toys) + b"/odd\xff.safetensors"
    with open(odd, "wb") as file:
        file.write((toys / "toy.safetensors").read_bytes())
    try:
        api.post("/sdapi/v1/refresh-checkpoints")
        assert "toy" in [model["model_name"] for model in api.get("/sdapi/v1/sd-models").json()]
        assert [model["id"] for model in api.get("/v1/models").json()["data"]] == sorted({*CHECKPOINTS, "toy"})
    finally:
        os.unlink(odd)
        api.post("/sdapi/v1/refresh-checkpoints")
