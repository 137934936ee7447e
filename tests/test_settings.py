"""Settings: a file in the home and a variable before it; what can't be used is named where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command

from bottega.errors import InvalidSetting
from bottega.settings import Settings, read_settings


def settings(home: Path, text: str = "", **environment: str) -> Settings:
    """What is read from a home with this settings file."""
    (home / "settings.toml").write_text(text, encoding="utf-8")
    return read_settings({"BOTTEGA_HOME": str(home), **environment})


def test_relative_paths_begin_at_the_home(tmp_path: Path) -> None:
    read = settings(tmp_path, 'shelves = ["models/more", "~/sd", "/mnt/models"]\noutputs = "made"')
    assert read.shelves == (tmp_path / "models/more", Path.home() / "sd", Path("/mnt/models"))
    assert read.outputs == tmp_path / "made"
    assert settings(tmp_path).outputs == tmp_path / "outputs"


def test_a_variable_goes_before_the_file(tmp_path: Path) -> None:
    assert settings(tmp_path, 'device = "cuda:1"').device == "cuda:1"
    assert settings(tmp_path, 'device = "cuda:1"', BOTTEGA_DEVICE="cpu").device == "cpu"
    assert settings(tmp_path, 'device = "cuda:1"', BOTTEGA_DEVICE="").device == "cuda:1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "shelfs = []",
            "settings.toml: shelfs is no setting; the settings are civitai_url, device, fetch_pictures, host, ",
        ),
        ('shelves = "models"', "settings.toml: shelves is 'models'; write a list"),
        ("shelves = [1]", "settings.toml: shelves is [1]; write a list"),
        ("model = 3", "settings.toml: model is 3; write a text in quotes"),
        ("precision = true", "settings.toml: precision is True; write a text in quotes"),
        ('precision = "float8"', "settings.toml: precision is 'float8'; use one of auto, float32"),
        ('device = "gpu"', "settings.toml: device is 'gpu'; use one of auto, cuda"),
        ('device = "cuda:"', "settings.toml: device is 'cuda:'; use one of auto, cuda"),
        ("allow_loopback = true", "settings.toml: allow_loopback is no setting"),
        ('civitai_url = "civitai.com"', "settings.toml: civitai_url is 'civitai.com'; write an address with https://"),
        ('huggingface_url = "http://127.0.0.1:8"', "write an address with https://"),
        ('huggingface_url = "https://me:word@mirror"', "'https://...@mirror'; write an address with https://"),
        ('proxy = "socks5://me:word@proxy"', "settings.toml: proxy is 'socks5://...@proxy'; write"),
        ("parallel_downloads = 0", "settings.toml: parallel_downloads is 0; write a number from 1 to 8"),
        ("parallel_downloads = 1.5", "write a number from 1 to 8"),
        ("keep_free_mb = true", "write a number from 0 to"),
    ],
)
def test_a_wrong_setting_is_named_in_its_file(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting) as refused:
        settings(tmp_path, text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("device", "told"),
    [("gpu", "BOTTEGA_DEVICE is 'gpu'; use one of auto, cuda"), ("cuda:99", "no device 'cuda:99' here; set BOTTEGA_")],
)
def test_a_wrong_variable_is_bad_usage(
    device: str, told: str, bottega: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTTEGA_DEVICE", device)
    ran = bottega("make", "image", "a house")
    assert ran.code == 2
    assert told in ran.err


def test_a_precision_that_the_device_has_not_is_named_as_the_setting_that_it_is(
    bottega: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTTEGA_DEVICE", "cpu")
    home.mkdir()
    (home / "settings.toml").write_text('precision = "float16"', encoding="utf-8")
    ran = bottega("make", "image", "a house")
    assert ran.code == 2
    assert f"bottega: {home / 'settings.toml'}: precision: CPUs can't compute in float16" in ran.err
    ran = bottega("make", "image", "a house", "--set", "precision=float16")
    assert ran.code == 2
    assert "bottega: knobs.precision: CPUs can't compute in float16" in ran.err


def test_this_machine_may_be_fetched_from_only_where_a_variable_says_so(tmp_path: Path) -> None:
    mirror = 'civitai_url = "http://127.0.0.1:8/"\nstall_seconds = 1\nproxy = "environment"'
    read = settings(tmp_path, mirror, BOTTEGA_ALLOW_LOOPBACK="1")
    assert (read.allow_loopback, read.civitai_url, read.stall_seconds) == (True, "http://127.0.0.1:8", 1.0)
    assert not settings(tmp_path, BOTTEGA_ALLOW_LOOPBACK="0").allow_loopback
