"""Civitai: models, their versions, and versions by hash. https://developer.civitai.com/site/reference/model-versions"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bottega.library.sources.client import Client
from bottega.library.sources.errors import BadReference, HttpError, NetworkError, Refused
from bottega.library.sources.offers import Choice, Offer, RemoteFile
from bottega.library.sources.tokens import Site

HOSTS = frozenset(("civitai.com", "www.civitai.com", "civitai.red", "civitai.green"))

# What Civitai calls things, in our words; the others are told by their headers alone.
KINDS = {
    "Checkpoint": "checkpoint", "TextualInversion": "embedding", "Hypernetwork": "hypernetwork", "LORA": "lora",
    "LoCon": "lora", "DoRA": "lora", "Controlnet": "controlnet", "Upscaler": "upscaler",
    "MotionModule": "motion_module", "VAE": "vae",
}  # fmt: skip
_NO_MODELS = ("Training Data", "Config", "Archive", "Workflow")  # types of files beside a model
_PERMISSIONS = ("allowNoCredit", "allowCommercialUse", "allowDerivatives", "allowDifferentLicense")
_FROM_MODEL = ("description", "tags", *_PERMISSIONS)  # what `.civitai.info` holds of the model beside its version

_ID = re.compile(r"(?P<model>[0-9]{1,12})(@(?P<version>[0-9]{1,12}))?")
_HASH = re.compile(r"[0-9a-fA-F]{8,64}")
_AIR = re.compile(r"urn:air:[^:]+:[^:]+:civitai:(?P<model>[0-9]{1,12})(@(?P<version>[0-9]{1,12}))?")


@dataclass(frozen=True)
class Reference:
    """A model (its newest version), one version of it, or the version that has a file with this hash."""

    model: str = ""
    version: str = ""
    hash: str = ""
    file: str = ""


def read_reference(text: str, url: str) -> Reference | None:
    """What a text means at Civitai, or None if it means nothing there.

    `civitai:MODEL`, `civitai:MODEL@VERSION`, `civitai:HASH` (AutoV2, SHA-256 and others; `civitai:sha256:HASH` where it
    is all digits), `urn:air:...`, and the addresses of pages and downloads, on Civitai or its mirror at `url`.
    """
    if air := _AIR.fullmatch(text):
        return Reference(air["model"], air["version"] or "")
    if text.lower().startswith("civitai:"):
        rest = text[8:]
        if match := _ID.fullmatch(rest):
            return Reference(match["model"], match["version"] or "")
        digits = rest.split(":", 1)[-1] if re.match(r"(sha256|autov[123]|blake3|crc32|hash):", rest, re.I) else rest
        if _HASH.fullmatch(digits):
            return Reference(hash=digits)
        raise BadReference(f"{text!r} names no model", "write civitai:MODEL, civitai:MODEL@VERSION or civitai:HASH")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not (parts.hostname in HOSTS or text.startswith(f"{url}/")):
        return None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if match := re.search(r"/models/(?P<model>[0-9]{1,12})(/|$)", parts.path):
        if "/api/download/" in parts.path:
            return Reference(version=match["model"], file=_digits(query.get("fileId", "")))
        return Reference(match["model"], _digits(query.get("modelVersionId", "")))
    if match := re.search(r"/model-versions/(?P<version>[0-9]{1,12})$", parts.path):
        return Reference(version=match["version"])
    raise BadReference(f"{parts.path}: this page of Civitai shows no model", "use the address of a model's page")


def offer(client: Client, site: Site, text: str, reference: Reference, choice: Choice) -> Offer:
    """What Civitai has under a reference. Raises BadReference, Refused, or a NetworkError."""
    version, model = _version_and_model(client, site, reference)
    usage = version.get("usageControl")
    if isinstance(usage, str) and usage not in ("", "Download"):
        raise Refused(f"{_title(version)}: its maker allows making pictures on the site only", "choose another version")
    file = _chosen(version, reference, choice)
    card = with_model(version, model)
    ids = {"model": _number(version, "modelId"), "version": _number(version, "id"), "file": _number(file, "id")}
    kind = (version.get("model") or {}).get("type")
    return Offer(
        reference=text,
        title=_title(version),
        files=(_remote(site, version, file),),
        source={"site": "civitai", **ids},
        page=page_of(site, version),
        kind="vae" if file.get("type") == "VAE" else KINDS.get(kind, "") if isinstance(kind, str) else "",
        licence={name: model[name] for name in _PERMISSIONS if name in model} or None,
        card=card,
        preview=_preview(version),
        notes=tuple(_notes(version, model, reference)),
    )


def by_hash(client: Client, site: Site, digits: str) -> dict[str, Any] | None:
    """The version that has a file with this hash, as `.civitai.info` holds it; None if there is none."""
    try:
        version = _asked(client, site, f"model-versions/by-hash/{digits}", "the hash")
    except HttpError as error:
        if error.status == 404:
            return None
        raise
    return with_model(version, _model_of(client, site, version))


def newer_versions(client: Client, site: Site, model: int, version: int) -> list[dict[str, Any]]:
    """The versions of a model that were published after this one, the newest first; all where it is not among them."""
    versions = list(_versions(_asked(client, site, f"models/{model}", "the model")))
    at = next((index for index, each in enumerate(versions) if each.get("id") == version), None)
    mine = versions[at] if at is not None else {}
    return [
        each
        for index, each in enumerate(versions)
        if each.get("id") != version
        and (_published(each) > _published(mine) if _published(mine) and _published(each) else at is None or index < at)
    ]


def with_model(version: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """A version as Civitai Helper writes it to `.civitai.info`: with description and permissions of its model."""
    inner = version.get("model")
    told = {name: model[name] for name in _FROM_MODEL if name in model}
    card = {**version, "model": {**(inner if isinstance(inner, dict) else {}), **told}}
    if "creator" in model:
        card["creator"] = model["creator"]
    return card


def page_of(site: Site, version: Mapping[str, Any]) -> str:
    """The address of a version's page."""
    return f"{site.url}/models/{_number(version, 'modelId')}?modelVersionId={_number(version, 'id')}"


def _version_and_model(client: Client, site: Site, reference: Reference) -> tuple[dict[str, Any], dict[str, Any]]:
    if reference.hash:
        version = _asked(client, site, f"model-versions/by-hash/{reference.hash}", f"the hash {reference.hash}")
        return version, _model_of(client, site, version)
    if reference.version:
        version = _asked(client, site, f"model-versions/{reference.version}", f"version {reference.version}")
        if reference.model and str(version.get("modelId")) != reference.model:
            what = f"version {reference.version} is one of model {version.get('modelId')}, not of {reference.model}"
            raise BadReference(what, f"write civitai:{version.get('modelId')}@{reference.version}")
        return version, _model_of(client, site, version)
    model = _asked(client, site, f"models/{reference.model}", f"model {reference.model}")
    versions = list(_versions(model))
    open_ones = [version for version in versions if version.get("availability") != "EarlyAccess"]
    if not versions:
        raise BadReference(f"{one_line(str(model.get('name')))}: nothing of it is published", "check its page")
    newest = (open_ones or versions)[0]
    inner = {name: model.get(name) for name in ("name", "type", "nsfw", "poi")}
    return {"modelId": model.get("id"), "model": inner, **newest}, model


def _model_of(client: Client, site: Site, version: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a version; empty for one that is archived, whose versions can still be had."""
    try:
        return _asked(client, site, f"models/{_number(version, 'modelId')}", "the model")
    except HttpError as error:
        if error.status in (404, 410):
            return {}
        raise


def _asked(client: Client, site: Site, path: str, what: str) -> dict[str, Any]:
    try:
        return client.json(f"{site.url}/api/v1/{path}", site)
    except HttpError as error:
        if error.status == 404:
            raise HttpError(f"Civitai does not know {what}", error.remedy, 404) from None
        raise


def _versions(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The published versions of a model, the newest first, as Civitai lists them."""
    for version in _objects(model.get("modelVersions")):
        if version.get("status", "Published") == "Published" and isinstance(version.get("id"), int):
            yield version


def _chosen(version: Mapping[str, Any], reference: Reference, choice: Choice) -> dict[str, Any]:
    """The file that is wanted: the named one, else the primary one, but safetensors before what can hide code."""
    files = list(_objects(version.get("files")))
    if reference.file or choice.file:
        wanted = choice.file.casefold()
        for file in files:
            if str(file.get("id")) == reference.file or (wanted and str(file.get("name", "")).casefold() == wanted):
                return file
        raise BadReference(f"{_title(version)}: it has no file {choice.file or reference.file}", _listed(files))
    models = [file for file in files if file.get("type") not in _NO_MODELS]
    if reference.hash:
        digits = reference.hash.upper()
        for file in models:
            if any(str(told).upper().startswith(digits) for told in _mapping(file.get("hashes")).values()):
                return file
    if choice.variant:
        models = [file for file in models if _mapping(file.get("metadata")).get("fp") == choice.variant]
    if not models:
        wanted = f"no file in {choice.variant}" if choice.variant else "no model among its files"
        raise BadReference(f"{_title(version)}: it has {wanted}", _listed(files))
    return min(models, key=lambda file: (not _is_safetensors(file), not file.get("primary")))


def _remote(site: Site, version: Mapping[str, Any], file: Mapping[str, Any]) -> RemoteFile:
    hashes = {name.lower(): str(value).lower() for name, value in _mapping(file.get("hashes")).items()}
    known = {
        name: hashes[name] for name in ("sha256", "blake3", "crc32") if re.fullmatch("[0-9a-f]+", hashes.get(name, ""))
    }
    if "sha256" not in known and re.fullmatch("[0-9a-f]{10}", hashes.get("autov2", "")):
        known["sha256"] = hashes["autov2"]
    if not known:  # of some old files only hashes of a part are told
        partial = {"autov1": "[0-9a-f]{8}", "autov3": "[0-9a-f]{12,64}"}
        known = {name: hashes[name] for name, form in partial.items() if re.fullmatch(form, hashes.get(name, ""))}
    kilobytes = file.get("sizeKB")
    size = round(kilobytes * 1024) if isinstance(kilobytes, int | float) and 0 < kilobytes < 1 << 40 else None
    name, told = file.get("name"), file.get("downloadUrl")
    direct = f"{site.url}/api/download/models/{_number(version, 'id')}"
    by_id = f"{direct}?fileId={_number(file, 'id')}"
    return RemoteFile(
        key=f"civitai {_number(version, 'id')} {_number(file, 'id')}",
        # The address with `type` and `format` is not found for some files that can be had by their id.
        urls=(told, by_id) if isinstance(told, str) and told else (by_id,),
        path=name if isinstance(name, str) and name else "model.safetensors",
        size=size,
        hashes=known,
        site=site,
    )


def _preview(version: Mapping[str, Any]) -> str:
    """The tamest picture of a version, the first of such; empty if there is none."""
    pictures = [
        image
        for image in _objects(version.get("images"))
        if isinstance(image.get("url"), str) and image.get("type", "image") == "image"
    ]
    tamest = min(pictures, key=_boldness, default={"url": ""})
    return str(tamest["url"])


def _boldness(image: Mapping[str, Any]) -> int:
    level = image.get("nsfwLevel")
    return level if isinstance(level, int) else 0


def _notes(version: Mapping[str, Any], model: Mapping[str, Any], reference: Reference) -> Iterator[str]:
    newest = next(_versions(model), version)
    if not (reference.version or reference.hash) and newest.get("id") != version.get("id"):
        yield f"the newest version, {one_line(str(newest.get('name')))}, is in early access: this is the one before it"
    if version.get("availability") == "EarlyAccess":
        yield "this version is in early access: only those who paid for it can have it yet"
    if model.get("mode") in ("Archived", "TakenDown"):
        yield f"Civitai lists this model as {model['mode']}"


def _is_safetensors(file: Mapping[str, Any]) -> bool:
    told = _mapping(file.get("metadata")).get("format") == "SafeTensor"
    return told or str(file.get("name", "")).lower().endswith((".safetensors", ".sft"))


def _listed(files: Sequence[Mapping[str, Any]]) -> str:
    names = [ascii(str(file.get("name")))[1:-1][:100] for file in files[:12]]
    return f"its files are {', '.join(names)}" if names else "look at its page"


def _title(version: Mapping[str, Any]) -> str:
    model = _mapping(version.get("model")).get("name")
    return " ".join(one_line(str(part)) for part in (model, version.get("name")) if part)[:200] or "a model"


def one_line(text: str) -> str:
    """A title from a site on one line, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _published(version: Mapping[str, Any]) -> str:
    """When a version was published, as a text that sorts (ISO 8601)."""
    told = version.get("publishedAt") or version.get("createdAt")
    return told if isinstance(told, str) else ""


def _number(value: Mapping[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise NetworkError(
            f"Civitai's answer has no number {name}", "the site may have changed: look for a newer Bottega"
        )
    return number


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _digits(text: str) -> str:
    return text if re.fullmatch("[0-9]{1,12}", text) else ""
