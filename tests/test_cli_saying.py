"""`bottega models list --search`, `tag`, `note`, `correct` and what a scan tells, as a user runs them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Command
from small_models import write_model
from starters import NAMES

from bottega.formats import safetensors
from bottega.library import open_catalog
from bottega.library.disk import Stamp
from bottega.library.entry import Entry


@pytest.fixture
def shelf(tmp_path: Path, bottega: Command) -> Path:
    folder = tmp_path / "shelf"
    write_model(folder / "Dream Shaper_v8.safetensors", width=3)
    write_model(folder / "sub" / "anime.safetensors", fill=1)
    write_model(folder / "film.safetensors", fill=2)
    (folder / "broken.safetensors").write_bytes(b"<html>")
    assert bottega("models", "scan", folder).code == 0
    return folder


def names(bottega: Command, *words: object) -> list[str]:
    ran = bottega("models", "list", *words, "--json")
    assert ran.code == 0, ran.err
    return [model["name"] for model in ran.json]


# --- list ------------------------------------------------------------------------------------------------------------


def test_search(bottega: Command, shelf: Path) -> None:
    assert names(bottega, "--search", "shap") == names(bottega, "--search", "DREAM v8") == ["Dream Shaper_v8"]
    assert names(bottega, "--search", "nothing like it") == []
    assert names(bottega, "--search", "anime", "--kind", "lora") == []
    ran = bottega("models", "list", "--search", "nothing like it")
    assert (ran.code, ran.out) == (0, "") and "no model on record is like that" in ran.err


def test_filters_and_orders(bottega: Command, shelf: Path) -> None:
    assert names(bottega, "--kind", "unknown") == ["anime", "Dream Shaper_v8", "film"]
    assert names(bottega, "--kind", "UNKNOWN", "--sort", "size")[0] == "Dream Shaper_v8"
    os.utime(shelf / "film.safetensors", (4e9, 4e9))
    bottega("models", "scan", shelf)
    assert names(bottega, "--sort", "date", "--limit", "1") == ["film"]
    assert names(bottega, "--category", "base") == ["starter-image"]
    assert names(bottega, "--category", "full fine-tune") == ["chilly"]
    assert names(bottega, "--verdict", "refused") == ["broken"]
    assert names(bottega, "--verdict", "unusual") == []
    listed = bottega("models", "list", "--limit", "2")
    assert (
        len(listed.out.splitlines()) == 3
        and f"and {1 + len(NAMES)} more" in listed.err
        and "1 file refused" in listed.err
    )
    why = bottega("models", "list", "--verdict", "refused")
    assert "web page" in why.out and why.err == ""
    assert bottega("models", "list", "--limit", "0").code == 2
    assert bottega("models", "list", "--sort", "colour").code == 2


# --- tag, note, correct ----------------------------------------------------------------------------------------------


def test_tags_and_favourites(bottega: Command, shelf: Path) -> None:
    told = bottega("models", "tag", "anime", "+Ink Wash", "-nothing", "faces", "--favourite", "--json").json
    assert (told["name"], told["tags"], told["favourite"]) == ("anime", ["faces", "ink wash"], True)
    assert names(bottega, "--tag", "INK wash") == names(bottega, "--favourite") == ["anime"]
    listed = bottega("models", "list", "--tag", "faces").out
    assert listed.splitlines()[0].split() == ["name", "kind", "family", "dtype", "size", "tags", "folder"]
    assert "★ anime" in listed and "faces ink wash" in listed
    ran = bottega("models", "tag", "anime", "-faces", "--no-favourite")
    assert ran.code == 0 and ran.out.split() == ["model", "anime", "tags", "ink", "wash"]
    assert bottega("models", "tag", "anime").out == ran.out
    assert names(bottega, "--favourite") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tag", "anime", "+"), "names no tag"),
        (("tag", "anime", "--colour"), "unrecognized"),
        (("tag", "anmie", "+a"), "did you mean anime"),
        (("note", "nobody", "x"), "no model is called"),
        (("correct", "anime", "--kind", "lorra"), "did you mean lora?"),
        (("correct", "anime", "--family", "sd11"), "did you mean sd1"),
        (("correct", "anime", "--family", "nonsense"), "use one of "),
        (("list", "--category", "lightweight"), "'lightweight fine-tune'"),
        (("correct", "anime", "--category", "great"), "choose from"),
    ],
)
def test_wrong_words(words: tuple[str, ...], said: str, bottega: Command, shelf: Path) -> None:
    ran = bottega("models", *words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1) and said in ran.err


def test_every_kind_that_a_header_tells_can_be_said(bottega: Command, shelf: Path) -> None:
    for kind in ("style_model", "gligen", "photomaker"):
        assert bottega("models", "correct", "film", "--kind", kind, "--json").json["kind"] == kind
    ran = bottega("models", "list", "--kind", "foo")
    assert (ran.code, ran.out) == (0, "") and "there are " in ran.err and "photomaker" in ran.err


def test_notes(bottega: Command, shelf: Path) -> None:
    assert bottega("models", "note", "film").out == ""
    assert bottega("models", "note", "film", "too much grain\nat night \x1b[31m").code == 0
    assert bottega("models", "note", "film").out == "too much grain\nat night \\x1b[31m\n"
    assert bottega("models", "note", "film", "--json").json["note"].startswith("too much")
    assert names(bottega, "--search", "grain night") == ["film"]
    bottega("models", "note", "film", "")
    assert bottega("models", "note", "film").out == "" and names(bottega, "--search", "grain") == []


def test_a_note_keeps_its_lines_wherever_it_is_shown(bottega: Command, shelf: Path) -> None:
    ran = bottega("models", "note", "film", "one\n\ntwo \x1b[31m")
    assert ran.out.splitlines() == ["model  film", "note   one", "", r"       two \x1b[31m"]
    for words in (("tag", "film"), ("correct", "film")):
        assert bottega("models", *words).out == ran.out
    shown = bottega("models", "show", "film").out.splitlines()
    at = shown.index("your note  one")
    assert shown[at + 1 : at + 3] == ["", r"           two \x1b[31m"]


def test_corrections(bottega: Command, shelf: Path) -> None:
    told = bottega("models", "correct", "film", "--kind", "LoRA", "--family", "SDXL", "--json").json
    assert (told["kind"], told["family"], told["corrected"], told["told"]) == (
        "lora", "sdxl", {"kind": "lora", "family": "sdxl"}, {"kind": "unknown", "family": ""},
    )  # fmt: skip
    assert names(bottega, "--family", "sdxl") == ["film"] and "film" in names(bottega, "--kind", "lora")
    ran = bottega("models", "correct", "film", "--variant", "turbo", "--category", "lightweight fine-tune")
    assert "lora (its header says: unknown)" in ran.out and "turbo (its header says: nothing)" in ran.out
    assert bottega("models", "show", "film", "--json").json["variant"] == "turbo"
    bottega("models", "scan", shelf)
    assert "film" in names(bottega, "--kind", "lora")
    told = bottega("models", "correct", "film", "--clear", "--family", "sd1", "--json").json
    assert (told["kind"], told["corrected"]) == ("unknown", {"family": "sd1"})


def approximation(path: Path, fill: int = 0) -> Path:
    """A quick autoencoder for previews; no header tells of which family's latents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(
        path,
        [
            ("conv1.weight", "F16", (8, 4, 7, 7), bytes([fill]) * (2 * 8 * 4 * 7 * 7)),
            ("conv8.weight", "F16", (3, 8, 3, 3), bytes(2 * 3 * 8 * 3 * 3)),
        ],
    )
    return path


def test_what_the_user_says_is_no_guess_any_more(bottega: Command, shelf: Path) -> None:
    path = approximation(shelf / "quick.safetensors")
    before = bottega("models", "show", path, "--json").json
    assert (before["family"], before["guess"], before["requires"]) == ("sd1", True, ["a Stable Diffusion 1 checkpoint"])
    bottega("models", "correct", path, "--family", "sdxl")
    told = bottega("models", "show", path, "--json").json
    assert (told["family"], told["guess"], told["requires"]) == ("sdxl", False, ["a Stable Diffusion XL checkpoint"])
    assert told["because"] == [*before["because"], "corrected by hand: family sdxl (its header says: sd1)"]
    shown = bottega("models", "show", path).out
    assert "vae, sdxl" in shown and "probably" not in shown and "Stable Diffusion 1 checkpoint" not in shown
    bottega("models", "correct", path, "--clear")
    assert bottega("models", "show", path, "--json").json["guess"]


def test_a_guess_that_the_user_confirms_is_none(bottega: Command, shelf: Path) -> None:
    path = approximation(shelf / "quick.safetensors")
    told = bottega("models", "correct", path, "--family", "sd1", "--json").json
    assert (told["family"], told["guess"], told["requires"]) == ("sd1", False, ["a Stable Diffusion 1 checkpoint"])
    assert told["because"][-1] == "confirmed by hand: family sd1"
    assert "probably" not in bottega("models", "show", path).out


def test_what_is_confirmed_still_takes_what_it_took() -> None:
    needs, said = ("the text encoder T5", "a VAE"), {"family": "flux"}
    stamp = Stamp(0, 0, 0)
    entry = Entry(Path("x"), None, stamp, kind="diffusion_model", family="flux", requires=needs, corrected=said)
    assert replace(entry, told=said).needs == needs
    assert replace(entry, told={"family": "sd3"}).needs == ()


def test_what_a_model_takes_follows_the_kind(bottega: Command, shelf: Path) -> None:
    path = approximation(shelf / "quick.safetensors")
    assert bottega("models", "correct", path, "--kind", "upscaler", "--json").json["requires"] == []
    told = bottega("models", "correct", "film", "--kind", "lora", "--family", "sdxl", "--json").json
    assert told["requires"] == ["a Stable Diffusion XL checkpoint"]


# --- show ------------------------------------------------------------------------------------------------------------


def test_the_command_that_is_shown_means_this_model_alone(bottega: Command, shelf: Path, tmp_path: Path) -> None:
    one = approximation(shelf / "quick.safetensors")
    two = approximation(shelf / "sub" / "quick.safetensors", fill=1)
    bottega("models", "scan", shelf)
    assert "--vae shelf/quick\n" in bottega("models", "show", one).out
    assert "--vae sub/quick\n" in bottega("models", "show", two).out
    assert bottega("models", "show", "sub/quick", "--json").json["path"] == str(two)
    bottega("models", "scan", approximation(tmp_path / "other" / "sub" / "quick.safetensors", fill=2).parents[1])
    assert f"--vae {two}\n" in bottega("models", "show", two).out


# --- scan ------------------------------------------------------------------------------------------------------------


def test_a_scan_tells_what_became_of_everything(bottega: Command, shelf: Path) -> None:
    bottega("models", "tag", "anime", "+mine")
    (shelf / "sub" / "anime.safetensors").rename(shelf / "manga.safetensors")
    (shelf / "film.safetensors").unlink()
    told = bottega("models", "scan", shelf, "--json").json
    assert told["moved"] == [{"from": str(shelf / "sub/anime.safetensors"), "to": str(shelf / "manga.safetensors")}]
    assert told["gone"] == told["missing"] == [str(shelf / "film.safetensors")]
    assert (told["new"], told["models"], told["forgotten"]) == (0, 2, 0)
    assert told["verdicts"] == {"clean": 2, "unusual": 0, "refused": 1}
    assert told["kinds"] == [{"kind": "unknown", "family": None, "variant": None, "models": 2}]
    assert names(bottega, "--tag", "mine") == ["manga"]
    assert names(bottega, "--missing") == ["film"]

    (shelf / "manga.safetensors").rename(shelf / "anime.safetensors")
    text = bottega("models", "scan", shelf).out
    assert "2 models on 1 shelf" in text and "1 moved" in text and "1 file refused" in text
    assert "1 model on record is missing" in text and "--forget-missing" in text
    assert "nothing has changed; 0 headers read" in bottega("models", "scan", shelf).out


def test_what_is_missing_is_forgotten_on_request(bottega: Command, shelf: Path) -> None:
    (shelf / "film.safetensors").unlink()
    assert "1 missing model forgotten" in bottega("models", "scan", shelf, "--forget-missing").out
    assert names(bottega, "--missing") == []
    assert bottega("models", "scan", shelf, "--json").json["missing"] == []


def test_what_drops_the_models_of_a_shelf_that_is_away_is_told(
    bottega: Command, shelf: Path, home: Path, tmp_path: Path
) -> None:
    (shelf / "film.safetensors").unlink()
    away = tmp_path / "away"
    (home / "settings.toml").write_text(f'shelves = ["{away}"]\n')  # which no scan has named
    write_model(away / "a.safetensors")
    bottega("models", "scan")
    shutil.rmtree(away)
    for words in ((), ("--forget-missing",)):
        told = bottega("models", "scan", *words).out
        assert f"`bottega models scan --forget-missing {away}` drops it, with 1 model on record" in told
        assert ("1 model on record is missing" in told) == (not words)
    assert "1 missing model forgotten" in bottega("models", "scan", "--forget-missing", away).out
    assert names(bottega, "--missing") == []


def test_a_shelf_that_is_away_is_not_forgotten(bottega: Command, shelf: Path, home: Path) -> None:
    shelf.rename(shelf.with_name("unplugged"))
    told = bottega("models", "scan", "--forget-missing", "--json").json
    assert (len(told["gone"]), told["forgotten"], told["absent"][-1]) == (4, 0, str(shelf))
    shelf.with_name("unplugged").rename(shelf)
    assert bottega("models", "scan", "--json").json["headers_read"] == 0
    with open_catalog(home / "catalog.sqlite") as catalog:
        assert catalog.gone() == []
