"""Diffusers folders: `model_index.json` and a folder for each part, read as one header; or one such part by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bottega.errors import FormatError
from bottega.formats.folder import weights
from bottega.formats.folder.files import Files, asks_for_code, is_plain
from bottega.formats.header import Header, TensorInfo, shown

# What a part's class may come from. All but the first two are modules of diffusers that lend a class or two.
_LIBRARIES = frozenset({
    "diffusers", "transformers", "stable_diffusion", "stable_diffusion_safe", "latent_diffusion", "paint_by_example",
    "deepfloyd_if", "wuerstchen", "kandinsky", "stable_cascade", "kolors", "audioldm2", "unidiffuser", "shap_e",
})  # fmt: skip

# Where diffusers' pipelines keep a network of this class: how the tensors of a part that lies alone are named.
_HOME_OF_CLASS = {
    "UNet2DConditionModel": "unet",
    "AutoencoderKL": "vae",
    "ControlNetModel": "controlnet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
    "MotionAdapter": "motion_adapter",
}

# Parts without weights; a pipeline from which they are missing can still be read.
_WEIGHTLESS = ("Tokenizer", "TokenizerFast", "Scheduler", "FeatureExtractor", "ImageProcessor", "Processor")
_UNUSED = frozenset({"safety_checker"})


def read_pipeline(files: Files) -> Header:
    """The tensors of all parts, each named after its part."""
    root = files.root
    index = files.config("model_index.json")
    configs: dict[str, Mapping[str, object]] = {"": index}
    tensors: dict[str, TensorInfo] = {}
    files.look_for_code(root, files.names(root))
    for name, class_name in _parts(files, index):
        folder = root / name
        needed = name not in _UNUSED and not class_name.endswith(_WEIGHTLESS)
        if not folder.is_dir():
            if needed:
                what = f"its part {name}, named in model_index.json, is not there"
                raise FormatError(root, what, "download the whole folder again")
            files.notes.append(f"no folder for the part {name}")
        elif needed:
            configs[name] = files.config(f"{name}/config.json")
            tensors |= {f"{name}/{each}": info for each, info in weights.read(files, folder).items()}
        elif (folder / "scheduler_config.json").is_file():
            configs[name] = files.config(f"{name}/scheduler_config.json")
    return files.header("diffusers", tensors, configs)


def read_part(files: Files) -> Header:
    """The tensors of one part that lies alone, named after the place that its class has in pipelines."""
    config = files.config("config.json")
    name = home_of(config) or files.root.resolve().name
    tensors = {f"{name}/{each}": info for each, info in weights.read(files, files.root).items()}
    return files.header("diffusers", tensors, {name: config})


def home_of(config: Mapping[str, object]) -> str | None:
    """Where pipelines keep a network with this config, if its class is one of theirs."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    class_name = config.get("_class_name") or first
    return _HOME_OF_CLASS.get(class_name) if isinstance(class_name, str) else None


def _parts(files: Files, index: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Name and class of each part; entries that are settings (`"requires_safety_checker": true`) are no parts."""
    path = files.root / "model_index.json"
    for name, value in index.items():
        if name == "_class_name" and not isinstance(value, str):
            raise asks_for_code(path, f"_class_name {shown(str(value))}")
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if not is_plain(name):
            raise FormatError(path, f"the part {shown(name)} is no plain folder name", "do not use this model")
        match value:
            case [str(library), str(class_name)]:
                if library not in _LIBRARIES:
                    raise asks_for_code(path, f"the part {name} comes from {shown(library)}")
                yield name, class_name
