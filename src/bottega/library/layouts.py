"""How the programs that people have lay out their models, told by what lies in a folder, never by its name."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from bottega.formats.sniff import open_regular

MAX_SETTINGS = 1 << 20  # bytes of another program's settings; real ones have a few thousand
MAX_YAML = 64 << 10  # which takes a second to parse
MAX_BRACKETS = 1_000  # in it: for each that is open PyYAML looks at all others again and again

# The folders into which workbenches sort their models: a folder that holds one of them is no LM Studio shelf.
_SORTED = frozenset((
    "stable-diffusion", "lora", "loras", "lycoris", "checkpoints", "unet", "diffusion_models", "vae", "clip",
    "text_encoders", "text_encoder", "controlnet", "embeddings", "hypernetworks", "upscale_models", "esrgan",
    "diffusers",
))  # fmt: skip
_COMFY_PATHS = ("extra_model_paths.yaml", "extra_models_config.yaml")
# What PyYAML's own constructors let out where a value is not of the type that it says, as in `!!bool maybe`,
# `!!int ''` and `!!timestamp soon`, or too large for it.
_NOT_OF_ITS_TYPE = (LookupError, AttributeError, TypeError, OverflowError)
_FEW = 8  # folders that are looked into to tell a layout


def installation(folder: Path, names: Collection[str], troubles: dict[Path, str]) -> tuple[Path, ...] | None:
    """Where a workbench keeps its models that is installed in a folder with these names in it; None if none is.

    Settings of the workbench that can't be read are put into `troubles` with the reason.
    """
    models = folder / "models"
    if "models" in names and any(sign in names for sign in ("comfy", "custom_nodes", _COMFY_PATHS[0])):
        return models, *_comfy_places(folder, names, troubles)
    if "models" in names and ("webui.py" in names or "launch.py" in names or _has_embeddings_beside(models)):
        controlnet = folder / "extensions" / "sd-webui-controlnet" / "models"
        fooocus = _fooocus_places(folder, troubles) if "config.txt" in names else ()
        return models, folder / "embeddings", controlnet, *fooocus
    if "Models" in names and ("Packages" in names or ("Assets" in names and "settings.json" in names)):
        return (folder / "Models",)  # Stability Matrix: its programs share them by links
    return None


def embeddings_beside(models: Path) -> Path | None:
    """The folder of embeddings that A1111 and Forge keep beside this `models` folder, if it is one of theirs."""
    return models.parent / "embeddings" if _has_embeddings_beside(models) else None


def _has_embeddings_beside(models: Path) -> bool:
    return (models / "Stable-diffusion").is_dir() and (models.parent / "embeddings").is_dir()


def is_lm_studio(folder: Path) -> bool:
    """Whether this is LM Studio's folder of models: `publisher/repository/*.gguf` and nothing else.

    Only the first few of both are looked into.
    """
    publishers = _visible(folder)
    if not publishers or not all(entry.is_dir() and entry.name.lower() not in _SORTED for entry in publishers):
        return False
    repositories = []
    for publisher in publishers[:_FEW]:
        inside = _visible(publisher.path)
        if not all(entry.is_dir() for entry in inside):
            return False
        repositories += inside[:_FEW]
    endings = {os.path.splitext(entry.name)[1].lower() for each in repositories for entry in _visible(each.path)}
    return ".gguf" in endings


def known_places(environment: Mapping[str, str]) -> list[Path]:
    """Where the programs that keep models usually have them on this system, as far as there is such a place."""
    told = environment.get("HOME") or environment.get("USERPROFILE")
    home = Path(told) if told else Path.home()
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environment.get("HF_HOME") or cache / "huggingface") / "hub"
    installed = (
        "stable-diffusion-webui", "stable-diffusion-webui-forge", "stable-diffusion-webui-reForge", "sdnext",
        "automatic", "ComfyUI", "invokeai", "InvokeAI", "Fooocus", "StabilityMatrix",
    )  # fmt: skip
    places = [
        *(home / name for name in installed),
        *(home / "Documents" / name for name in ("ComfyUI", "StabilityMatrix")),
        data / "StabilityMatrix",
        Path(environment.get("APPDATA") or home / "AppData" / "Roaming") / "StabilityMatrix",
        Path(environment.get("HF_HUB_CACHE") or hub),
        home / ".lmstudio" / "models",
        home / ".cache" / "lm-studio" / "models",
        Path(environment.get("OLLAMA_MODELS") or home / ".ollama" / "models"),
    ]
    there: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            there.setdefault(os.path.realpath(place), place)
    return list(there.values())


def read_settings_text(path: Path) -> str:
    """The text of another program's settings. Raises OSError, ValueError where it is too long or no text."""
    with open_regular(path) as file:
        raw = file.read(MAX_SETTINGS + 1)
    if len(raw) > MAX_SETTINGS:
        raise ValueError(f"it is larger than {MAX_SETTINGS:,} bytes")
    return raw.decode("utf-8-sig")


def read_yaml(path: Path) -> object:
    """What a program's YAML settings say, as plain data. Raises OSError, ValueError where they are none."""
    return parse_yaml(read_settings_text(path))


def parse_yaml(text: str) -> object:
    """What YAML that nobody vouches for says, as plain data. Raises ValueError where it is none, or too long."""
    import yaml  # type: ignore[import-untyped]

    if len(text) > MAX_YAML:
        raise ValueError(f"it is longer than {MAX_YAML:,} characters")
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise ValueError(f"it has more than {MAX_BRACKETS:,} brackets")
    try:
        for token in yaml.scan(text):
            # A few lines of aliases of aliases can stand for terabytes, and no program writes them into its settings.
            if isinstance(token, yaml.AliasToken):
                raise ValueError("it has YAML aliases")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, *_NOT_OF_ITS_TYPE) as error:
        line = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"it is no valid YAML ({line})") from None


def _comfy_places(folder: Path, names: Collection[str], troubles: dict[Path, str]) -> Iterator[Path]:
    """The folders that ComfyUI's `extra_model_paths.yaml` adds, in its order."""
    for name in _COMFY_PATHS:
        if name not in names:
            continue
        path = folder / name
        try:
            config = read_yaml(path)
        except (OSError, ValueError) as error:
            troubles[path] = _reason(error)
            continue
        sections = config.items() if isinstance(config, dict) else ()
        for title, section in sections:
            if isinstance(section, dict):
                yield from _comfy_section(path, section, troubles)
            elif section is not None:
                troubles[path] = f"its section {title!r} is no list of folders"


def _comfy_section(path: Path, section: Mapping[object, object], troubles: dict[Path, str]) -> Iterator[Path]:
    """The folders of one section: `base_path` (in it alone `~` and variables are expanded) and lines of folders."""
    base = section.get("base_path")
    base = os.path.expandvars(os.path.expanduser(base)) if isinstance(base, str) else ""
    for kind, lines in section.items():
        if kind in ("base_path", "is_default", "custom_nodes", "download_model_base", "configs"):
            continue
        for line in lines.split("\n") if isinstance(lines, str) else ():
            if not line.strip() or "\0" in line:
                continue
            place = Path(os.path.normpath(path.parent / base / line.strip()))
            if place == Path(place.anchor):
                troubles[path] = f"{kind} is {place}, which is the whole disk and no folder of models"
            else:
                yield place


def _fooocus_places(folder: Path, troubles: dict[Path, str]) -> Iterator[Path]:
    """The folders of models that Fooocus' `config.txt` names."""
    path = folder / "config.txt"
    try:
        config = json.loads(read_settings_text(path))
    except (OSError, ValueError, RecursionError) as error:
        troubles[path] = _reason(error)
        return
    for key, told in config.items() if isinstance(config, dict) else ():
        if not key.startswith("path_") or key in ("path_outputs", "path_wildcards"):
            continue
        for line in told if isinstance(told, list) else [told]:
            if isinstance(line, str) and line and "\0" not in line:
                place = Path(os.path.normpath(folder / line))
                if place != Path(place.anchor):
                    yield place


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, hidden things left out; nothing if it can't be entered."""
    try:
        with os.scandir(folder) as listing:
            return sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return []


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
