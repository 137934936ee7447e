"""Recipes over HTTP: what is wrong is told at its field, and models and pictures are found by no path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from native import Api, studio
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.api.native.models import model_id
from bottega.engine.run import encode_output
from bottega.errors import FileError
from bottega.families import family
from bottega.library.scan import scan
from bottega.recipe import Recipe, Sampling, recipe_from
from bottega.recognisers import all_recognisers
from bottega.settings import Settings, read_settings, write_setting
from bottega.workshop import Workshop


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def picture(side: int = 64, colour: str = "teal", **saving: Any) -> bytes:
    content = BytesIO()
    Image.new("RGB", (side, side), colour).save(content, "png", **saving)
    return content.getvalue()


def take(api: Api, content: bytes, type: str = "image/png") -> Any:
    return api.post("/inputs", content, content_type=type, x_bottega_upload="1")


def problems(told: tuple[int, dict[str, Any]]) -> dict[str, str]:
    """What is wrong, by field, of a request that was refused for that."""
    status, error = told
    assert status == 422, error
    return {each["field"]: each["what"] for each in error["problems"]}


# --- resolving


def test_a_draft_is_resolved_as_everywhere_else(api: Api) -> None:
    draft = {"prompt": "a red house", "sampling": {"seed": 7}}
    told = api.post("/resolve", {"recipe": draft})
    again = api.shop.resolve(Recipe(prompt="a red house", sampling=Sampling(seed=7)))
    assert told["digest"] == again.digest
    assert told["recipe"] == again.model_dump(mode="json", exclude_none=True)
    assert told["plan"]["fits"] and told["plan"]["needed"] > 0


def test_all_problems_are_told_at_once_each_at_its_field(api: Api) -> None:
    wrong = {
        "prompt": "x",
        "sampling": {"sampler": "Oiler"},
        "size": {"width": 100, "height": 64},
        "knobs": {"nope": 1},
    }
    told = problems(api.refused("POST", "/resolve", {"recipe": wrong}))
    assert set(told) == {"recipe.sampling.sampler", "recipe.size.width", "recipe.knobs.nope"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"recipe": {"prompt": "x"}, "extra": 1}, "extra"),
        ({"recipe": {"prompt": "x", "promt": "y"}}, "recipe.promt"),
        ({"recipe": {"prompt": "x", "sampling": {"cfg": 7}}}, "recipe.sampling.cfg"),
        ({"recipe": {"prompt": 5}}, "recipe.prompt"),
        ({"recipe": {"prompt": "x", "count": "4"}}, "recipe.count"),
        ({"recipe": {"prompt": "x", "count": 65}}, "recipe.count"),
        ({"recipe": {"prompt": "x", "sampling": {"steps": 501}}}, "recipe.sampling.steps"),
        ({"recipe": {"prompt": "x", "sampling": {"seed": 2**63}}}, "recipe.sampling.seed"),
        ({"recipe": {"prompt": "x" * 20_001}}, "recipe.prompt"),
        ({"recipe": {"prompt": "x", "size": {"width": 8192, "height": 8192}}}, "recipe.size"),
        ({"recipe": {"prompt": "x", "model": {}}}, "recipe.model"),
        ({"recipe": {"prompt": "x", "adapters": [{"kind": "lora", "ref": {}}]}}, "recipe.adapters.0.ref"),
        ({"recipe": {"prompt": "x", "model": {"path": "/etc/passwd"}}}, "recipe.model.path"),
        ({"recipe": {"prompt": "x", "inputs": [{"role": "init"}]}}, "recipe.inputs.0"),
        ({"recipe": {"prompt": "x", "inputs": [{"role": "init", "sha256": "0" * 64}]}}, "recipe.inputs.0.sha256"),
        (
            {"recipe": {"prompt": "x", "inputs": [{"role": "init", "output": "0" * 20 + "-0"}]}},
            "recipe.inputs.0.output",
        ),
        ({"recipe": {"prompt": "x"}, "after": ["0" * 20]}, "after.0"),
        ({}, "recipe"),
    ],
    ids=str,
)
def test_what_can_not_be_meant_is_refused_by_name(api: Api, body: dict[str, Any], field: str) -> None:
    assert field in problems(api.refused("POST", "/jobs", body))
    assert api.get("/jobs")["total"] == 0


def test_a_picture_that_is_missing_is_asked_for_as_its_role(api: Api) -> None:
    status, error = api.refused("POST", "/resolve", {"recipe": {"prompt": "x", "task": "image-to-image"}})
    assert status == 422 and "give one as init" in error["problems"][0]["remedy"]


def test_the_largest_seed_is_as_it_is_told(api: Api) -> None:
    draft = {"prompt": "x", "sampling": {"seed": 2**63 - 2}}
    assert api.post("/resolve", {"recipe": draft})["recipe"]["sampling"]["seed"] == 2**63 - 2
    several = problems(api.refused("POST", "/resolve", {"recipe": {**draft, "count": 4}}))
    assert several == {"recipe.sampling.seed": f"{2**63 - 2} is not between 0 and {2**63 - 5}"}
    for seed in (2**63 - 1, 2**63):
        told = problems(api.refused("POST", "/resolve", {"recipe": {**draft, "sampling": {"seed": seed}}}))
        assert told == {"recipe.sampling.seed": "must be less than 9,223,372,036,854,775,807"}


def test_numbers_that_are_none_are_refused(api: Api) -> None:
    body = b'{"recipe": {"prompt": "x", "sampling": {"guidance": NaN}}}'
    assert api("POST", "/resolve", body, content_type="application/json").status in (400, 422)


# --- models


def test_a_model_is_meant_by_id_name_or_hash(api: Api) -> None:
    (starter,) = [each for each in api.get("/models")["items"] if each["name"] == "starter-image"]
    sha256 = api.post("/resolve", {"recipe": {"prompt": "x"}})["recipe"]["model"]["sha256"]
    for meant in (
        {"id": starter["id"]},
        {"name": "starter-image"},
        {"name": "STARTER-image.safetensors"},
        {"name": sha256[:10]},
        {"name": f"starter-image [{sha256[:10]}]"},
        {"name": "renamed since", "sha256": sha256},
        {"name": "starter-image", "sha256": sha256},
    ):
        told = api.post("/resolve", {"recipe": {"prompt": "x", "model": meant, "sampling": {"seed": 1}}})
        assert told["recipe"]["model"] == {"name": "starter-image", "sha256": sha256}


def test_an_unknown_model_is_not_found_and_the_nearest_are_named(api: Api) -> None:
    status, error = api.refused("POST", "/jobs", {"recipe": {"prompt": "x", "model": {"name": "starter-imige"}}})
    assert status == 404 and error["class"] == "UnknownModel" and "starter-image" in error["remedy"]
    assert [problem["field"] for problem in error["problems"]] == ["recipe.model"]


def test_a_model_that_is_gone_is_told_by_its_name_at_its_field(api: Api) -> None:
    (starter,) = [entry for entry in api.shop.catalog.entries() if entry.name == "starter-image"]
    gone = replace(starter, path=starter.shelf / "dragon.safetensors", kind="lora", sha256=None)
    api.shop.catalog.put([gone])
    api.shop.catalog.mark_missing([gone.path])
    for ref in ({"id": model_id(gone.path)}, {"name": "dragon"}):
        asked = {"prompt": "x", "adapters": [{"kind": "lora", "ref": ref}]}
        status, error = api.refused("POST", "/resolve", {"recipe": asked})
        (problem,) = error["problems"]
        assert status == 404 and problem["field"] == "recipe.adapters.0.ref"
        assert problem["what"] == "dragon is not on the shelf any more"


def test_no_path_means_a_model(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (starter,) = [entry for entry in api.shop.catalog.entries() if entry.name == "starter-image"]
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(starter.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in (str(copy), "./elsewhere.safetensors", "elsewhere.safetensors", "elsewhere", f"{tmp_path}/../{copy}"):
        status, error = api.refused("POST", "/resolve", {"recipe": {"prompt": "x", "model": {"name": name}}})
        assert status == 404 and str(tmp_path) not in json.dumps(error)
    assert api.shop.catalog.entry(copy) is None, "a file that was named must not even be looked at"


# --- pictures


def test_a_picture_is_taken_in_and_given_back(api: Api) -> None:
    content = picture()
    told = take(api, content)
    assert (told["width"], told["height"], told["recipe"], told["parameters"]) == (64, 64, None, None)
    back = api("GET", f"/inputs/{told['sha256']}")
    assert back.body == content and back.headers["content-type"] == "image/png"
    assert back.headers["x-content-type-options"] == "nosniff" and "sandbox" in back.headers["content-security-policy"]
    again = api("GET", f"/inputs/{told['sha256']}", if_none_match=back.headers["etag"])
    assert again.status == 304 and again.body == b""
    draft = {"task": "image-to-image", "prompt": "x", "inputs": [{"role": "init", "sha256": told["sha256"]}]}
    assert api.post("/resolve", {"recipe": draft})["recipe"]["inputs"] == draft["inputs"]


def test_a_jpeg_may_be_called_a_jpg(api: Api) -> None:
    content = BytesIO()
    Image.new("RGB", (64, 64)).save(content, "jpeg")
    sha256 = take(api, content.getvalue(), "image/jpg")["sha256"]
    assert api("GET", f"/inputs/{sha256}").headers["content-type"] == "image/jpeg"


def test_a_photograph_has_its_upright_size_here_and_in_a_recipe(api: Api) -> None:
    content, turned = BytesIO(), Image.Exif()
    turned[0x0112] = 6  # by a quarter
    Image.new("RGB", (256, 128)).save(content, "jpeg", exif=turned)
    told = take(api, content.getvalue(), "image/jpeg")
    assert (told["width"], told["height"]) == (128, 256)
    draft = {"task": "image-to-image", "prompt": "x", "inputs": [{"role": "init", "sha256": told["sha256"]}]}
    assert api.post("/resolve", {"recipe": draft})["recipe"]["size"] == {"width": 128, "height": 256}


def test_the_recipe_of_a_picture_is_a_draft_that_can_be_handed_in(api: Api) -> None:
    recipe = api.shop.resolve(Recipe(prompt="a green tent", sampling=Sampling(seed=3)))
    told = take(api, encode_output(Image.new("RGB", (128, 128)), recipe))
    assert told["parameters"].startswith("a green tent")
    assert api.post("/resolve", {"recipe": told["recipe"]})["digest"] == recipe.digest


def test_a_picture_with_a_text_that_is_too_long_is_taken_in_without_it(api: Api) -> None:
    info = PngInfo()
    info.add_text("workflow", "x" * (2 << 20))
    told = take(api, picture(pnginfo=info))
    assert (told["width"], told["recipe"], told["too_long"]) == (64, None, ["workflow"])
    recipe = {"prompt": "x", "task": "image-to-image", "inputs": [{"role": "init", "sha256": told["sha256"]}]}
    assert api.post("/resolve", {"recipe": recipe})["recipe"]["task"] == "image-to-image"


def test_a_picture_tells_why_what_it_says_can_not_be_made_here(api: Api) -> None:
    info = PngInfo()
    info.add_text("parameters", "a house\nSteps: 9, Seed: 7, Denoising strength: 0.5, Hires upscale: 2, Hires steps: 5")
    told = take(api, picture(pnginfo=info))
    assert (told["recipe"], told["refused"]) == (None, "Hires upscale: '2' can't be repeated by this version")
    assert take(api, picture())["refused"] is None


@pytest.mark.parametrize(
    ("content", "type", "status"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "image/png", 422),
        (b"<html><script>alert(1)</script>", "image/png", 422),
        (b"GIF89a" + bytes(50), "image/png", 422),
        (picture()[:-20], "image/png", 422),
        (b"", "image/png", 422),
        (picture(), "image/svg+xml", 415),
        (picture(), "text/html", 415),
    ],
    ids=["svg", "html", "gif", "cut", "empty", "svg-type", "html-type"],
)
def test_what_is_no_picture_is_not_taken_in(api: Api, content: bytes, type: str, status: int) -> None:
    before = sorted(api.shop.settings.inputs.glob("*"))
    told, error = api.refused("POST", "/inputs", content, content_type=type, x_bottega_upload="1")
    assert told == status and str(api.shop.settings.home) not in json.dumps(error)
    assert sorted(api.shop.settings.inputs.glob("*")) == before


def test_a_picture_that_unpacks_to_billions_of_pixels_is_refused_before_it_does(api: Api) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    assert api.refused("POST", "/inputs", bomb, content_type="image/png", x_bottega_upload="1")[0] == 422


def test_a_picture_of_too_many_bytes_is_refused_before_it_is_sent(api: Api) -> None:
    head = (
        f"POST /api/inputs HTTP/1.1\r\nHost: 127.0.0.1:{api.served.port}\r\nContent-Type: image/png\r\n"
        f"Authorization: Bearer {api.served.access.machine_key}\r\nX-Bottega-Upload: 1\r\n"
        f"Content-Length: {(32 << 20) + 1}\r\n\r\n"
    )
    assert api.served.raw(head.encode()).startswith(b"HTTP/1.1 413 ")


def test_a_form_of_another_site_can_not_send_a_picture(api: Api) -> None:
    assert api("POST", "/inputs", picture(), content_type="image/png").status in (415, 422)


def test_an_unknown_picture_is_not_found(api: Api) -> None:
    assert api.refused("GET", f"/inputs/{'0' * 64}")[0] == 404
    for wrong in ("..%2f..%2fsettings.toml", "settings.toml", "0" * 63, "0" * 65, "G" * 64):
        assert api.refused("GET", f"/inputs/{wrong}")[0] in (400, 404, 422)


def test_a_picture_is_only_for_who_sent_it_and_for_an_admin(api: Api) -> None:
    one, other, chief = api.user("anna"), api.user("bert"), api.user("carla", "admin")
    content = picture(colour="indigo")
    sha256 = take(one, content)["sha256"]
    draft = {"task": "image-to-image", "prompt": "x", "inputs": [{"role": "init", "sha256": sha256}]}
    status, error = other.refused("GET", f"/inputs/{sha256}")
    unknown = other.refused("GET", f"/inputs/{'0' * 64}")[1]
    assert status == 404 and {**error, "id": ""} == {**unknown, "id": ""}
    assert other.refused("GET", f"/inputs/{sha256}", if_none_match=f'"{sha256}"')[0] == 404
    for path in ("/resolve", "/jobs"):
        assert "recipe.inputs.0.sha256" in problems(other.refused("POST", path, {"recipe": draft})), path
    for may in (one, chief, api):
        assert may("GET", f"/inputs/{sha256}").body == content
    assert take(other, content)["sha256"] == sha256
    assert one("GET", f"/inputs/{sha256}").body == other("GET", f"/inputs/{sha256}").body == content
    other.post("/resolve", {"recipe": draft})


def test_a_picture_that_is_not_known_to_be_sent_is_for_whose_jobs_and_outputs_came_from_it(api: Api) -> None:
    content = picture(colour="olive")
    sha256 = api.shop.keep_input(content, "init").sha256  # by another door, or before it was written down who
    draft = {"task": "image-to-image", "prompt": "x", "inputs": [{"role": "init", "sha256": sha256}]}
    worker, maker = api.user("dora"), api.user("emil")
    liar = api.user("fred")
    liar.post("/jobs", {"recipe": {"prompt": sha256}}, 202)
    for each in (worker, maker, liar):
        assert each("GET", f"/inputs/{sha256}").status == 404
    recipe = api.shop.resolve(recipe_from(draft))
    api.shop.queue.submit("make", {"recipe": recipe.model_dump(mode="json")}, lane="make", owner="dora", title="")
    path = api.shop.settings.outputs / "emil.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_output(Image.new("RGB", (64, 64)), recipe))
    api.shop.gallery.adopt(path.parent, owner_of=lambda job: "emil")
    for each in (worker, maker):
        assert each("GET", f"/inputs/{sha256}").body == content
        each.post("/resolve", {"recipe": draft})
    assert liar("GET", f"/inputs/{sha256}").status == 404


def test_nobody_gets_the_name_of_who_left_a_picture(api: Api) -> None:
    take(api.user("gina"), picture(colour="maroon"))
    api.served.accounts.remove("gina")
    status, error = api.refused("POST", "/users", {"name": "gina"})
    assert status == 422 and "pictures" in error["what"]
    api.post("/users", {"name": "gina", "again": True}, 201)


# --- prompts


def test_a_prompt_is_read_while_it_is_typed(api: Api) -> None:
    text = "a (red:1.2) house <lora:nowhere:0.8> " + "very " * 80
    told = api.post("/tokens", {"text": text})
    assert (told["count"], told["room"], told["chunk"]) == (83, 150, 75)
    assert len(told["chunks"]) == 2
    assert [text[each["start"] : each["end"]] for each in told["pieces"] if each["weight"] == 1.2] == ["red"]
    (network,) = told["networks"]
    assert text[network["start"] : network["end"]] == "<lora:nowhere:0.8>"
    assert (network["kind"], network["name"], network["known"]) == ("lora", "nowhere", False)
    assert api.refused("POST", "/tokens", {"text": text, "model": "0" * 16})[0] == 404
    assert "text" in problems(api.refused("POST", "/tokens", {"text": "x" * 20_001}))


# --- forms


def test_forms_are_what_families_say(api: Api) -> None:
    told = api.get("/forms")
    (sd1,) = [family for family in told["families"] if family["id"] == "sd1"]
    assert {"id": "inpaint", "needs": ["init", "mask"]} in sd1["tasks"]
    clip_skip = next(knob for knob in sd1["knobs"] if knob["name"] == "clip_skip")
    assert (clip_skip["type"], clip_skip["low"], clip_skip["high"], clip_skip["default"]) == ("int", 1, 24, 1)
    assert "Euler a" in [sampler["name"] for sampler in told["samplers"]]
    assert [format["id"] for format in told["formats"]] == ["png", "jpeg", "webp"]


def test_the_form_of_a_model_has_its_own_defaults_and_limits(api: Api) -> None:
    (starter,) = [each for each in api.get("/models")["items"] if each["name"] == "starter-image"]
    told = api.get(f"/models/{starter['id']}/form")
    resolved = api.post("/resolve", {"recipe": {"prompt": "x"}})["recipe"]
    assert told["defaults"]["size"] == resolved["size"]
    for name in ("sampler", "schedule", "steps", "guidance"):
        assert told["defaults"][name] == resolved["sampling"][name]
    clip_skip = next(knob for knob in told["knobs"] if knob["name"] == "clip_skip")
    assert clip_skip["high"] < 24
    too_high = {"prompt": "x", "knobs": {"clip_skip": clip_skip["high"] + 1}}
    assert "recipe.knobs.clip_skip" in problems(api.refused("POST", "/resolve", {"recipe": too_high}))


@pytest.mark.slow
def test_the_server_knows_nothing_of_torch() -> None:
    """What serves, resolves and reads prompts must not bring torch in, nor what does."""
    program = (
        "import sys, bottega.api.app, bottega.api.native, bottega.workshop\n"
        "from bottega.diffusion.marks import marks\n"
        "marks('a (red:1.2) house')\n"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_default_model_can_be_set(api: Api) -> None:
    shop: Workshop = api.shop
    before = api.post("/resolve", {"recipe": {"prompt": "x"}})["recipe"]["model"]
    shop.settings.models.mkdir()
    family("sd1").toy(shop.settings.models / "toy.safetensors")
    scan(shop.catalog, [shop.settings.models], all_recognisers())
    assert api("PATCH", "/settings", {"model": "toy"}).json["model"] == "toy"
    assert read_settings({"BOTTEGA_HOME": str(shop.settings.home)}).model == "toy"
    assert api.post("/resolve", {"recipe": {"prompt": "x"}})["recipe"]["model"]["name"] == "toy"
    assert api("PATCH", "/settings", {"model": "starter-image"}).json["model"] == "starter-image"
    assert api.post("/resolve", {"recipe": {"prompt": "x"}})["recipe"]["model"] == before
    assert api.refused("PATCH", "/settings", {"model": "nothing here"})[0] == 404
    for strange in ({"shelves": ["/"]}, {"model": "starter-image", "host": "0.0.0.0"}, {"open_doors": True}, {}):
        assert api.refused("PATCH", "/settings", strange)[0] == 422


def test_a_setting_is_written_and_all_else_stays(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    assert write_setting(settings, "model", 'so "called"').model == 'so "called"'
    settings.file.write_text('# mine\nport = 8000 # here\nmodel = "old"\nshelves = ["/a"]\n')
    write_setting(settings, "model", "new")
    assert settings.file.read_text() == '# mine\nport = 8000 # here\nmodel = "new"\nshelves = ["/a"]\n'
    settings.file.write_text('model = """old\none"""\n')
    with pytest.raises(FileError, match="change it there"):
        write_setting(settings, "model", "new")
    assert settings.file.read_text() == 'model = """old\none"""\n'
