"""`bottega models get` and its kin, on sites that speak Civitai's and Hugging Face's APIs and can't be trusted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from PIL import Image
from site_server import Request, Served, Site, answer, cut, flip, head_of, running
from small_models import write_model
from starters import NAMES
from test_gguf import split

from bottega.errors import BottegaError
from bottega.families import family
from bottega.formats import folder, read_header, safetensors
from bottega.formats.header import Header, Safety
from bottega.library import open_catalog
from bottega.library.sources import civitai, huggingface, install
from bottega.library.sources.errors import BadReference
from bottega.library.sources.names import check_paths, safe_name
from bottega.settings import Settings

SECRET = "k3y-0123456789abcdef"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def small(folder: Path, colour: str = "red", **more: Any) -> bytes:
    """The bytes of a model that no family knows."""
    return write_model(folder / f"{colour}.safetensors", colour, **more).read_bytes()


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint that a family knows."""
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    family("sd1").toy(path)
    return path.read_bytes()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


class Civitai:
    """A site that speaks Civitai's API about one model with two versions, whose files lie on another host."""

    def __init__(self, site: Site, cdn: Site, body: bytes) -> None:
        self.site, self.cdn, self.url = site, cdn, site.url
        self.version = self.make(456, "v2", "toyModel_v2.safetensors", body)
        self.older = self.make(455, "v1", "toyModel_v1.safetensors", body[:-1])
        self.older["publishedAt"] = "2024-01-01T00:00:00.000Z"
        self.model = {
            "id": 123,
            "name": "Toy <img src=x> Model",
            "type": "Checkpoint",
            "description": "<p>It paints.</p>",
            "tags": ["toy"],
            "allowNoCredit": True,
            "allowCommercialUse": ["Image"],
            "creator": {"username": "somebody"},
            "modelVersions": [
                {key: value for key, value in version.items() if key not in ("model", "modelId")}
                for version in (self.version, self.older)
            ],
        }
        self.publish()

    def make(self, id: int, name: str, file: str, body: bytes) -> dict[str, Any]:
        """A version with one file."""
        self.cdn.files["/picture.png"] = Served(picture())
        version = {
            "id": id,
            "modelId": 123,
            "name": name,
            "baseModel": "SD 1.5",
            "status": "Published",
            "publishedAt": "2025-01-01T00:00:00.000Z",
            "trainedWords": ["toy"],
            "model": {"name": "Toy", "type": "Checkpoint"},
            "images": [
                {"url": f"{self.cdn.url}/bold.png", "nsfwLevel": 8, "type": "image"},
                {"url": f"{self.cdn.url}/picture.png", "nsfwLevel": 1, "type": "image"},
            ],
            "files": [],
        }
        self.add(version, id * 10, file, body, primary=True)
        return version

    def add(self, version: dict[str, Any], id: int, name: str, body: bytes, **more: Any) -> dict[str, Any]:
        """One more file of a version."""
        self.cdn.files[f"/{id}"] = Served(body)
        path = f"/api/download/models/{version['id']}"
        url = f"{self.url}{path}?fileId={id}" if version["files"] else f"{self.url}{path}"
        file = {
            "id": id,
            "name": name,
            "type": "Model",
            "sizeKB": len(body) / 1024,
            "metadata": {"format": "SafeTensor" if name.endswith(".safetensors") else "PickleTensor", "fp": "fp32"},
            "hashes": {"SHA256": sha256(body).upper(), "AutoV2": sha256(body)[:10].upper()},
            "downloadUrl": url,
            **more,
        }
        version["files"].append(file)

        def redirect(request: Request) -> None:
            wanted = request.path.partition("fileId=")[2] or str(version["files"][0]["id"])
            request.reply(307, Location=f"{self.cdn.url}/{wanted}?X-Amz-Signature=s3cret")

        self.site.answers[path] = redirect
        return file

    def publish(self) -> None:
        """Let the API say what the model and its versions are now."""
        self.site.json["/api/v1/models/123"] = self.model
        for version in (self.version, self.older):
            self.site.json[f"/api/v1/model-versions/{version['id']}"] = version
            for file in version["files"]:
                for digits in (file["hashes"].get("SHA256", ""), file["hashes"].get("AutoV2", "")):
                    for text in (str(digits), str(digits).lower()):
                        self.site.json[f"/api/v1/model-versions/by-hash/{text}"] = version


class Hub:
    """A site that speaks Hugging Face's API: large files lie on another host, under their SHA-256."""

    COMMIT = "c0ffee" + "0" * 34

    def __init__(self, site: Site, cdn: Site) -> None:
        self.site, self.cdn, self.url = site, cdn, site.url

    def publish(self, repo: str, files: dict[str, bytes], commit: str = COMMIT, revision: str = "main") -> None:
        """A repository with these files."""
        siblings: list[dict[str, Any]] = []
        for name, body in files.items():
            path = f"/{repo}/resolve/{commit}/{name}"
            entry: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": git_sha1(body)}
            if name.endswith((".safetensors", ".bin", ".gguf", ".pt")):
                entry["lfs"] = {"sha256": sha256(body), "size": len(body), "pointerSize": 130}
                self.cdn.files[f"/{sha256(body)}"] = Served(body)
                self.site.answers[path] = lambda request, body=body: request.reply(  # type: ignore[misc]
                    302, Location=f"{self.cdn.url}/{sha256(body)}?sig=s3cret", X_Linked_Etag=f'"{sha256(body)}"'
                )
            else:
                self.site.files[path] = Served(body, etag=f'"{git_sha1(body)}"')
            siblings.append(entry)
        told = {"id": repo, "sha": commit, "siblings": siblings, "cardData": {"license": "openrail"}}
        for known in (revision, commit):
            self.site.json[f"/api/models/{repo}/revision/{known}"] = told


@pytest.fixture
def cdn() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture
def hub(cdn: Site) -> Iterator[Hub]:
    with running() as site:
        yield Hub(site, cdn)


@pytest.fixture
def there(cdn: Site, toy: bytes, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Civitai]:
    """Civitai; the home's settings say where it and the hub are, and that they may be on this machine."""
    monkeypatch.setenv("BOTTEGA_ALLOW_LOOPBACK", "1")
    for name in ("CIVITAI_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running() as site:
        home.mkdir()
        (home / "settings.toml").write_text(
            f'civitai_url = "{site.url}"\nhuggingface_url = "{hub.url}"\nstall_seconds = 1\nkeep_free_mb = 0\n'
        )
        yield Civitai(site, cdn, toy)


def shelf(home: Path) -> list[str]:
    """What lies on the home's shelf."""
    models = home / "models"
    return sorted(path.relative_to(models).as_posix() for path in models.rglob("*") if not path.is_dir())


BESIDE = ["checkpoints/toyModel_v2.civitai.info", "checkpoints/toyModel_v2.preview.png",
          "checkpoints/toyModel_v2.safetensors", "checkpoints/toyModel_v2.source.json"]  # fmt: skip


# --- Civitai ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "civitai:123", "civitai:123@456", "urn:air:sd1:checkpoint:civitai:123@456", "urn:air:sd1:model:civitai:123",
        "https://civitai.com/models/123", "https://civitai.com/models/123/some-name?modelVersionId=456",
        "https://civitai.com/api/download/models/456?type=Model&token=whatever", "{url}/models/123",
        "https://civitai.com/api/v1/model-versions/456", "civitai:{autov2}", "civitai:sha256:{sha256}",
    ],
)  # fmt: skip
def test_every_way_to_name_a_version(reference: str, there: Civitai, bottega: Command, home: Path, toy: bytes) -> None:
    words = reference.format(url=there.url, autov2=sha256(toy)[:10], sha256=sha256(toy).upper())
    ran = bottega("models", "get", words, "--json")
    assert ran.code == 0, ran.err
    (told,) = ran.json
    assert (told["status"], told["kind"], told["family"]) == ("installed", "checkpoint", "sd1")
    assert told["sha256"] == sha256(toy)
    assert shelf(home) == BESIDE
    assert (home / "models" / BESIDE[2]).read_bytes() == toy
    assert "whatever" not in json.dumps(there.site.requests)


def test_what_is_kept_beside_a_model(there: Civitai, bottega: Command, home: Path, toy: bytes) -> None:
    ran = bottega("models", "get", "civitai:123")
    assert ran.code == 0 and ran.out.startswith("installed"), ran.err
    assert f"{there.url}/models/123?modelVersionId=456" in ran.out and "allowCommercialUse: Image" in ran.out
    info, preview, model, source = (home / "models" / name for name in BESIDE)
    card = json.loads(info.read_text())
    assert (card["id"], card["modelId"], card["trainedWords"]) == (456, 123, ["toy"])
    assert card["model"]["description"] == "<p>It paints.</p>" and card["creator"]["username"] == "somebody"
    assert preview.read_bytes() == picture()
    told = json.loads(source.read_text())
    assert (told["site"], told["model"], told["version"], told["file"]) == ("civitai", 123, 456, 4560)
    assert (told["sha256"], told["size"], told["name"]) == (sha256(toy), len(toy), model.name)
    assert told["licence"] == {"allowNoCredit": True, "allowCommercialUse": ["Image"]}
    assert "s3cret" not in source.read_text()
    assert not model.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    listed = bottega("models", "list", "--json").json
    assert [(each["name"], each["sha256"]) for each in listed if each["name"] not in NAMES] == [
        ("toyModel_v2", sha256(toy))
    ]
    assert bottega("models", "scan", "--json").json["headers_read"] <= len(NAMES)  # those that come along, at most


def test_what_is_here_is_not_fetched_again(there: Civitai, bottega: Command, home: Path, toy: bytes) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.safetensors").write_bytes(toy)
    assert bottega("models", "scan", elsewhere).code == 0
    ran = bottega("models", "get", "civitai:123", "civitai:123@456", "--json")
    assert [told["status"] for told in ran.json] == ["already here", "already here"]
    assert {told["path"] for told in ran.json} == {str(elsewhere / "mine.safetensors")}
    assert there.cdn.paths() == [] and shelf(home) == []


def test_what_stands_behind_a_question_mark_is_kept_and_shown_nowhere(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    hub.publish("org/name", {"m.safetensors": small(tmp_path)})
    hub.publish("org/folder", diffusers_folder(small(tmp_path)))
    words = [
        f"{there.url}/models/123?modelVersionId=456&token={SECRET}",
        f"{hub.url}/org/name/blob/main/m.safetensors?token={SECRET}",
        f"{hub.url}/org/folder?token={SECRET}",
        f"{there.url}/models/7?token={SECRET}",
    ]
    for more in ([], ["--json"]):
        ran = bottega("models", "get", *words, *more)
        assert ran.code == 1 and f"{there.url}/models/7: " in ran.err and SECRET not in ran.out + ran.err
    assert [told["reference"] for told in ran.json] == [word.partition("?")[0] for word in (*words[3:], *words[:3])]
    kept = [path.read_text() for path in (home / "models").rglob("*.source.json")]
    assert len(kept) == 3 and not any(SECRET in text for text in kept)


def test_twice_the_same_is_fetched_once(there: Civitai, bottega: Command, home: Path) -> None:
    for status in ("installed", "already here"):
        ran = bottega("models", "get", "civitai:123", "https://civitai.com/models/123?modelVersionId=456", "--json")
        assert [told["status"] for told in ran.json] == [status, status], ran.err
    assert [path for path in there.cdn.paths() if path.startswith("/4560")] == ["/4560?X-Amz-Signature=s3cret"]
    (home / "models" / BESIDE[3]).unlink()
    assert bottega("models", "get", "civitai:123").code == 0
    assert shelf(home) == BESIDE


def test_which_file_of_a_version(there: Civitai, bottega: Command, home: Path, tmp_path: Path) -> None:
    there.version["files"][0]["primary"] = False
    pickle = there.add(there.version, 1, "toy.ckpt", b"\x80\x02}q\x00.", primary=True)
    half = there.add(there.version, 2, "toy_fp16.safetensors", small(tmp_path))
    half["metadata"]["fp"] = "fp16"
    there.add(there.version, 3, "training.zip", b"PK", type="Training Data")
    there.publish()
    chosen = {
        (): "toyModel_v2.safetensors",  # not the pickle, though it is the primary file
        ("--variant", "fp16"): "toy_fp16.safetensors",
        ("--file", "TOY_fp16.safetensors"): "toy_fp16.safetensors",
    }
    for words, name in chosen.items():
        ran = bottega("models", "get", "civitai:123", *words, "--json")
        assert Path(ran.json[0]["path"]).name == name, ran.err
    ran = bottega("models", "get", "civitai:123", "--file", pickle["name"])
    assert ran.code == 2
    ran = bottega("models", "get", "civitai:123", "--file", "none.safetensors")
    assert ran.code == 2 and "its files are toyModel_v2.safetensors, toy.ckpt" in ran.err


def test_the_address_by_id_serves_where_the_other_does_not(there: Civitai, bottega: Command) -> None:
    there.version["files"][0]["downloadUrl"] = f"{there.url}/gone?type=Model&format=SafeTensor"
    there.publish()
    ran = bottega("models", "get", "civitai:123", "--json")
    assert ran.code == 0, ran.err


def test_early_access_and_generation_only(there: Civitai, bottega: Command, home: Path) -> None:
    there.model["modelVersions"][0]["availability"] = "EarlyAccess"  # type: ignore[index]
    there.cdn.files["/4550"].faults = [answer(404)] * 2
    ran = bottega("models", "get", "civitai:123")
    assert ran.code == 1 and there.cdn.paths()[0].startswith("/4550")  # the older one, which can be had
    there.version["usageControl"] = "InternalGeneration"
    there.publish()
    ran = bottega("models", "get", "civitai:123@456")
    assert ran.code == 2 and "on the site only" in ran.err
    assert shelf(home) == []


@pytest.mark.parametrize(
    ("path", "value", "code", "told"),
    [
        ("/api/v1/models/123", [], 1, "no JSON object"),
        ("/api/v1/models/123", {}, 2, "nothing of it is published"),
        ("/api/v1/models/123", {"id": 123, "modelVersions": "x"}, 2, "nothing of it is published"),
        ("/api/v1/models/123", {"id": 123, "modelVersions": [{"id": 456, "files": "x"}]}, 2, "no model among its"),
        ("/api/v1/models/123", {"id": 123, "modelVersions": [{"id": 456, "files": [{}]}]}, 1, "no number id"),
        ("/api/v1/models/123", {"modelVersions": [{"id": 1, "files": [{"id": 1}]}]}, 1, "no number modelId"),
    ],
)
def test_answers_that_make_no_sense(
    path: str, value: Any, code: int, told: str, there: Civitai, bottega: Command, home: Path
) -> None:
    there.site.json[path] = value
    ran = bottega("models", "get", "civitai:123")
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert shelf(home) == []


def test_hostile_names_and_hashes(there: Civitai, bottega: Command, home: Path) -> None:
    file = there.version["files"][0]
    for name in ("../../../evil.safetensors", "/etc/x.safetensors", "..\\..\\a.safetensors", "a\0b.py",
                 "CON.safetensors", ".hidden.exe", "x" * 500, "\x1b[31m.safetensors", "", "...", 7):  # fmt: skip
        file["name"] = name
        there.publish()
        ran = bottega("models", "get", "civitai:123", "--json")
        assert ran.code == 0, ran.err
        path = Path(ran.json[0]["path"])
        assert path.parent == home / "models" / "checkpoints" and path.suffix == ".safetensors", path
        assert path.name.isprintable() and len(path.name) <= 130 and not path.name.startswith(".")
        for left in (home / "models").rglob("*.*"):
            left.unlink()
    file["hashes"] = {"SHA256": 7, "BLAKE3": "../x", "AutoV2": None}
    file["sizeKB"] = "many"
    there.publish()
    assert bottega("models", "get", "civitai:123").code == 0


def test_other_bytes_than_promised_are_thrown_away(there: Civitai, bottega: Command, home: Path) -> None:
    there.cdn.files["/4560"].faults = [flip(100)]
    ran = bottega("models", "get", "civitai:123")
    assert ran.code == 1 and "its sha256 is" in ran.err
    assert shelf(home) == []
    assert bottega("models", "get", "civitai:123", "--sha256", "0" * 64).code == 2
    assert bottega("models", "get", "civitai:123", "--sha256", "xyz").code == 2
    assert shelf(home) == []


@pytest.mark.parametrize(("kind", "at"), [("AutoV1", (1 << 20) + 9), ("AutoV3", -1)])
def test_hashes_of_a_part_are_checked_where_no_other_is_told(
    kind: str, at: int, there: Civitai, bottega: Command, home: Path, tmp_path: Path
) -> None:
    body = big(tmp_path, 2)
    tensors = 8 + int.from_bytes(body[:8], "little")
    told = {"AutoV1": sha256(body[1 << 20 : 0x110000])[:8].upper(), "AutoV3": sha256(body[tensors:])[:12].upper()}
    there.add(there.version, 1, "old.safetensors", body, hashes={kind: told[kind]})
    there.publish()
    there.cdn.files["/1"].faults = [flip(at)]
    ran = bottega("models", "get", "civitai:123", "--file", "old.safetensors")
    assert ran.code == 1 and f"its {kind.lower()} is" in ran.err
    assert shelf(home) == []
    assert bottega("models", "get", "civitai:123", "--file", "old.safetensors").code == 0


def test_a_hash_that_a_short_file_does_not_have_is_not_compared(
    there: Civitai, bottega: Command, tmp_path: Path
) -> None:
    body = small(tmp_path)
    there.add(there.version, 1, "short.safetensors", body, hashes={"AutoV1": "E3B0C442"})
    there.publish()
    assert bottega("models", "get", "civitai:123", "--file", "short.safetensors").code == 0


def test_a_login_page_and_a_preview_that_is_none(there: Civitai, bottega: Command, home: Path) -> None:
    there.cdn.files["/picture.png"] = Served(b"<html><script>")
    assert bottega("models", "get", "civitai:123").code == 0
    assert shelf(home) == [name for name in BESIDE if "preview" not in name]
    there.site.answers["/api/download/models/455"] = lambda request: request.reply(
        307, Location="/login?returnUrl=x&reason=download-auth"
    )
    ran = bottega("models", "get", "civitai:123@455")
    assert ran.code == 1 and "wants you to log in; log in there, make a key at" in ran.err
    assert f"write it to {home / 'tokens.toml'}" in ran.err and "CIVITAI_TOKEN" in ran.err


# --- any address -----------------------------------------------------------------------------------------------------


def test_any_address(there: Civitai, bottega: Command, home: Path, tmp_path: Path) -> None:
    body = small(tmp_path)
    there.cdn.files["/files/my%20model.safetensors"] = Served(body)
    url = f"{there.cdn.url}/files/my%20model.safetensors?key=s3cret"
    ran = bottega("models", "get", url, "--json")
    assert ran.code == 0, ran.err
    assert shelf(home) == ["other/my model.safetensors", "other/my model.source.json"]
    told = json.loads((home / "models/other/my model.source.json").read_text())
    assert told["site"] == "url" and "s3cret" not in json.dumps(told) + ran.out
    assert bottega("models", "get", url, "--json").json[0]["status"] == "already here"
    assert there.cdn.header("If-None-Match")[-1] == there.cdn.files["/files/my%20model.safetensors"].etag
    # The file there changes: the new one does not take the place of the old one.
    there.cdn.files["/files/my%20model.safetensors"] = Served(small(tmp_path, fill=1))
    ran = bottega("models", "get", url)
    assert ran.code == 2 and "a different file of that name is there" in ran.err
    before = len(there.cdn.requests)
    assert bottega("models", "get", url, "--name", "second").code == 0
    ((_, asked),) = there.cdn.requests[before:]
    assert "If-None-Match" in asked  # it was only asked whether the first one is still the same: the other had arrived
    assert "other/second.safetensors" in shelf(home)
    assert (home / "models/other/my model.safetensors").read_bytes() == body


def test_into_another_folder_under_another_name(there: Civitai, bottega: Command, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "else" / "where"
    ran = bottega("models", "get", "civitai:123", "--to", target, "--name", "../Ünïcode 名.exe", "--json")
    assert ran.code == 0, ran.err
    assert Path(ran.json[0]["path"]) == target / "Ünïcode 名.safetensors"
    assert sorted(path.name for path in target.iterdir())[-1] == "Ünïcode 名.source.json"
    assert shelf(home) == []


def test_what_was_here_under_another_name_is_not_kept_twice(
    there: Civitai, bottega: Command, home: Path, toy: bytes
) -> None:
    there.cdn.files["/same.safetensors"] = Served(toy)
    assert bottega("models", "get", "civitai:123").code == 0
    ran = bottega("models", "get", f"{there.cdn.url}/same.safetensors", "--json")
    assert ran.json[0]["status"] == "already here" and ran.json[0]["path"].endswith(BESIDE[2])
    assert shelf(home) == BESIDE


def test_what_is_on_no_shelf_is_not_here(
    there: Civitai, bottega: Command, home: Path, tmp_path: Path, toy: bytes
) -> None:
    there.cdn.files["/same.safetensors"] = Served(toy)
    (tmp_path / "Downloads").mkdir()
    used = tmp_path / "Downloads" / "toy.safetensors"
    used.write_bytes(toy)
    assert bottega("models", "show", used).code == 0 and bottega("models", "hash", used).code == 0
    ran = bottega("models", "get", "civitai:123", "--json")
    assert ran.json[0]["status"] == "installed" and shelf(home) == BESIDE
    for word in ("civitai:123", f"{there.cdn.url}/same.safetensors"):  # of the second its hash is not told
        for status in ("installed", "already here"):
            folder = tmp_path / word[:7]
            ran = bottega("models", "get", word, "--to", folder, "--json")
            assert ran.json[0]["status"] == status and Path(ran.json[0]["path"]).parent == folder
            assert Path(ran.json[0]["path"]).read_bytes() == toy


def damage(path: Path, at: int = -1) -> None:
    """Flip a bit of a file in place; its size stays."""
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(1, 1))  # whatever the clock's grain, its time is another one


@pytest.mark.parametrize("words", [(), ("--sha256", "{sha256}")])
def test_other_bytes_in_the_place_of_what_was_fetched_are_not_taken_for_it(
    words: tuple[str, ...], there: Civitai, bottega: Command, home: Path, toy: bytes
) -> None:
    there.cdn.files["/toy.safetensors"] = Served(toy)
    url = f"{there.cdn.url}/toy.safetensors"
    more = [word.format(sha256=sha256(toy)) for word in words]
    assert bottega("models", "get", url, *more).code == 0
    path = home / "models/checkpoints/toy.safetensors"
    damage(path)
    ran = bottega("models", "get", url, *more)
    assert ran.code == 2 and f"{path}: it has other bytes than were fetched" in ran.err
    assert "move it away and get it again, or give the new one another name" in ran.err
    with open_catalog(home / "catalog.sqlite") as catalog:
        assert catalog.with_sha256(sha256(toy)) == []
        assert [entry.path for entry in catalog.with_sha256(sha256(path.read_bytes()))] == [path]
    assert bottega("models", "get", url, *more, "--name", "whole").code == 0
    assert (path.parent / "whole.safetensors").read_bytes() == toy
    damage(path.parent / "whole.safetensors")
    for spoilt in (path, path.parent / "whole.safetensors"):
        spoilt.rename(home / spoilt.name)
    assert bottega("models", "get", url, *more, "--json").json[0]["path"] == str(path)
    assert path.read_bytes() == toy


def test_a_catalog_that_is_new_hashes_what_was_fetched(
    there: Civitai, bottega: Command, home: Path, toy: bytes
) -> None:
    assert bottega("models", "get", "civitai:123").code == 0
    (home / "catalog.sqlite").unlink()
    assert bottega("models", "get", "civitai:123", "--json").json[0]["status"] == "already here"
    (home / "catalog.sqlite").unlink()
    damage(home / "models" / BESIDE[2])
    ran = bottega("models", "get", "civitai:123")
    assert ran.code == 2 and "other bytes than were fetched" in ran.err


PICKLE_BOMB = b"cos\nsystem\n(S'touch %s'\ntR."


def zipped(pickle: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pt", "a.bin", "a.py", "a.exe"])
def test_what_is_no_model_is_never_put_on_the_shelf(
    name: str, there: Civitai, bottega: Command, home: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    bomb = PICKLE_BOMB % bytes(canary)
    truncated = small(tmp_path)[:-3]
    for body in (bomb, b"\x80\x02" + bomb, zipped(bomb), zipped(b"\x80\x02" + bomb), b"\x7fELF" + bytes(99),
                 b"MZ\x90\0", b"#!/bin/sh\ntouch x\n", b"import os\n", b"<!doctype html>", b'{"error": 1}', truncated,
                 b"GGUF" + bytes(9), b"\0" * 100, zipped(b"")):  # fmt: skip
        there.cdn.files[f"/{name}"] = Served(body)
        for allow in ((), ("--allow-unusual",)):
            ran = bottega("models", "get", f"{there.cdn.url}/{name}", *allow)
            assert ran.code == 2, (body[:30], ran.err)
            assert ".downloads" not in ran.err
    assert shelf(home) == [] and not canary.exists()


def test_an_unusual_model_is_put_there_only_if_the_user_allows_it(
    there: Civitai, bottega: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusual(path: Path) -> Header:
        header = read_header(path)
        return Header(path, "pickle", header.tensors, safety=Safety("unusual", ("a.b",), ("it mentions a.b",)))

    monkeypatch.setattr(install, "read_header", unusual)
    ran = bottega("models", "get", "civitai:123")
    assert ran.code == 2 and "it mentions a.b" in ran.err and "allow unusual names" in ran.err
    assert not any(path.endswith((".pt", ".safetensors")) for path in shelf(home))
    before = there.cdn.sent["/4560"]
    ran = bottega("models", "get", "civitai:123", "--allow-unusual", "--json")
    assert ran.code == 0 and there.cdn.sent["/4560"] == before
    assert ran.json[0]["path"].endswith("toyModel_v2.pt")


def test_one_that_fails_keeps_no_other_away(there: Civitai, bottega: Command, home: Path, tmp_path: Path) -> None:
    there.cdn.files["/good.safetensors"] = Served(small(tmp_path))
    there.cdn.files["/bad.safetensors"] = Served(b"<html>")
    words = [f"{there.cdn.url}/{name}.safetensors" for name in ("bad", "gone", "good")]
    ran = bottega("models", "get", *words, "nonsense", "--json")
    assert ran.code == 2
    by_name = {told["reference"]: told for told in ran.json}
    assert [by_name[word]["status"] for word in (*words, "nonsense")] == ["failed", "failed", "installed", "failed"]
    assert "web page" in by_name[words[0]]["error"] and "answered 404" in by_name[words[1]]["error"]
    assert "other/good.safetensors" in shelf(home)


@pytest.mark.parametrize(
    "word", ["", "nonsense", "civitai:", "civitai:x", "civitai:123@", "hf:", "hf:a b", "hf:../../x", "hf:org/name@",
             "https://civitai.com/images/1", "https://huggingface.co/datasets/a/b", "https://huggingface.co/a b/c",
             "http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "https://169.254.169.254/", "file:///etc/passwd",
             "data:,x", "hf:a/b/../c", "https://huggingface.co/a/b/blob/main/%2e%2e/c", "https://[::1", "https://0x7f.1/x"]
)  # fmt: skip
def test_references_that_mean_nothing(word: str, bottega: Command, home: Path) -> None:
    ran = bottega("models", "get", word)
    assert ran.code == 2 and ran.err.count("\n") <= 2, ran.err


# --- Hugging Face ----------------------------------------------------------------------------------------------------


def diffusers_folder(toy_part: bytes) -> dict[str, bytes]:
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    return {
        "model_index.json": json.dumps(index).encode(),
        "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}',
        "unet/diffusion_pytorch_model.safetensors": toy_part,
        "unet/diffusion_pytorch_model.fp16.safetensors": b"another precision",
        "unet/diffusion_pytorch_model.bin": b"\x80\x02.",
        "unet/evil.py": b"import os",
        "scheduler/scheduler_config.json": b"{}",
        "v1-5-pruned.safetensors": toy_part,
        "README.md": b"# Card",
        "LICENSE": b"Be good.",
        "setup.py": b"import os",
        ".gitattributes": b"x",
        "run.sh": b"#!/bin/sh",
        "picture.png": picture(),
    }


@pytest.mark.parametrize(
    "reference",
    ["hf:org/name/sub/m.safetensors", "hf:org/name@main/sub/m.safetensors", "hf:org/name",
     "https://huggingface.co/org/name/blob/main/sub/m.safetensors", "{url}/org/name/resolve/main/sub/m.safetensors",
     "https://hf.co/org/name/resolve/main/sub/m.safetensors?download=true"],
)  # fmt: skip
def test_one_file_of_a_repository(
    reference: str, there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    body = small(tmp_path)
    hub.publish("org/name", {"sub/m.safetensors": body, "README.md": b"# Card", "LICENSE": b"Be good."})
    ran = bottega("models", "get", reference.format(url=hub.url), "--json")
    assert ran.code == 0, ran.err
    (told,) = ran.json
    assert told["sha256"] == sha256(body) and told["licence"] == {"license": "openrail"}
    assert shelf(home) == ["other/m.license.txt", "other/m.md", "other/m.safetensors", "other/m.source.json"]
    assert (home / "models/other/m.md").read_bytes() == b"# Card"
    source = json.loads((home / "models/other/m.source.json").read_text())
    assert (source["repo"], source["commit"], source["path"]) == ("org/name", Hub.COMMIT, "sub/m.safetensors")
    assert bottega("models", "get", reference.format(url=hub.url), "--json").json[0]["status"] == "already here"


def test_a_whole_folder(there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path) -> None:
    hub.publish("org/Pipe", diffusers_folder(small(tmp_path)))
    ran = bottega("models", "get", "hf:org/Pipe", "--json")
    assert ran.code == 0, ran.err
    base = Path(ran.json[0]["path"])
    inside = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
    assert inside == ["LICENSE", "README.md", "model_index.json", "picture.png", "scheduler/scheduler_config.json",
                      "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]  # fmt: skip
    assert base.with_name("Pipe.source.json").is_file()
    assert bottega("models", "get", "hf:org/Pipe", "--json").json[0]["status"] == "already here"
    assert not (home / "models/.downloads").exists()


@pytest.mark.parametrize("reference", ["hf:org/Pete", "hf:org/Pete/adapter_model.safetensors"])
def test_an_adapter_of_peft_comes_with_the_config_that_says_how_strong_it_is(
    reference: str, there: Civitai, hub: Hub, bottega: Command, tmp_path: Path
) -> None:
    files = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": small(tmp_path)}
    more = {"checkpoint-1/adapter_model.safetensors": b"x", "checkpoint-1/optimizer.safetensors": b"x", "run.py": b"x"}
    hub.publish("org/Pete", {**files, **more, "README.md": b"# Card"})
    ran = bottega("models", "get", reference, "--json")
    assert ran.code == 0, ran.err
    base = Path(ran.json[0]["path"])
    assert base.name == "Pete"
    assert sorted(path.name for path in base.iterdir()) == ["README.md", *sorted(files)]
    (told,) = bottega("models", "get", reference, "--json").json
    assert (told["status"], told["path"]) == ("already here", str(base))


def test_an_adapter_of_mlx_comes_with_its_config(there: Civitai, hub: Hub, bottega: Command, tmp_path: Path) -> None:
    hub.publish("org/Max", {"adapter_config.json": b"{}", "adapters.safetensors": small(tmp_path)})
    ran = bottega("models", "get", "hf:org/Max", "--json")
    assert ran.code == 0, ran.err
    assert (Path(ran.json[0]["path"]) / "adapter_config.json").is_file()


def test_a_folder_that_is_no_longer_whole_is_not_taken_for_it(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    hub.publish("org/Pipe", diffusers_folder(small(tmp_path)))
    base = Path(bottega("models", "get", "hf:org/Pipe", "--json").json[0]["path"])
    weights = base / "unet/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    (base / "mine.txt").write_text("What the user adds is no damage.")
    assert bottega("models", "get", "hf:org/Pipe", "--json").json[0]["status"] == "already here"
    for spoil in (damage, Path.unlink):
        spoil(weights)
        ran = bottega("models", "get", "hf:org/Pipe")
        assert ran.code == 2 and f"{base}: it has other bytes than were fetched" in ran.err
        weights.write_bytes(whole)
    damage(base / "scheduler/scheduler_config.json", 0)
    assert bottega("models", "get", "hf:org/Pipe").code == 2
    base.rename(tmp_path / "away")
    assert bottega("models", "get", "hf:org/Pipe", "--json").json[0]["status"] == "installed"
    assert weights.read_bytes() == whole


def test_what_is_said_of_the_hash_of_a_folder_is_true(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    hub.publish("org/Pipe", diffusers_folder(small(tmp_path)))
    told = bottega("models", "get", "hf:org/Pipe", "--json").json[0]
    (home / "catalog.sqlite").unlink()
    assert bottega("models", "hash", told["path"], "--json").json[0]["sha256"] == told["sha256"]


def test_the_names_in_a_folder_are_on_disk_before_it_gets_its_own(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("org/name", diffusers_folder(small(tmp_path)))
    synced: list[tuple[set[str], bool]] = []

    def sync(staging: Path) -> None:
        names = {path.name for path in staging.rglob("*") if path.is_file()}
        synced.append((names, any(path.name == "name" for path in (home / "models").glob("*/*"))))

    monkeypatch.setattr(install, "sync_tree", sync)
    assert bottega("models", "get", "hf:org/name").code == 0
    ((names, was_there),) = synced
    assert "model_index.json" in names and not any(name.endswith(".part") for name in names) and not was_there


def test_a_folder_that_breaks_off_goes_on_file_by_file(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    body = small(tmp_path)
    hub.publish("org/Pipe", diffusers_folder(body))
    hub.cdn.files[f"/{sha256(body)}"].faults = [answer(403)]
    # One after the other: what was on its way beside the one that broke off would come twice.
    home.mkdir(exist_ok=True)
    with (home / "settings.toml").open("a") as settings:
        settings.write("parallel_downloads = 1\n")
    ran = bottega("models", "get", "hf:org/Pipe")
    assert ran.code == 1 and "answered 403" in ran.err
    assert all(name.startswith(".downloads/") for name in shelf(home))
    assert bottega("models", "get", "hf:org/Pipe").code == 0
    small_files = [path for path in hub.site.paths() if "/resolve/" in path and not path.endswith(".safetensors")]
    assert len(small_files) == len(set(small_files)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"model_index.json": b'{"_class_name": ["pipeline", "Evil"]}'},
        {"unet/config.json": b'{"_class_name": "UNet2DConditionModel", "auto_map": {"AutoModel": "evil.Evil"}}'},
        {"unet/diffusion_pytorch_model.safetensors": b"<html>"},
        {"unet/diffusion_pytorch_model.safetensors": b"\x80\x02}."},
        {"../../evil.safetensors": b"x"},
        {"unet/..\\..\\evil.safetensors": b"x"},
        {"/etc/config.json": b"{}"},
        {"unet/con.safetensors": b"x"},
        {"UNET/config.json": b"{}"},
        {"a/b/c/d/e/config.json": b"{}"},
    ],
)
def test_a_folder_with_something_foul_in_it(
    change: dict[str, bytes], there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    files = diffusers_folder(small(tmp_path)) | change
    del files["unet/diffusion_pytorch_model.fp16.safetensors"]
    hub.publish("org/Pipe", files)
    ran = bottega("models", "get", "hf:org/Pipe")
    if any(name.startswith(("../", "unet/..", "/", "unet/con", "a/b")) for name in change) and ran.code == 0:
        # What nobody should have a file called is left out.
        assert not any(word in name for word in ("evil", "etc", "con.", "a/b") for name in shelf(home))
        return
    assert ran.code == 2, ran.err
    assert [name for name in shelf(home) if not name.startswith(".downloads/")] == []
    assert not (home.parent / "evil.safetensors").exists()


def test_choosing_among_models(there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path) -> None:
    files = {f"m-{kind}.safetensors": small(tmp_path, fill=index) for index, kind in enumerate(("fp16", "fp32", "q8"))}
    hub.publish("org/Many", {**files, "m.py": b"", "x-00001-of-00002.safetensors": b"x"})
    ran = bottega("models", "get", "hf:org/Many")
    assert ran.code == 2 and "its model files are m-fp16.safetensors, m-fp32.safetensors, m-q8.safetensors" in ran.err
    assert bottega("models", "get", "hf:org/Many", "--variant", "fp16").code == 0
    assert bottega("models", "get", "hf:org/Many", "--file", "m-q8.safetensors").code == 0
    assert [name for name in shelf(home) if name.endswith("safetensors")] == [
        "other/m-fp16.safetensors", "other/m-q8.safetensors",
    ]  # fmt: skip
    for wrong in ("hf:org/Many/m.py", "hf:org/Many/none.safetensors", "hf:org/Many/x-00001-of-00002.safetensors"):
        assert bottega("models", "get", wrong).code == 2
    hub.publish("org/Pickles", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02."})
    ran = bottega("models", "get", "hf:org/Pickles")
    assert ran.code == 2 and "look for a version in safetensors" in ran.err


def pieces(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """The files of a GGUF in three pieces."""
    return {f"{prefix}{path.name}": path.read_bytes() for path in sorted(split(folder).parent.glob("*.gguf"))}


@pytest.mark.parametrize(
    "words",
    [["hf:org/Big/Q4_K_M/big-00001-of-00003.gguf"], ["hf:org/Big/Q4_K_M/big-00002-of-00003.gguf"],
     ["hf:org/Big/Q4_K_M"], ["hf:org/Big", "--variant", "q4_k_m"],
     ["hf:org/Big", "--file", "Q4_K_M/big-00001-of-00003.gguf"]],
)  # fmt: skip
def test_a_gguf_in_pieces_is_one_model(
    words: list[str], there: Civitai, hub: Hub, bottega: Command, tmp_path: Path
) -> None:
    whole, more = pieces(tmp_path), {"config.json": b"{}", "README.md": b"# Card", "tiny-Q2_K.gguf": b"x"}
    hub.publish("org/Big", {**{f"Q{bits}_K_M/{name}": whole[name] for bits in (4, 8) for name in whole}, **more})
    ran = bottega("models", "get", *words, "--json")
    assert ran.code == 0, ran.err
    (told,) = ran.json
    path = Path(told["path"])
    assert (path.parent.name, path.name, told["sha256"]) == ("big", min(whole), sha256(whole[min(whole)]))
    assert {name: (path.parent / name).read_bytes() for name in whole} == whole
    assert path.with_name("big-00001-of-00003.md").read_bytes() == b"# Card"
    assert bottega("models", "get", *words, "--json").json[0]["status"] == "already here"
    damage(path.with_name("big-00003-of-00003.gguf"))
    assert "it has other bytes than were fetched" in bottega("models", "get", *words).err


def test_a_gguf_in_pieces_is_all_that_a_repository_has(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path
) -> None:
    whole = pieces(tmp_path)
    hub.publish("org/Big", whole)
    assert bottega("models", "get", "hf:org/Big").code == 0
    assert sorted(Path(name).name for name in shelf(home) if name.endswith("gguf")) == sorted(whole)
    hub.publish("org/Less", dict(list(whole.items())[:2]))
    ran = bottega("models", "get", "hf:org/Less")
    assert ran.code == 2 and "1 of its 3 pieces are not there: big-00003-of-00003.gguf" in ran.err


def test_what_the_hub_says_when_it_says_no(there: Civitai, hub: Hub, bottega: Command, monkeypatch: Any) -> None:
    answers = {
        "gated": (401, {"X_Error_Code": "GatedRepo", "X_Error_Message": "Access is restricted"}, "accept the licence"),
        "none": (
            401,
            {"X_Error_Code": "RepoNotFound"},
            "Hugging Face has no model org/none, or only for those who log in",
        ),
        "plain": (401, {}, "Hugging Face has no model org/plain, or only for those who log in"),
        "gone": (404, {}, "Hugging Face does not know org/gone@main"),
    }
    for name, (status, headers, told) in answers.items():
        path = f"/api/models/org/{name}/revision/main"
        hub.site.answers[path] = lambda request, s=status, h=headers: request.reply(s, b"no", **h)  # type: ignore[misc]
        ran = bottega("models", "get", f"hf:org/{name}")
        assert ran.code == 1 and told in ran.err, ran.err


def test_folders_are_filtered_by_what_may_be_there() -> None:
    good = ("model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors", "a.gguf", "config.json", "README.md",
            "model.safetensors.index.json", "model.safetensors.index.fp16.json", "tokenizer/vocab.json", "LICENSE",
            "LICENSE.md", "tokenizer.model", "tokenizer/merges.txt", "scheduler/scheduler_config.json")  # fmt: skip
    bad = ("a.py", "a.safetensors.py", "README.py", "LICENSE.exe", "a.so", "a.pkl", "a.bin", "a.pt", "x.sh",
           ".gitattributes", "readme.html", "x.safetensors/evil.pyc", "index.json", "a.dll", "Make", "")  # fmt: skip
    assert [name for name in good if not folder.installable(name)] == []
    assert [name for name in bad if folder.installable(name)] == []


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf:gpt2", ("gpt2", "main", "")),
        ("hf:org/name", ("org/name", "main", "")),
        ("hf:org/name@v1.0", ("org/name", "v1.0", "")),
        ("hf:org/name@refs/pr/7/a/b.gguf", ("org/name", "refs/pr/7", "a/b.gguf")),
        ("hf:org/name/a/b.gguf", ("org/name", "main", "a/b.gguf")),
        ("https://huggingface.co/org/name", ("org/name", "main", "")),
        ("https://huggingface.co/org/name/tree/main", ("org/name", "main", "")),
        ("https://huggingface.co/org/name/tree/v2/unet", ("org/name", "v2", "unet")),
        ("https://huggingface.co/org/name/blob/refs/pr/7/a%20b.gguf", ("org/name", "refs/pr/7", "a b.gguf")),
        ("https://huggingface.co/gpt2/resolve/main/model.safetensors", ("gpt2", "main", "model.safetensors")),
        ("https://mirror.test/hub/org/name/blob/main/x.gguf", ("org/name", "main", "x.gguf")),
    ],
)
def test_references_of_the_hub(text: str, reference: tuple[str, str, str]) -> None:
    assert huggingface.read_reference(text, "https://mirror.test/hub") == huggingface.Reference(*reference)


def test_references_that_mean_something_elsewhere() -> None:
    url = "https://example.org/models/123"
    assert civitai.read_reference(url, "https://civitai.com") is None
    assert civitai.read_reference("https://civitai.com.evil.test/models/1", "https://civitai.com") is None
    assert huggingface.read_reference(url, "https://huggingface.co") is None
    with pytest.raises(BadReference):
        huggingface.read_reference("https://huggingface.co/spaces/a/b", "https://huggingface.co")


@pytest.mark.parametrize(
    ("suggested", "name"),
    [
        ("a b.safetensors", "a b.safetensors"), ("../../x", "x.safetensors"), ("a\\b/c\\d.ckpt", "d.safetensors"),
        ("CON", "_CON.safetensors"), ("nul.txt", "_nul.safetensors") , ("", "model.safetensors"),
        ("..", "model.safetensors"), ("模型.SAFETENSORS", "模型.safetensors"), ("a\0\x1b\u202eb", "a___b.safetensors"),
        ("<img src=x onerror=alert(1)>.safetensors", "img src_x onerror_alert(1).safetensors"),
        ("a:b", "a_b.safetensors"), ("v1.5", "v1.safetensors"), ("v1.5.safetensors", "v1.5.safetensors"),
        ("e\u0301", "é.safetensors"),
    ],
)  # fmt: skip
def test_safe_names(suggested: str, name: str) -> None:
    assert safe_name(suggested, ".safetensors") == name


def test_a_folder_keeps_the_dots_in_its_name() -> None:
    assert [safe_name(name, "") for name in ("a/v1.5", "..", ".x", "con.1")] == ["v1.5", "model", "x", "_con.1"]


def test_long_names_are_cut_between_characters() -> None:
    name = safe_name("模" * 200, ".safetensors")
    assert len(name.encode()) <= 120 and set(name.removesuffix(".safetensors")) == {"模"}


@pytest.mark.parametrize(
    "paths",
    [["a/../b"], ["/a"], ["a//b"], ["a\\b"], ["a\0"], [".a/b"], ["a."], ["a "], ["aux"], ["c:x"], ["a/b/c/d/e"],
     ["A", "a"], ["é", "e\u0301"], ["x" * 121], [f"{index}" for index in range(1001)], ["a\n"], ["\u202ea"]],
)  # fmt: skip
def test_paths_that_no_folder_may_have(paths: list[str]) -> None:
    with pytest.raises(BottegaError):
        check_paths(paths)
    check_paths(["unet/a b.safetensors", "config.json", "README.md"])


# --- updates and identities ------------------------------------------------------------------------------------------


def test_check_updates(there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path, toy: bytes) -> None:
    body = small(tmp_path)
    there.cdn.files["/4550"] = Served(body)
    there.older["files"][0] |= {"hashes": {"SHA256": sha256(body)}, "sizeKB": len(body) / 1024}
    there.publish()
    hub.publish("org/name", {"m.safetensors": small(tmp_path, "blue")})
    for word in ("civitai:123@455", "hf:org/name/m.safetensors"):
        ran = bottega("models", "get", word)
        assert ran.code == 0, ran.err
    told = {each["name"]: each for each in bottega("models", "check-updates", "--json").json}
    assert [newer["reference"] for newer in told["toyModel_v1"]["newer"]] == ["civitai:123@456"]
    assert told["m"]["newer"] == []
    # A commit that leaves the file alone is no news; one that changes it is.
    for fill, count in ((0, 0), (1, 1)):
        hub.publish("org/name", {"m.safetensors": small(tmp_path, "blue", fill=fill)}, commit=str(fill) * 40)
        (each,) = bottega("models", "check-updates", "m", "--json").json
        assert len(each["newer"]) == count
    ran = bottega("models", "check-updates")
    assert "civitai:123@456" in ran.out and "hf:org/name@1111" in ran.out and "0 models up to date" in ran.err
    there.site.json.clear()
    (each,) = bottega("models", "check-updates", "toyModel_v1", "--json").json
    assert "does not know" in each["error"]


def test_identify_online(there: Civitai, bottega: Command, home: Path, tmp_path: Path, toy: bytes) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.bin.safetensors").write_bytes(toy)
    small(elsewhere, "blue")
    assert bottega("models", "scan", elsewhere).code == 0
    assert there.site.requests == []  # nothing asks the network unasked
    ran = bottega("models", "identify-online", "--json")
    by_name = {told["name"]: told for told in ran.json}
    assert by_name["blue"]["known"] is False
    told = by_name["model.bin"]
    assert (told["model"], told["version"], told["base_model"]) == ("Toy", "v2", "SD 1.5")
    assert told["page"] == f"{there.url}/models/123?modelVersionId=456"
    card = home / "cards" / f"{sha256(toy)}.civitai.info"
    assert told["card"] == str(card) and json.loads(card.read_text())["creator"]["username"] == "somebody"
    assert sorted(path.name for path in elsewhere.iterdir()) == ["blue.safetensors", "model.bin.safetensors"]
    # It is shown and found by what Civitai says, also when its header is read again.
    for words in ((), ("--forget-missing",)):
        (elsewhere / "model.bin.safetensors").touch()
        assert bottega("models", "scan", elsewhere, *words).code == 0
        about = bottega("models", "show", "model.bin", "--json").json["about"]
        assert (about["author"], about["triggers"]) == ("somebody", ["toy"])
        assert [told["name"] for told in bottega("models", "list", "--search", "somebody", "--json").json] == [
            "model.bin"
        ]
    # The next time it is known, and its updates can be looked for.
    assert [told["name"] for told in bottega("models", "identify-online", "--json").json] == ["blue"]
    assert bottega("models", "check-updates", "model.bin", "--json").json[0]["newer"] == []
    ran = bottega("models", "identify-online", "model.bin", "--write")
    assert "Toy" in ran.out and "Civitai knows 1 model of 1" in ran.err
    assert (elsewhere / "model.bin.civitai.info").exists()


def test_one_answer_that_fails_keeps_no_other_model_from_being_told(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path, toy: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.library.sources.client.ATTEMPTS", 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    busy = sha256(small(elsewhere, "blue"))
    small(elsewhere, "red")
    (elsewhere / "toy.safetensors").write_bytes(toy)
    assert bottega("models", "scan", elsewhere).code == 0
    (elsewhere / "red.safetensors").unlink()
    by_hash = f"/api/v1/model-versions/by-hash/{busy}"
    there.site.answers[by_hash] = lambda request: request.reply(429)
    ran = bottega("models", "identify-online", "--json")
    told = {each["name"]: each for each in ran.json}
    assert ran.code == 1 and told["toy"]["known"] and told["toy"]["error"] is None
    assert "429" in told["blue"]["error"] and "red.safetensors" in told["red"]["error"]
    ran = bottega("models", "identify-online")
    assert ran.code == 1 and "blue: " in ran.err and "429" in ran.err and "Civitai knows 0 models of 2" in ran.err

    hub.publish("org/name", {"m.safetensors": small(tmp_path)})
    assert bottega("models", "get", "hf:org/name/m.safetensors").code == 0
    there.site.answers["/api/v1/models/123"] = lambda request: request.reply(503)
    for more in ([], ["--json"]):
        ran = bottega("models", "check-updates", *more)
        assert ran.code == 1 and ("503" in ran.err or more)
    told = {each["name"]: each for each in ran.json}
    assert "503" in told["toy"]["error"] and (told["m"]["error"], told["m"]["newer"]) == (None, [])


# --- keys, interrupts, speed -----------------------------------------------------------------------------------------


def test_keys_are_nowhere_but_where_they_belong(
    there: Civitai, hub: Hub, bottega: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted keys: the sites see them, nothing else does; not their CDN, no file, no output, not even a trace."""
    keys = {"civitai": f"{SECRET}-a", "huggingface": f"{SECRET}-b"}
    (home / "tokens.toml").write_text("".join(f'{name} = "{key}"\n' for name, key in keys.items()))
    (home / "tokens.toml").chmod(0o600)
    hub.publish("org/name", {"m.safetensors": small(tmp_path), "README.md": b"# Card"})
    said = []
    for words in (("civitai:123",), ("hf:org/name",)):
        ran = bottega("models", "get", *words)
        assert ran.code == 0, ran.err
        said.append(ran.out + ran.err)
    repeats = f'{{"error": "Bearer {SECRET}-a is wrong"}}'.encode()
    there.site.answers["/api/v1/models/99"] = lambda request: request.reply(401, repeats)
    there.site.answers["/api/v1/models/98"] = lambda request: request.reply(
        302, Location=f"https://10.0.0.1/{SECRET}"[:20]
    )
    hub.site.answers["/api/models/org/x/revision/main"] = lambda request: request.reply(
        403, X_Error_Message=f"{SECRET}-b"
    )
    monkeypatch.setenv("BOTTEGA_DEBUG", "1")
    for word in ("civitai:99", "civitai:98", "hf:org/x"):
        environment = {**os.environ, "BOTTEGA_HOME": str(home), "BOTTEGA_ALLOW_LOOPBACK": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "bottega", "models", "get", word], env=environment, capture_output=True, text=True
        )
        assert done.returncode in (1, 2)
        said.append(done.stdout + done.stderr)
    assert SECRET not in "".join(said)
    for file in home.rglob("*"):
        if file.is_file() and file.name != "tokens.toml":
            assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in json.dumps([there.cdn.requests, there.site.paths(), hub.site.paths()])
    assert f"Bearer {keys['civitai']}" in there.site.header("Authorization")
    assert f"Bearer {keys['huggingface']}" in hub.site.header("Authorization")
    assert set(hub.site.header("Authorization")) == {f"Bearer {keys['huggingface']}"}


def slowly(request: Request, served: Served) -> None:
    status, start, headers = head_of(request, served)
    request.begin(status, headers)
    for at in range(start, len(served.body), 32 << 10):
        request.send(served.body[at : at + (32 << 10)])
        time.sleep(0.005)


def big(folder: Path, megabytes: int) -> bytes:
    path = folder / "big.safetensors"
    size = megabytes << 20
    safetensors.write(path, [("x.weight", "U8", (size,), os.urandom(size))])
    return path.read_bytes()


def started(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bottega", "models", "get", *words],
        env={**os.environ, "BOTTEGA_HOME": str(home), "BOTTEGA_ALLOW_LOOPBACK": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_an_interrupt_keeps_what_has_arrived_and_says_so(
    there: Civitai, bottega: Command, home: Path, tmp_path: Path
) -> None:
    body = big(tmp_path, 24)
    there.cdn.files["/big.safetensors"] = Served(body, faults=[slowly])
    url = f"{there.cdn.url}/big.safetensors"
    process = started(home, url)
    while there.cdn.sent["/big.safetensors"] < 8 << 20:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; what has arrived is kept; run the same command again" in said
    sent = there.cdn.sent["/big.safetensors"]
    assert bottega("models", "get", url).code == 0
    assert there.cdn.sent["/big.safetensors"] <= len(body) + (8 << 20) < len(body) + sent + 1 + (8 << 20)
    assert (home / "models/other/big.safetensors").read_bytes() == body


def test_two_processes_do_not_fetch_the_same(there: Civitai, bottega: Command, home: Path, tmp_path: Path) -> None:
    body = big(tmp_path, 8)
    go = threading.Event()

    def waiting(request: Request, served: Served) -> None:
        status, _, headers = head_of(request, served)
        request.begin(status, headers)
        request.send(served.body[: 1 << 20])
        go.wait(30)
        request.send(served.body[1 << 20 :])

    there.cdn.files["/big.safetensors"] = Served(body, faults=[waiting])
    url = f"{there.cdn.url}/big.safetensors"
    (home / "settings.toml").write_text(
        f"{(home / 'settings.toml').read_text()}".replace("stall_seconds = 1", "stall_seconds = 30")
    )
    process = started(home, url)
    while not there.cdn.sent["/big.safetensors"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    ran = bottega("models", "get", url)
    assert ran.code == 1 and "is being fetched by another process" in ran.err
    go.set()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(there.cdn.requests) == 1


def test_several_at_a_time_but_no_more_than_the_settings_say(
    there: Civitai, bottega: Command, home: Path, tmp_path: Path
) -> None:
    at_once, most = 0, 0
    lock = threading.Lock()
    two = threading.Barrier(2)

    def counted(request: Request, served: Served) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        two.wait(timeout=120)  # nobody gets further alone
        with lock:
            at_once -= 1
        status, start, headers = head_of(request, served)
        request.begin(status, headers)
        request.send(served.body[start:])

    words = []
    for index in range(6):
        there.cdn.files[f"/{index}.safetensors"] = Served(small(tmp_path, fill=index), faults=[counted])
        words.append(f"{there.cdn.url}/{index}.safetensors")
    ran = bottega("models", "get", *words, "--json")
    assert ran.code == 0, ran.err
    assert [told["reference"] for told in ran.json] == words
    assert most == Settings(home).parallel_downloads == 2


def test_a_cut_in_the_middle_is_mended_by_the_same_command(
    there: Civitai, bottega: Command, home: Path, toy: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.library.sources.fetch.Stop.pause", lambda stop, seconds: None)
    there.cdn.files["/4560"].faults = [cut(len(toy) // 2)]
    assert bottega("models", "get", "civitai:123").code == 0
    assert shelf(home) == BESIDE


def test_the_shelf_and_the_commands_start_fast(bottega: Command) -> None:
    for action in ("get", "check-updates", "identify-online"):
        ran = bottega("models", action, "--help")
        assert ran.code == 0 and "usage: bottega models" in ran.out


def test_the_catalog_knows_where_it_is(there: Civitai, bottega: Command, home: Path) -> None:
    assert bottega("models", "get", "civitai:123").code == 0
    with open_catalog(home / "catalog.sqlite") as catalog:
        (entry,) = [entry for entry in catalog.entries() if entry.name == "toyModel_v2"]
    assert entry.shelf == home / "models" and entry.is_current()
