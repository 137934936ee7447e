"""What is wrong with a field is said in words for people, with the limit, at every door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from conftest import Command
from native import Api, studio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bottega.errors import InvalidRecipe
from bottega.recipe import recipe_from
from bottega.training.recipe import training_from
from bottega.validation import in_words


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("type", "value", "words"),
    [
        (Thing, {}, "is missing"),
        (Thing, {"count": 1, "other": 1}, "is no field that is known here"),
        (Thing, 1, "must be an object with fields"),
        (dict[str, int], 1, "must be an object with fields"),
        (list[int], 1, "must be a list"),
        (tuple[int, ...], 1, "must be a list"),
        (int, "x", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (int, None, "must be a whole number"),
        (int, "9" * 5000, "is a number with too many digits"),
        (float, "x", "must be a number"),
        (float, [], "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "must be a finite number"),
        (bool, "x", "must be true or false"),
        (bool, None, "must be true or false"),
        (str, 1, "must be a text"),
        (Literal["png", "webp"], "gif", "must be 'png' or 'webp'"),
        (Annotated[int, Field(ge=-100)], -101, "must be -100 or more"),
        (Annotated[int, Field(le=1_000_000)], 1_000_001, "must be 1,000,000 or less"),
        (Annotated[float, Field(gt=0)], 0, "must be more than 0"),
        (Annotated[float, Field(lt=0.5)], 0.5, "must be less than 0.5"),
        (Annotated[int, Field(multiple_of=8)], 9, "must be a multiple of 8"),
        (Annotated[str, Field(min_length=1)], "", "is empty"),
        (Annotated[str, Field(min_length=2)], "x", "must have at least 2 characters"),
        (Annotated[str, Field(max_length=2)], "xyz", "may have at most 2 characters"),
        (Annotated[str, Field(pattern="^[a-z]{3}$")], "1", "must match the pattern ^[a-z]{3}$"),
        (Annotated[list[int], Field(min_length=1)], [], "is empty"),
        (Annotated[list[int], Field(min_length=2)], [1], "must have at least 2 entries"),
        (Annotated[list[int], Field(max_length=2)], [1, 2, 3], "may have at most 2 entries"),
        (Annotated[dict[str, int], Field(max_length=2)], dict.fromkeys("abc", 1), "may have at most 2 entries"),
    ],
)
def test_each_problem_has_words_of_ours(type: Any, value: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(type).validate_python(value)
    assert [in_words(problem) for problem in caught.value.errors()] == [words]


def test_a_problem_without_words_of_ours_keeps_those_that_it_has() -> None:
    assert in_words({"type": "new_in_pydantic_9", "msg": "Input should be {odd}"}) == "Input should be {odd}"


@pytest.mark.parametrize(
    ("body", "field", "what"),
    [
        ({"recipe": {"prompt": "x", "count": "many"}}, "recipe.count", "must be a whole number"),
        ({"recipe": {"prompt": "x", "colour": 1}}, "recipe.colour", "is no field that is known here"),
        ({}, "recipe", "is missing"),
        ([], "", "the body must be an object with fields"),
    ],
)
def test_the_api_says_it_at_the_field(api: Api, body: Any, field: str, what: str) -> None:
    status, error = api.refused("POST", "/resolve", body, content_type="application/json")
    assert (status, error["problems"]) == (422, [{"field": field, "what": what, "remedy": ""}])


def test_recipes_and_trainings_say_it() -> None:
    with pytest.raises(InvalidRecipe, match=r"^count: must be a whole number \| other: is no field that is"):
        recipe_from({"prompt": "x", "count": "x", "other": 1})
    with pytest.raises(InvalidRecipe, match=r"recipe: structure: begins and ends with 1"):
        training_from({"kind": "hypernetwork", "structure": [2, 1]})


def test_commands_say_it(bottega: Command) -> None:
    ran = bottega("train", "lora", ".", "--rate", "-1")
    assert ran.code == 2 and "rate: must be more than 0" in ran.err
