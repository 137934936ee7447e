"""Where things are and what to use: home, shelves, outputs, device; frozen, passed in, from TOML and environment."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bottega.errors import FileError, InvalidSetting

STARTER_SHELF = Path(__file__).parent / "starter"
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
RANGES = {
    "parallel_downloads": (1, 8),
    "keep_free_mb": (0, 1 << 20),
    "stall_seconds": (0.05, 3600),
    "trash_days": (1, 3650),
    "port": (0, 65535),
    "requests_per_second": (1, 100_000),
    "model_memory_mb": (0, 1 << 20),
}
_NAME = re.compile(r"(https?://)?([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
SWITCHES = ("open_doors", "fetch_pictures")


@dataclass(frozen=True)
class Settings:
    """What a user may decide about this installation; a recipe, once resolved, no longer depends on any of it.

    `shelves` are read in place; the home's own `models` folder and the starter models always belong to them.
    `model_memory_mb` is how many MiB of the device's memory models may hold while no job needs them; 0 means a share of
    what it has.
    `civitai_url` and `huggingface_url` are the sites that `models get` asks, or mirrors of them; each site's token is
    sent to this address and no other. `proxy` is empty (connect directly), `environment` (as `https_proxy` and
    `no_proxy` say) or the address of one; through a proxy nobody can check which address a name leads to.
    `parallel_downloads` is how many files are fetched at once, `keep_free_mb` what a download leaves free on the disk,
    `stall_seconds` how long it waits for a server that has fallen silent. `trash_days` is how long deleted outputs can
    be restored. `allow_loopback` is for tests only (the variable BOTTEGA_ALLOW_LOOPBACK=1): this machine's own
    addresses may be fetched from, also without encryption.

    `host` and `port` are where `serve` listens, `names` under which further names it answers (`studio.lan`, or
    `https://studio.example` behind a program that keeps the certificate). `open_doors`: this machine's programs may use
    the APIs of other workbenches without a key, as long as nobody else can. `requests_per_second` is how many one
    caller may send in the long run, `fetch_pictures` whether a request may name pictures by their https:// address.
    """

    home: Path
    shelves: tuple[Path, ...] = ()
    outputs: Path = field(default=Path("outputs"))
    model: str = "starter-image"
    device: str = "auto"
    precision: str = "auto"
    model_memory_mb: int = 0
    civitai_url: str = "https://civitai.com"
    huggingface_url: str = "https://huggingface.co"
    proxy: str = ""
    parallel_downloads: int = 2
    keep_free_mb: int = 1024
    stall_seconds: float = 30.0
    trash_days: int = 30
    host: str = "127.0.0.1"
    port: int = 7680
    names: tuple[str, ...] = ()
    open_doors: bool = True
    requests_per_second: float = 200.0
    fetch_pictures: bool = False
    allow_loopback: bool = False

    @property
    def plain(self) -> dict[str, Any]:
        """The settings as plain data, for another process of this machine."""
        told = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        paths = {name: os.path.abspath(told[name]) for name in ("home", "outputs")}
        return {**told, **paths, "shelves": [os.path.abspath(shelf) for shelf in self.shelves]}

    @property
    def file(self) -> Path:
        """Where the user writes settings down."""
        return self.home / "settings.toml"

    @property
    def catalog(self) -> Path:
        """The SQLite file that knows every model."""
        return self.home / "catalog.sqlite"

    @property
    def models(self) -> Path:
        """The shelf of the home: where `models get` puts what it fetches."""
        return self.home / "models"

    @property
    def tokens(self) -> Path:
        """Where the user may keep the keys of sites, readable by nobody else."""
        return self.home / "tokens.toml"

    @property
    def cards(self) -> Path:
        """What sites know of models that lie on other programs' shelves, by hash."""
        return self.home / "cards"

    @property
    def inputs(self) -> Path:
        """Pictures that recipes were given, kept by hash."""
        return self.home / "inputs"

    @property
    def datasets(self) -> Path:
        """Pictures with captions that a server keeps for trainings."""
        return self.home / "datasets"

    @property
    def accounts(self) -> Path:
        """The SQLite file of users and of hashes of their keys."""
        return self.home / "access.sqlite"

    @property
    def serving(self) -> Path:
        """Where a running server tells this user's programs its address and a key."""
        return self.home / "serve.json"

    @property
    def logs(self) -> Path:
        """Where a server keeps its log."""
        return self.home / "logs"

    @property
    def gallery(self) -> Path:
        """The SQLite file that knows everything that was made."""
        return self.home / "gallery.sqlite"

    @property
    def thumbnails(self) -> Path:
        """Small pictures of outputs, which can be made again at any time."""
        return self.home / "thumbnails"

    @property
    def all_shelves(self) -> tuple[Path, ...]:
        """Every folder that is scanned, the starter models first."""
        return (STARTER_SHELF, self.models, *self.shelves)


def within(folder: Path, place: str) -> Path:
    """The path of what is named from a folder on, such as `loras/x.safetensors`.

    Raises FileError where it leads out of the folder: a queue that came out of a backup may say anything.
    """
    path = folder.absolute() / place
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FileError(path, f"is not in {folder.absolute()}", "ask for it anew")
    return path


def comes_along(path: Path) -> bool:
    """Whether a model is one of those that come with Bottega."""
    return path.is_relative_to(STARTER_SHELF)


def settings_from(told: Mapping[str, Any]) -> Settings:
    """The settings that `plain` told to another process."""
    paths = {name: Path(told[name]) for name in ("home", "outputs")}
    return Settings(**{**told, **paths, "shelves": tuple(map(Path, told["shelves"])), "names": tuple(told["names"])})


def default_home(environment: Mapping[str, str]) -> Path:
    """`BOTTEGA_HOME`, else the place where this system keeps a user's data."""
    if named := environment.get("BOTTEGA_HOME"):
        return Path(named).expanduser().resolve()
    data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "bottega"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this home: `settings.toml` in it, over the defaults. Its relative paths begin at the home.

    Raises FileError for a file that is no TOML, InvalidSetting for an unknown name or a value that can't be used.
    """
    defaults = Settings(default_home(environment))
    home, file = defaults.home, defaults.file
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        told = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(file, f"is no valid TOML ({error})", "mend it or move it away") from None
    allow_loopback = environment.get("BOTTEGA_ALLOW_LOOPBACK") == "1"
    known = {entry.name for entry in fields(Settings)} - {"home", "allow_loopback"}
    for name, value in told.items():
        if name not in known:
            raise InvalidSetting(f"{file}: {name} is no setting", f"the settings are {', '.join(sorted(known))}")
        if remedy := _remedy(name, value, allow_loopback):
            raise InvalidSetting(f"{file}: {name} is {_without_password(value)!r}", remedy)
    device = environment.get("BOTTEGA_DEVICE")
    if device and (remedy := _remedy("device", device)):
        raise InvalidSetting(f"BOTTEGA_DEVICE is {device!r}", remedy)
    return Settings(
        home=home,
        shelves=tuple(home / os.path.expanduser(shelf) for shelf in told.get("shelves", ())),
        outputs=home / os.path.expanduser(told.get("outputs", defaults.outputs)),
        model=told.get("model", defaults.model),
        device=device or told.get("device", defaults.device),
        precision=told.get("precision", defaults.precision),
        model_memory_mb=told.get("model_memory_mb", defaults.model_memory_mb),
        civitai_url=told.get("civitai_url", defaults.civitai_url).rstrip("/"),
        huggingface_url=told.get("huggingface_url", defaults.huggingface_url).rstrip("/"),
        proxy=told.get("proxy", defaults.proxy),
        parallel_downloads=told.get("parallel_downloads", defaults.parallel_downloads),
        keep_free_mb=told.get("keep_free_mb", defaults.keep_free_mb),
        stall_seconds=float(told.get("stall_seconds", defaults.stall_seconds)),
        trash_days=told.get("trash_days", defaults.trash_days),
        host=told.get("host", defaults.host),
        port=told.get("port", defaults.port),
        names=tuple(told.get("names", ())),
        open_doors=told.get("open_doors", defaults.open_doors),
        requests_per_second=float(told.get("requests_per_second", defaults.requests_per_second)),
        fetch_pictures=told.get("fetch_pictures", defaults.fetch_pictures),
        allow_loopback=allow_loopback,
    )


def write_setting(settings: Settings, name: str, value: str) -> Settings:
    """Write one setting that is a text into `settings.toml`, all else in it as it was; the settings with it.

    Raises InvalidSetting for a value that can't be used, FileError where the file can't be changed so, SaveError.
    """
    from bottega.formats.atomic import atomic, private_folder

    if remedy := _remedy(name, value):
        raise InvalidSetting(f"{name} is {value!r}", remedy)
    try:
        before = settings.file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        before = ""
    line = f"{name} = {json.dumps(value)}"
    after, found = re.subn(rf"(?m)^[ \t]*{name}[ \t]*=.*$", lambda _: line, before, count=1)
    after = after if found else f"{line}\n{before}"
    try:
        meant = tomllib.loads(after) == {**tomllib.loads(before), name: value}
    except tomllib.TOMLDecodeError:
        meant = False
    if not meant:
        what = f"{name} stands there in a way that can't be changed from here"
        raise FileError(settings.file, what, "change it there")
    private_folder(settings.home)
    with atomic(settings.file) as file:
        file.write(after.encode())
    changed: dict[str, Any] = {name: value}
    return replace(settings, **changed)


def _remedy(name: str, value: Any, allow_loopback: bool = False) -> str:
    """What to write instead of a value that this setting can't have; empty for one that it can."""
    if name in SWITCHES:
        return "" if isinstance(value, bool) else "write true or false"
    if name in ("shelves", "names"):
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not is_list:
            return "write a list of texts in quotes"
        wrong = name == "names" and not all(_NAME.fullmatch(item) for item in value)
        return "write names such as studio.lan, studio.lan:8080 or https://studio.example" if wrong else ""
    if name in RANGES:
        low, high = RANGES[name]
        numbers = (int, float) if name in ("stall_seconds", "requests_per_second") else (int,)
        fits = isinstance(value, numbers) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"write a number from {low:g} to {high:g}"
    if not isinstance(value, str):
        return "write a text in quotes"
    if name == "device" and not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", value):
        return "use one of auto, cuda, cuda:1, mps, cpu"
    if name == "precision" and value not in PRECISIONS:
        return f"use one of {', '.join(PRECISIONS)}"
    if name in ("civitai_url", "huggingface_url"):
        schemes = "https?" if allow_loopback else "https"
        return (
            "" if re.fullmatch(rf"{schemes}://[^\s/?#@\\]+(/[^\s?#\\]*)?", value) else "write an address with https://"
        )
    if name == "proxy" and not re.fullmatch(r"|environment|http://[^\s/?#\\]+/?", value):
        return 'write "environment", or the address of an HTTP proxy, such as http://proxy:3128'
    return ""


def _without_password(value: Any) -> Any:
    """A value that may be shown: of an address with a name and a password, those are left out."""
    return re.sub(r"//[^/@]*@", "//...@", value) if isinstance(value, str) else value
