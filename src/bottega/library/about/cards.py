"""What stands in the cards that programs put beside a model: A1111, Civitai's, Stability Matrix, Lora Manager, us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bottega.library.about.facts import About, address, inner, long_text, number, parsed, some, text, words
from bottega.library.about.markup import plain
from bottega.library.disk import model_name

MAX_MARKUP = 200_000  # characters of HTML that are looked at

_MADE_BY = {"merge": "merging", "trained": "training"}
_USER = ("activation text", "preferred weight", "sd version", "negative text", "notes", "vae", "description")


def from_json_card(told: Mapping[str, Any], file: str) -> About:
    """What a `.json` beside a model says: A1111's user metadata, or Civitai's answer that a downloader kept."""
    if isinstance(told.get("modelVersions"), list):
        return from_civitai_model(told, file)
    if "modelId" in told or "trainedWords" in told:
        return from_civitai_version(told, file)
    if not any(name in told for name in _USER):
        return About()  # settings of a training, or anything else
    return About(
        description=long_text(told.get("description")),
        base_model="" if told.get("sd version") == "Unknown" else text(told.get("sd version")),
        triggers=words([told.get("activation text")]),
        weight=number(told.get("preferred weight")) or None,  # A1111 writes 0 for "not said"
        notes=long_text(told.get("notes")),
        extra=some([("negative", text(told.get("negative text"))), ("vae", text(told.get("vae")))]),
    )


def from_civitai_version(told: Mapping[str, Any], file: str = "") -> About:
    """A version of a model, as Civitai's site and Civitai Helper's `.civitai.info` describe it.

    `file` is what the model is called here, where that is known.
    """
    model = inner(told, "model")
    trained = told.get("trainedWords")
    said = "\n\n".join(filter(None, (_shown(model.get("description")), _shown(told.get("description")))))
    return About(
        title=text(model.get("name")),
        author=text(inner(told, "creator").get("username") or inner(model, "creator").get("username")),
        version=text(told.get("name")),
        base_model=text(told.get("baseModel")),
        description=long_text(said),
        triggers=words(_without_tags(trained)),
        weight=_weight_in_tags(trained, [file, *_file_names(told)]),
        permissions=permissions({**told, **model}),
        source=_page(told.get("modelId"), told.get("id")),
        tags=words(model.get("tags")),
        date=text(told.get("publishedAt") or told.get("createdAt"))[:10],
        extra=some([("adults only", "yes" if model.get("nsfw") is True else ""), ("made by", _made_by(told, model))]),
    )


def _made_by(told: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """How a checkpoint came about, where Civitai tells it; words that it was trained on tell it, too."""
    if model.get("type") != "Checkpoint" or not text(told.get("baseModel")):
        return ""
    kind = text(told.get("checkpointType") or model.get("checkpointType")).lower()
    return _MADE_BY.get(kind) or ("training" if words(told.get("trainedWords")) else "")


def from_civitai_model(told: Mapping[str, Any], file: str) -> About:
    """A model with all its versions, as Civitai's site describes it; the version that has a file of this name."""
    versions = [version for version in told["modelVersions"] if isinstance(version, Mapping)]
    chosen = next((each for each in versions if file in _file_names(each)), versions[0] if len(versions) == 1 else {})
    return from_civitai_version({**chosen, "modelId": told.get("id"), "model": told}, file)


def from_stability_matrix(told: Mapping[str, Any]) -> About:
    """Stability Matrix' `.cm-info.json`."""
    said = "\n\n".join(filter(None, (_shown(told.get("ModelDescription")), _shown(told.get("VersionDescription")))))
    return About(
        title=text(told.get("UserTitle")) or text(told.get("ModelName")),
        author=text(told.get("AuthorUsername")),
        version=text(told.get("VersionName")),
        base_model=text(told.get("BaseModel")),
        description=long_text(said),
        triggers=words(_without_tags(told.get("TrainedWords"))),
        source=_page(told.get("ModelId"), told.get("VersionId")),
        tags=words(told.get("Tags")),
        extra=some([("adults only", "yes" if told.get("Nsfw") is True else "")]),
    )


def from_lora_manager(told: Mapping[str, Any], file: str) -> About:
    """The `.metadata.json` of ComfyUI Lora Manager: the user's own words, with Civitai's below them."""
    tips = parsed(told.get("usage_tips"))
    own = About(
        title=text(told.get("model_name")),
        base_model="" if told.get("base_model") == "Unknown" else text(told.get("base_model")),
        description=long_text(_shown(told.get("modelDescription"))),
        weight=number(tips.get("strength")),
        tags=words(told.get("tags")),
        notes=long_text(told.get("notes")),
    )
    return own.over(from_civitai_version(inner(told, "civitai"), file))


def from_source(told: Mapping[str, Any]) -> About:
    """Our own `.source.json`: the page that a model was fetched from, and the licence that its site gave."""
    terms = inner(told, "licence")
    return About(
        author=text(told.get("repo")).rpartition("/")[0],
        licence=text(terms.get("license_name")) or text(terms.get("license")) or text(told.get("licence")),
        permissions=permissions(terms),
        source=address(told.get("page")),
        extra=some([("licence text", text(terms.get("license_link")))]),
    )


# --- the tags of a prompt among trained words ------------------------------------------------------------------------

_TAG = re.compile(r"<\w+:([^:<>]{1,200})(?::([^:<>]{0,20}))?[^<>]{0,200}>\s*,?\s*")


def _without_tags(told: object) -> list[str]:
    """Trained words without `<lora:name:0.7>`: that adds the model, and is no word that it knows."""
    return [_TAG.sub("", word) for word in told if isinstance(word, str)] if isinstance(told, list) else []


def _weight_in_tags(told: object, files: Iterable[object]) -> float | None:
    """The weight in the first tag among trained words that names the model of one of these files."""
    names = {model_name(Path(text(file))).casefold() for file in files}
    tags = (
        [tag for word in told if isinstance(word, str) for tag in _TAG.findall(word)] if isinstance(told, list) else []
    )
    return next((number(weight) for name, weight in tags if name.casefold() in names), None)


# --- Civitai's permissions -------------------------------------------------------------------------------------------

_COMMERCIAL = {
    "Image": "selling what it makes",
    "RentCivit": "running it as a service on Civitai",
    "Rent": "running it as a service",
    "Sell": "selling it or merges of it",
}


def permissions(told: Mapping[str, Any]) -> dict[str, object]:
    """Civitai's terms of a model in words; what they don't say is left out."""
    said: dict[str, object] = {}
    if isinstance(credit := told.get("allowNoCredit"), bool):
        said["credit"] = "not needed" if credit else "the author must be named"
    if (commercial := told.get("allowCommercialUse")) is not None:
        said["commercial use"] = _commercial(commercial)
    if isinstance(derivatives := told.get("allowDerivatives"), bool):
        said["merges and changes"] = "may be shared" if derivatives else "may not be shared"
    if isinstance(different := told.get("allowDifferentLicense"), bool):
        said["other terms on merges"] = "allowed" if different else "not allowed: the same terms"
    return said


def _commercial(told: object) -> str:
    """What may be done for money. Civitai wrote one word for "this and what is before it", then a list of words."""
    if isinstance(told, str) and told in _COMMERCIAL:
        every = list(_COMMERCIAL)
        told = every[: every.index(told) + 1]
    elif isinstance(told, str):
        told = told.strip("{}").split(",")
    listed = told if isinstance(told, list) else []
    return ", ".join(words_for for word, words_for in _COMMERCIAL.items() if word in listed) or "none"


def _shown(markup: object) -> str:
    return plain(markup[:MAX_MARKUP]) if isinstance(markup, str) else ""


def _page(model: object, version: object) -> str:
    """The address of a model's page on Civitai."""
    if not text(model).isdecimal():
        return ""
    page = f"https://civitai.com/models/{text(model)}"
    return f"{page}?modelVersionId={text(version)}" if text(version).isdecimal() else page


def _file_names(version: Mapping[str, Any]) -> list[object]:
    files = version.get("files")
    return [file.get("name") for file in files if isinstance(file, Mapping)] if isinstance(files, list) else []
