"""The PyPI client `openai`, unchanged, against a real server: models, pictures, edits, variations, streams, errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from door_server import PROMPT, Server, made_by_command, serving
from PIL import Image, ImageChops
from starters import CHECKPOINTS

from bottega.families import family
from bottega.formats import media
from bottega.recipe import Recipe, read_recipe

pytestmark = pytest.mark.slow

STEPS = {"steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("openai") / "home"
    (home / "models").mkdir(parents=True)
    family("sd1").toy(home / "models" / "toy.safetensors")
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        yield client


def decoded(image: Any) -> bytes:
    return base64.b64decode(image.b64_json, validate=True)


def recipe_of(content: bytes, folder: Path) -> Recipe:
    (folder / "picture").write_bytes(content)
    return read_recipe(media.read(folder / "picture").recipe or "")


def file(picture: Image.Image, name: str = "picture.png") -> tuple[str, bytes, str]:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return name, buffer.getvalue(), "image/png"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    gradient = Image.linear_gradient("L").resize((128, 128))
    return Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180)))


def test_it_lists_every_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == sorted({*CHECKPOINTS, "toy"})
    model = client.models.retrieve("toy")
    assert (model.object, model.id) == ("model", "toy") and model.created > 0
    with pytest.raises(openai.NotFoundError, match="nothing"):
        client.models.retrieve("nothing")


def test_a_picture_is_the_one_that_the_command_line_makes(client: openai.OpenAI, tmp_path: Path) -> None:
    extra = {**STEPS, "negative_prompt": "dark", "cfg_scale": 5, "sampler": "Euler a"}
    made = client.images.generate(
        prompt=PROMPT, model="starter-image", size="128x128", response_format="b64_json", extra_body=extra
    )
    assert made.data is not None
    words = ("--steps", "3", "--seed", "7", "--size", "128x128", "--cfg", "5", "--sampler", "Euler a")
    assert decoded(made.data[0]) == made_by_command(tmp_path / "home", tmp_path, *words, "--negative", "dark")
    assert (made.size, made.output_format, made.background) == ("128x128", "png", "opaque")


@pytest.mark.parametrize("name", ["gpt-image-1", "dall-e-3", "whatever-this-is", None])
def test_a_name_of_openais_means_the_usual_model(client: openai.OpenAI, name: str | None, tmp_path: Path) -> None:
    made = client.images.generate(prompt=PROMPT, model=name, response_format="b64_json", extra_body=STEPS)
    assert made.data is not None
    recipe = recipe_of(decoded(made.data[0]), tmp_path)
    assert recipe.model is not None and recipe.model.name == "starter-image"
    assert recipe.size is not None and recipe.size.width == 128  # the model's own


def test_several_pictures_of_a_model_in_a_format(client: openai.OpenAI, tmp_path: Path) -> None:
    made = client.images.generate(
        prompt=PROMPT, model="toy", n=2, size="auto", output_format="webp", output_compression=50, extra_body=STEPS
    )
    assert made.data is not None
    recipes = [recipe_of(decoded(each), tmp_path) for each in made.data]
    assert [recipe.sampling.seed for recipe in recipes] == [7, 8]
    assert recipes[0].model is not None and recipes[0].model.name == "toy"
    assert (recipes[0].output.format, recipes[0].output.quality) == ("webp", 50)


def test_an_address_gives_the_picture(client: openai.OpenAI) -> None:
    made = client.images.generate(prompt=PROMPT, response_format="url", extra_body=STEPS)
    assert made.data is not None
    (told,) = made.data
    assert told.url is not None and told.b64_json is None and told.revised_prompt == PROMPT
    answer = httpx.get(told.url, headers={"Authorization": "Bearer none"})
    assert answer.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as shown:
        assert shown.size == (128, 128)
    assert httpx.get(told.url[:-3] + "x-0").status_code == 404


def test_only_the_transparent_part_of_the_mask_is_made_anew(client: openai.OpenAI, picture: Image.Image) -> None:
    mask = Image.new("RGBA", picture.size, "black")
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    made = client.images.edit(image=file(picture), mask=file(mask, "mask.png"), prompt=PROMPT, extra_body=STEPS)
    assert made.data is not None
    with Image.open(io.BytesIO(decoded(made.data[0]))) as result:
        changed = ImageChops.difference(result.convert("RGB"), picture).getbbox()
    assert changed is not None and changed[0] >= 50


def test_a_picture_that_is_transparent_in_parts_is_its_own_mask(
    client: openai.OpenAI, picture: Image.Image, tmp_path: Path
) -> None:
    holed = picture.convert("RGBA")
    holed.paste((0, 0, 0, 0), (64, 0, 128, 128))
    made = client.images.edit(image=file(holed), prompt=PROMPT, extra_body=STEPS)
    assert made.data is not None
    assert recipe_of(decoded(made.data[0]), tmp_path).task == "inpaint"


def test_an_edit_without_a_mask_starts_from_the_picture(
    client: openai.OpenAI, picture: Image.Image, tmp_path: Path
) -> None:
    made = client.images.edit(image=[file(picture)], prompt=PROMPT, extra_body={**STEPS, "strength": 0.4})
    assert made.data is not None
    recipe = recipe_of(decoded(made.data[0]), tmp_path)
    assert (recipe.task, recipe.sampling.strength) == ("image-to-image", 0.4)


def test_a_variation_shows_what_the_picture_says_that_it_shows(
    client: openai.OpenAI, picture: Image.Image, tmp_path: Path
) -> None:
    first = client.images.generate(prompt=PROMPT, response_format="b64_json", extra_body=STEPS)
    assert first.data is not None
    with pytest.warns(DeprecationWarning):
        varied = client.images.create_variation(image=decoded(first.data[0]), n=1, extra_body=STEPS)
    assert varied.data is not None
    recipe = recipe_of(decoded(varied.data[0]), tmp_path)
    assert (recipe.task, recipe.prompt) == ("image-to-image", PROMPT)
    with pytest.warns(DeprecationWarning):
        wordless = client.images.create_variation(image=file(picture), extra_body=STEPS)
    assert wordless.data is not None
    recipe = recipe_of(decoded(wordless.data[0]), tmp_path)
    assert (recipe.task, recipe.prompt) == ("image-to-image", "")


@pytest.mark.parametrize("edit", [False, True])
def test_a_stream_shows_rough_pictures_and_then_the_finished_one(
    client: openai.OpenAI, picture: Image.Image, edit: bool, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "prompt": PROMPT, "stream": True, "partial_images": 2, "size": "128x128", "output_format": "jpeg",
        "extra_body": {"steps": 100, "seed": 7, "strength": 1.0},
    }  # fmt: skip
    kind = "image_edit" if edit else "image_generation"
    with client.images.edit(image=file(picture), **asked) if edit else client.images.generate(**asked) as stream:
        events = list(stream)
    assert [event.type for event in events] == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"]
    assert [event.partial_image_index for event in events[:-1]] == [0, 1]
    for event in events:
        with Image.open(io.BytesIO(decoded(event))) as shown:
            assert (shown.format, shown.size) == ("JPEG", (128, 128))
        assert (event.output_format, event.size) == ("jpeg", "128x128")
    assert recipe_of(decoded(events[-1]), tmp_path).prompt == PROMPT


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"size": "100x100"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"size": "large"}, "size"),
        ({"n": 0}, "n"),
        ({"n": 100}, "n"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"extra_body": {"steps": 5000}}, "steps"),
        ({"extra_body": {"sampler": "nonsense"}}, "sampler"),
        ({"prompt": "a house <lora:nothing:1>"}, "prompt"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(client: openai.OpenAI, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**{"prompt": PROMPT, **asked})
    error = refused.value
    assert error.param == param and error.type == "invalid_request_error" and error.code
    assert param in error.message


def test_what_is_wrong_is_told_before_a_stream_begins(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="multiple of 8"):
        client.images.generate(prompt=PROMPT, size="100x100", stream=True)


def test_a_lora_is_left_to_the_engine(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nothing"):
        client.images.generate(prompt=PROMPT, extra_body={"loras": [{"name": "nothing", "weight": 0.5}]})


def test_what_this_server_has_no_model_for_is_said(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no text model yet"):
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.NotFoundError, match="no text model yet"):
        client.embeddings.create(model="text-embedding-3-small", input="hello")
    with pytest.raises(openai.NotFoundError, match="no audio model yet"):
        client.audio.speech.create(model="tts-1", voice="alloy", input="hello")


def test_the_paths_without_v1(server: Server) -> None:
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == sorted({*CHECKPOINTS, "toy"})
        made = client.images.generate(prompt=PROMPT, response_format="b64_json", extra_body=STEPS)
        assert made.data is not None and made.data[0].b64_json
        with pytest.raises(openai.BadRequestError, match="prompt"):
            client.images.generate(prompt="")
