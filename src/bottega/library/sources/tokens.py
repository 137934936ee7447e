"""The user's keys for sites: where they are kept, and how they are kept from being told to anybody else."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bottega.errors import FileError, InvalidSetting
from bottega.settings import Settings

VARIABLES = {"civitai": "CIVITAI_TOKEN", "huggingface": "HF_TOKEN"}
KEY_PAGES = {"civitai": "/user/account", "huggingface": "/settings/tokens"}
SERVICE = "bottega"  # under which the system's keyring knows them


class Token:
    """A key that shows itself to nobody but the site that it belongs to."""

    __slots__ = ("_text", "origin")

    def __init__(self, text: str, origin: str) -> None:
        self._text = text
        self.origin = origin

    def __repr__(self) -> str:
        return f"Token({self.origin})"

    def header(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self._text}"

    def redact(self, text: str) -> str:
        """The text without the key, should a site have repeated it."""
        return text.replace(self._text, "[key]")


@dataclass(frozen=True)
class Site:
    """A site that models come from: its name, its address, and the user's key for it if there is one."""

    name: str
    url: str
    token: Token | None
    tokens_file: Path

    def how_to_log_in(self) -> str:
        """What to do when the site wants to know who asks."""
        if self.token:
            return f"your key may be expired or may not reach so far: see {self.url}{KEY_PAGES[self.name]}"
        return (
            f"log in there, make a key at {self.url}{KEY_PAGES[self.name]}, and write it to {self.tokens_file} as "
            f'{self.name} = "..." (chmod 600), or set {VARIABLES[self.name]}'
        )


def site(name: str, settings: Settings, environment: Mapping[str, str] = os.environ) -> Site:
    """`civitai` or `huggingface`, as the settings say where it is, with its key."""
    url = settings.civitai_url if name == "civitai" else settings.huggingface_url
    text = _from_keyring(name) or _from_file(name, settings.tokens) or environment.get(VARIABLES[name], "").strip()
    if text and not (text.isascii() and text.isprintable() and " " not in text):
        raise InvalidSetting(f"the key for {name} holds characters that no key has", "copy it again from the site")
    return Site(name, url, Token(text, _origin(url)) if text else None, settings.tokens)


def known_keys(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The keys that a log must not repeat: those of the file and of the environment. A file that is wrong has none."""
    found = [environment.get(variable, "").strip() for variable in VARIABLES.values()]
    for name in VARIABLES:
        with suppress(FileError):
            found.append(_from_file(name, settings.tokens))
    return [key for key in found if key]


def _origin(url: str) -> str:
    from bottega.library.sources.client import origin_of, parse

    return origin_of(parse(url))


def _from_keyring(name: str) -> str:
    """The key in the system's keyring, where the optional package `keyring` is installed and has one."""
    with suppress(Exception):  # a locked or missing keyring raises whatever its backend likes
        return str(import_module("keyring").get_password(SERVICE, name) or "").strip()
    return ""


def _from_file(name: str, path: Path) -> str:
    """The key in `tokens.toml`; raises FileError where others could read it too."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if os.name != "nt" and (stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid()):
                raise FileError(path, "others than you may read or change this file of keys", f"run: chmod 600 {path}")
            told = tomllib.loads(file.read(1 << 16).decode("utf-8-sig"))
    except FileNotFoundError:
        return ""
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own message may quote the line, and with it a key.
        raise FileError(path, "is no valid TOML", 'write lines such as civitai = "..."') from None
    except OSError as error:
        raise FileError(path, f"can't be read ({error.strerror or error})", "check its permissions") from None
    value = told.get(name, "")
    if not isinstance(value, str):
        raise FileError(path, f"{name} is no text", f'write {name} = "..."')
    return value.strip()
