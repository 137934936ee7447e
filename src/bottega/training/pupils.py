"""What is trained, by its kind: its weights, how it is put into a pipe, and the tensors that its file holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bottega.errors import FieldProblem, InvalidRecipe
from bottega.spec import Lesson, Place
from bottega.training.changes import Change, Hyper, change_of
from bottega.training.recipe import TrainingRecipe


class Pupil(Protocol):
    """What a training teaches.

    `groups` are its weights by name, in groups that have a learning rate each: `unet` and `text`. `vectors` are those
    of new words, by word and part. `teaches_words` says whether what captions become changes as it learns.
    """

    groups: Mapping[str, Mapping[str, nn.Parameter]]
    vectors: Mapping[str, Mapping[str, Tensor]]
    teaches_words: bool

    def file(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors of its file, in float32, and the metadata that only its kind has."""


def pupil_of(recipe: TrainingRecipe, pipe: Any, lesson: Lesson, places: Sequence[Place]) -> Pupil:
    """What a resolved recipe trains, put into a pipe; what it begins with follows from the seed alone."""
    makers: Mapping[str, Callable[..., Pupil]] = {
        "lora": LoraPupil,
        "embedding": EmbeddingPupil,
        "hypernetwork": HyperPupil,
        "full": WholePupil,
    }
    return makers[recipe.kind](recipe, pipe, lesson, places)


def _generator(recipe: TrainingRecipe) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed)


class LoraPupil:
    """A LoRA, or one of its kin, on the layers that kohya's trainer changes."""

    vectors: Mapping[str, Mapping[str, Tensor]] = {}

    def __init__(self, recipe: TrainingRecipe, pipe: Any, lesson: Lesson, places: Sequence[Place]) -> None:
        networks, generator = lesson.networks(pipe), _generator(recipe)
        assert recipe.alpha is not None
        ratio = recipe.alpha / recipe.rank
        self._recipe = recipe
        self.changes: dict[str, Change] = {}
        groups: dict[str, dict[str, nn.Parameter]] = {"unet": {}, "text": {}}
        for place in places:
            if place.part not in networks or (place.part != "unet" and not recipe.text_encoder):
                continue
            group = lesson.group(place)
            rank = {"linear": recipe.rank, "convolution": recipe.conv_rank}.get(group, 0)
            if not rank:
                continue
            network = networks[place.part]
            layer = getattr(network, "text_model", network).get_submodule(place.name.removesuffix(".weight"))
            change = change_of(recipe.algorithm, layer, rank, rank * ratio, generator, recipe.factor)
            change.to(layer.weight.device)
            layer.register_forward_hook(change.hook)
            self.changes[place.key] = change
            named = {f"{place.key}.{name}": weight for name, weight in change.named_parameters()}
            groups["unet" if place.part == "unet" else "text"] |= named
        self.groups: Mapping[str, Mapping[str, nn.Parameter]] = groups
        self.teaches_words = bool(groups["text"])

    def file(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors under kohya's names, and what its trainer says of itself."""
        recipe = self._recipe
        tensors = {
            f"{key}.{name}": tensor.cpu()
            for key, change in self.changes.items()
            for name, tensor in change.numbers().items()
        }
        arguments: dict[str, str] = {}
        if recipe.conv_rank:
            assert recipe.alpha is not None
            alpha = recipe.conv_rank * recipe.alpha / recipe.rank
            arguments = {"conv_dim": str(recipe.conv_rank), "conv_alpha": str(alpha)}
        module = "networks.lora"
        if recipe.algorithm != "lora":
            module = "lycoris.kohya"
            arguments["algo"] = {"dora": "lora"}.get(recipe.algorithm, recipe.algorithm)
            if recipe.algorithm == "dora":
                arguments |= {"dora_wd": "True", "wd_on_output": "True"}
        return tensors, {
            "ss_network_module": module,
            "ss_network_dim": str(recipe.rank),
            "ss_network_alpha": str(recipe.alpha),
            "ss_network_args": json.dumps(arguments),
        }


class EmbeddingPupil:
    """The vectors of a new word, for each text encoder of the model."""

    teaches_words = True

    def __init__(self, recipe: TrainingRecipe, pipe: Any, lesson: Lesson, places: Sequence[Place]) -> None:
        told = lesson.words(pipe, recipe.begin_with or "*")
        empty = [part for part, vectors in told.items() if not len(vectors)]
        if empty:
            problem = FieldProblem("begin_with", f"{recipe.begin_with!r} has no tokens", "use other words")
            raise InvalidRecipe([problem])
        device = pipe.place.torch_device
        self._word = recipe.word
        self._weights = {
            part: nn.Parameter(_spread(vectors, recipe.vectors, _generator(recipe)).to(device))
            for part, vectors in told.items()
        }
        self.groups: Mapping[str, Mapping[str, nn.Parameter]] = {"unet": dict(self._weights)}
        self.vectors: Mapping[str, Mapping[str, Tensor]] = {recipe.word: self._weights}

    def file(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """One tensor under the name that A1111 looks for; SD XL's two under theirs."""
        names = {"text_encoder": "emb_params"}
        if len(self._weights) > 1:
            names = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
        tensors = {names[part]: weight.detach().float().cpu() for part, weight in self._weights.items()}
        return tensors, {"name": self._word}


def _spread(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many vectors of those that there are, as A1111 spreads them; those that repeat differ by a little noise."""
    chosen = vectors[[index * len(vectors) // count for index in range(count)]].clone()
    if count > len(vectors):
        chosen += torch.randn(chosen.shape, generator=generator) * chosen.std() * 0.1
    return chosen


class HyperPupil:
    """A hypernetwork: a pair of small networks for each width that the UNet's attention hears."""

    vectors: Mapping[str, Mapping[str, Tensor]] = {}
    teaches_words = False

    def __init__(self, recipe: TrainingRecipe, pipe: Any, lesson: Lesson, places: Sequence[Place]) -> None:
        self._recipe, generator = recipe, _generator(recipe)
        self._pairs: dict[int, dict[str, Hyper]] = {}
        for width, by_kind in lesson.hears(pipe).items():
            pair = {
                kind: Hyper(width, recipe.structure, recipe.activation, recipe.layer_norm, generator).to(
                    pipe.place.torch_device
                )
                for kind in ("k", "v")
            }
            self._pairs[width] = pair
            for kind, layers in by_kind.items():
                for layer in layers:
                    layer.register_forward_pre_hook(pair[kind].hook)
        self.groups: Mapping[str, Mapping[str, nn.Parameter]] = {"unet": self._named()}

    def _named(self) -> dict[str, nn.Parameter]:
        return {
            f"{width}.{index}.{name}": weight
            for width, pair in self._pairs.items()
            for index, kind in enumerate("kv")
            for name, weight in pair[kind].named_parameters()
        }

    def file(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors under their widths, keys before values, and how the layers are put together."""
        recipe = self._recipe
        tensors = {name: weight.detach().float().cpu() for name, weight in self._named().items()}
        return tensors, {
            "layer_structure": json.dumps(list(recipe.structure)),
            "activation_func": recipe.activation,
            "is_layer_norm": str(recipe.layer_norm),
            "weight_initialization": "Normal",
            "activate_output": "False",
            "last_layer_dropout": "False",
        }


class WholePupil:
    """All of a model's UNet, and if asked of its text encoders."""

    vectors: Mapping[str, Mapping[str, Tensor]] = {}

    def __init__(self, recipe: TrainingRecipe, pipe: Any, lesson: Lesson, places: Sequence[Place]) -> None:
        groups: dict[str, dict[str, nn.Parameter]] = {"unet": {}, "text": {}}
        for part, network in lesson.networks(pipe).items():
            if part != "unet" and not recipe.text_encoder:
                continue
            group = groups["unet" if part == "unet" else "text"]
            for name, weight in getattr(network, "text_model", network).named_parameters():
                weight.data = weight.data.float().clone()  # what was loaded may be a view of the file
                weight.requires_grad_(True)
                group[f"{part}.{name}"] = weight
        self.groups: Mapping[str, Mapping[str, nn.Parameter]] = groups
        self.teaches_words = bool(groups["text"])

    def file(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The weights by part and name; `engine.train` lays them out as the model's own file does."""
        every = {name: weight for group in self.groups.values() for name, weight in group.items()}
        return {name: weight.detach().float().cpu() for name, weight in every.items()}, {}
