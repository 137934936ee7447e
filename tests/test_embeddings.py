"""The vectors of an embedding stand where its name was, in every text encoder, and prompts are cut around them."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bottega.adapters import lora
from bottega.adapters.embedding import adapter
from bottega.diffusion.clip_tokenizer import Chunk, builtin_tokenizer, new_words, split_into_chunks, words_used
from bottega.diffusion.conditioning import PictureSize
from bottega.errors import FormatError
from bottega.events import Note
from bottega.families import sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.families._stable_diffusion.load import Pipe
from bottega.families._stable_diffusion.tasks import _prompts
from bottega.formats import read_header, safetensors
from bottega.recipe import Ref, Use
from bottega.runtime.place import choose
from bottega.runtime.weights import rows
from bottega.spec import Attachment

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}
START, END = 49406, 49407
FIRST = 49_408  # the number of the first vector in a vocabulary that embeddings are added to
NARROW, WIDE = 32, 64  # the widths of the toys' text encoders


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of each family, in a file called after it."""
    path = tmp_path_factory.mktemp("toys") / f"{request.param}.safetensors"
    return toy.write_single_file(path, request.param, dtype="float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1 checkpoint."""
    return toy.write_single_file(tmp_path_factory.mktemp("toys") / "sd1.safetensors", "sd1", dtype="float32")


def opened(path: Path) -> Pipe:
    header, face = read_header(path), FAMILIES[path.stem]
    match = face.recognise(header)
    assert match is not None
    pipe = face.load(header, match, choose("cpu", "float32"))
    assert isinstance(pipe, Pipe)
    return pipe


def attachment(embedding: Path, model: Path, name: str | None = None) -> Attachment:
    header, base, face = read_header(embedding), read_header(model), FAMILIES[model.stem]
    match, base_match = adapter.recognise(header), face.recognise(base)
    assert match is not None and base_match is not None
    use = Use(kind="embedding", ref=Ref(name=name or embedding.stem))
    return Attachment(use, header, match, base, base_match, face)


def vectors(count: int, width: int, seed: int) -> Tensor:
    return torch.randn((count, width), generator=torch.Generator().manual_seed(seed))


def write_for(model: Path, path: Path, count: int, seed: int = 0) -> Path:
    """An embedding for a toy: A1111's `.pt`, or for SD XL a pair of matrices."""
    if model.stem == "sdxl":
        told = written_for(count, seed)
        tensors = {"clip_l": told["text_encoder"], "clip_g": told["text_encoder_2"]}
        safetensors.write(path.with_suffix(".safetensors"), rows(tensors))
        return path.with_suffix(".safetensors")
    matrix = vectors(count, NARROW, seed)
    torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": matrix}, "name": path.stem}, path.with_suffix(".pt")
    )
    return path.with_suffix(".pt")


def attach(pipe: Pipe, what: Attachment, said: list[object] | None = None) -> Callable[[], None]:
    assert adapter.unfit(what) == ""
    assert adapter.attach is not None
    return adapter.attach(pipe, what, ([] if said is None else said).append)  # type: ignore[arg-type]


def encoded(pipe: Pipe, prompt: str, **options: object) -> tuple[Tensor, Tensor | None]:
    size = PictureSize((64, 64)) if pipe.sizes else None
    schedule = _prompts(pipe).encode(prompt, **{"steps": 4, "size": size, **options})  # type: ignore[arg-type]
    [(said, _)] = schedule.at(0)
    return said.context, said.vector


@torch.no_grad()
def by_definition(pipe: Pipe, chunks: list[list[int]], embeddings: list[Mapping[str, Tensor]]) -> Tensor:
    """What text encoders say of chunks of token numbers whose vocabulary goes on with the vectors of embeddings."""
    contexts = []
    for encoder in pipe.text_encoders:
        model = copy.deepcopy(encoder.model)
        table = model.get_input_embeddings()
        table.weight = torch.nn.Parameter(torch.cat([table.weight, *(each[encoder.part] for each in embeddings)]))
        table.num_embeddings = len(table.weight)
        said = []
        for chunk in chunks:
            rest = 76 - len(chunk)
            ids = [START, *chunk, *([END] * rest if encoder.pad is None else [END, *[encoder.pad] * (rest - 1)])]
            # Told by the end token's place, wherever a number that is larger may stand.
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            context = states[-encoder.layer]
            inner = getattr(model, "text_model", model)
            said.append(inner.final_layer_norm(context) if encoder.final_norm else context)
        contexts.append(torch.cat(said, dim=1))
    return torch.cat(contexts, dim=2)


def ids(text: str) -> list[int]:
    return builtin_tokenizer().encode(text)


def written_for(count: int, seed: int = 0) -> dict[str, Tensor]:
    """What `write_for` writes, by the part that it is for."""
    return {"text_encoder": vectors(count, NARROW, seed), "text_encoder_2": vectors(count, WIDE, seed + 100)}


# --- in the text encoder ---------------------------------------------------------------------------------------------


def test_vectors_stand_where_the_name_was(model: Path, tmp_path: Path) -> None:
    pipe = opened(model)
    file = write_for(model, tmp_path / "lighthouse", 3)
    attach(pipe, attachment(file, model))
    new = [FIRST, FIRST + 1, FIRST + 2]
    for prompt, chunk in [
        ("a lighthouse by the sea", [*ids("a"), *new, *ids("by the sea")]),
        ("Lighthouse", new),
        ("a house, lighthouse lighthouse", [*ids("a house,"), *new, *new]),
    ]:
        context, _ = encoded(pipe, prompt)
        assert torch.equal(context, by_definition(pipe, [chunk], [written_for(3)])), prompt
        assert torch.equal(encoded(pipe, prompt, negative=True)[0], context)


def test_the_pooled_text_has_the_vectors_too(tmp_path: Path) -> None:
    model = toy.write_single_file(tmp_path / "sdxl.safetensors", "sdxl", dtype="float32")
    pipe = opened(model)
    without = encoded(pipe, "a lighthouse")[1]
    attach(pipe, attachment(write_for(model, tmp_path / "lighthouse", 2), model))
    with_it = encoded(pipe, "a lighthouse")[1]
    assert without is not None and with_it is not None
    assert not torch.equal(without, with_it)
    encoder = pipe.text_encoders[1]
    rows_of = pipe.embeddings["lighthouse"]["text_encoder_2"]
    tokens = [START, *ids("a"), 0, 0, END, *[0] * 72]
    table = encoder.model.get_input_embeddings()
    hook = table.register_forward_hook(lambda _, __, out: torch.cat([out[:, :2], rows_of[None], out[:, 4:]], dim=1))
    last = encoder.model(input_ids=torch.tensor([tokens]), output_hidden_states=True).last_hidden_state
    hook.remove()
    assert torch.equal(with_it[:, :48], encoder.model.text_projection(last[:, 4]))


def test_emphasis_multiplies_what_the_vectors_became(tiny: Path, tmp_path: Path) -> None:
    pipe = opened(tiny)
    attach(pipe, attachment(write_for(tiny, tmp_path / "lighthouse", 2), tiny))
    plain = encoded(pipe, "a lighthouse by night")[0]
    weighed = encoded(pipe, "a (lighthouse:1.5) by night", emphasis="No norm")[0]
    weights = torch.ones(77)
    weights[2:4] = 1.5  # behind the start and `a`
    assert torch.equal(weighed, plain * weights[None, :, None])


def test_an_embedding_in_a_schedule_comes_at_its_step(tiny: Path, tmp_path: Path) -> None:
    pipe = opened(tiny)
    file = write_for(tiny, tmp_path / "lighthouse", 2)
    attach(pipe, attachment(file, tiny))
    schedule = _prompts(pipe).encode("a [house:lighthouse:2]", steps=4)
    assert torch.equal(schedule.at(0)[0][0].context, encoded(pipe, "a house")[0])
    assert torch.equal(schedule.at(3)[0][0].context, encoded(pipe, "a lighthouse")[0])


def test_detached_it_is_a_word_like_any_other(model: Path, tmp_path: Path) -> None:
    pipe = opened(model)
    before = encoded(pipe, "a lighthouse by the sea")[0]
    detach = attach(pipe, attachment(write_for(model, tmp_path / "lighthouse", 2), model))
    assert not torch.equal(encoded(pipe, "a lighthouse by the sea")[0], before)
    detach()
    assert torch.equal(encoded(pipe, "a lighthouse by the sea")[0], before)
    assert not pipe.embeddings


def test_several_are_told_apart(tiny: Path, tmp_path: Path) -> None:
    pipe = opened(tiny)
    attach(pipe, attachment(write_for(tiny, tmp_path / "light", 2, seed=1), tiny))
    attach(pipe, attachment(write_for(tiny, tmp_path / "lighthouse", 3, seed=2), tiny))
    chunk = [FIRST, FIRST + 1, *ids("and"), FIRST + 2, FIRST + 3, FIRST + 4]
    both = [written_for(2, seed=1), written_for(3, seed=2)]
    assert torch.equal(encoded(pipe, "light and lighthouse")[0], by_definition(pipe, [chunk], both))


def test_what_was_encoded_is_not_taken_for_another(tiny: Path, tmp_path: Path) -> None:
    pipe = opened(tiny)
    for number, name in enumerate(("lighthouse", "house")):
        attach(pipe, attachment(write_for(tiny, tmp_path / name, 2, seed=number), tiny))
    one, other = (encoded(pipe, f"a {name}")[0] for name in ("lighthouse", "house"))
    new = [*ids("a"), FIRST, FIRST + 1]
    assert torch.equal(one, by_definition(pipe, [new], [written_for(2, seed=0)]))
    assert torch.equal(other, by_definition(pipe, [new], [written_for(2, seed=1)]))


def test_a_name_may_stand_for_other_vectors_later(tiny: Path, tmp_path: Path) -> None:
    pipe = opened(tiny)
    seen = []
    for seed in (0, 1):
        file = write_for(tiny, tmp_path / f"file-{seed}", 2, seed)
        detach = attach(pipe, attachment(file, tiny, name="lighthouse"))
        seen.append(encoded(pipe, "a lighthouse")[0])
        detach()
    assert not torch.equal(*seen)


def test_an_encoder_without_vectors_reads_the_word(tmp_path: Path) -> None:
    model = toy.write_single_file(tmp_path / "sdxl.safetensors", "sdxl", dtype="float32")
    pipe = opened(model)
    plain = encoded(pipe, "a lighthouse")[0]
    pipe.embeddings["lighthouse"] = {"text_encoder_2": vectors(2, WIDE, 0)}
    assert pipe.prompts is not None
    pipe.prompts.forget()
    context = encoded(pipe, "a lighthouse")[0]
    assert torch.equal(context[..., :NARROW], plain[..., :NARROW])
    assert not torch.equal(context[..., NARROW:], plain[..., NARROW:])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_lora_brings_its_words_along(family: str, tmp_path: Path) -> None:
    model = toy.write_single_file(tmp_path / f"{family}.safetensors", family, dtype="float32")
    pipe = opened(model)
    told = written_for(2)
    keys = {
        "sd1": {"string_to_param.*": "text_encoder"},
        "sdxl": {"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
    }
    tensors = {f"bundle_emb.lighthouse.{key}": told[part] for key, part in keys[family].items()}
    for name in ("to_q", "to_k", "to_v", "to_out_0"):
        key = f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_{name}"
        tensors |= {f"{key}.lora_up.weight": torch.ones(128, 1), f"{key}.lora_down.weight": torch.ones(1, 128)}
    tensors["bundle_emb.wide.emb_params"] = torch.zeros(1, 768)
    safetensors.write(tmp_path / "neon.safetensors", rows(tensors))
    header, base, face = read_header(tmp_path / "neon.safetensors"), read_header(model), FAMILIES[family]
    match, base_match = lora.adapter.recognise(header), face.recognise(base)
    assert match is not None and match.kind == "lora" and base_match is not None and lora.adapter.attach is not None
    use = Use(kind="lora", ref=Ref(name="neon", sha256="0" * 64))
    said: list[object] = []
    detach = lora.adapter.attach(pipe, Attachment(use, header, match, base, base_match, face), said.append)  # type: ignore[arg-type]
    assert said == [Note("neon: not used: 'bundle_emb.wide.emb_params'")]
    new = [*ids("a"), FIRST, FIRST + 1]
    assert torch.equal(encoded(pipe, "a lighthouse")[0], by_definition(pipe, [new], [told]))
    # One that is asked for by itself goes first.
    own = attach(pipe, attachment(write_for(model, tmp_path / "lighthouse", 2, seed=7), model))
    assert torch.equal(encoded(pipe, "a lighthouse")[0], by_definition(pipe, [new], [written_for(2, seed=7)]))
    own()
    assert torch.equal(encoded(pipe, "a lighthouse")[0], by_definition(pipe, [new], [told]))
    detach()
    assert not pipe.embeddings


# --- chunks ----------------------------------------------------------------------------------------------------------


def split(text: str, **counts: int) -> list[Chunk]:
    return split_into_chunks(text, builtin_tokenizer(), words=new_words(counts, builtin_tokenizer()))


def test_vectors_that_do_not_all_fit_begin_a_chunk() -> None:
    first, second = split("cat " * 73 + "lighthouse dog", lighthouse=3)
    assert (len(first.tokens), first.embedded) == (73, ())
    assert second.tokens == (0, 0, 0, *ids("dog")) and second.embedded == ((0, "lighthouse"),)
    (whole,) = split("cat " * 72 + "lighthouse", lighthouse=3)
    assert (len(whole.tokens), whole.embedded) == (75, ((72, "lighthouse"),))


def test_vectors_move_with_their_phrase_behind_the_last_comma() -> None:
    first, second = split("cat " * 65 + ", a lighthouse by the sea and then a house", lighthouse=4)
    assert first.tokens == (*ids("cat " * 65), *ids(",")) and first.embedded == ()
    assert second.tokens[:5] == (*ids("a"), 0, 0, 0, 0) and second.embedded == ((1, "lighthouse"),)
    # What stands before the comma stays.
    first, second = split("cat " * 60 + "lighthouse, " + "dog " * 20, lighthouse=4)
    assert first.embedded == ((60, "lighthouse"),) and len(first.tokens) == 65
    assert second.tokens == tuple(ids("dog " * 20))


def test_names_are_found_as_they_are_written() -> None:
    def used(text: str, *names: str) -> set[str]:
        return words_used([text], names, builtin_tokenizer())

    assert used("a Bad-Hands-5, cat", "bad-hands-5") == {"bad-hands-5"}
    assert used("(easynegative:1.2)", "EasyNegative") == {"EasyNegative"}
    assert used("a lighthouse", "light") == set()
    assert used("style of my painter", "my painter", "my") == {"my painter"}  # the longer one wins
    assert used("nothing of it", "bad-hands-5", "") == set()


# --- layouts ---------------------------------------------------------------------------------------------------------


def written(layout: str, matrix: Tensor, folder: Path) -> Path:
    """The same vectors as each program writes them."""
    if layout == "a1111":
        told = {"string_to_token": {"*": 265}, "string_to_param": {"*": matrix}, "name": "x", "step": 10}
        torch.save(told, folder / "word.pt")
    elif layout == "a1111-parameters":
        held = torch.nn.ParameterDict({"*": torch.nn.Parameter(matrix)})
        torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": held}, folder / "word.pt")
    elif layout == "half":
        safetensors.write(folder / "word.safetensors", rows({"emb_params": matrix.half()}))
    elif layout == "emb_params":
        safetensors.write(folder / "word.safetensors", rows({"emb_params": matrix}))
    elif layout == "sd-concepts":
        torch.save({"<my-word>": matrix[0]}, folder / "word.bin")
    else:
        safetensors.write(folder / "word.safetensors", rows({"my-word": matrix}))
    return next(folder.glob("word.*"))


@pytest.mark.parametrize("layout", ["a1111", "a1111-parameters", "emb_params", "half", "sd-concepts", "bare"])
def test_every_layout_gives_its_vectors(layout: str, tmp_path: Path) -> None:
    count = 1 if layout == "sd-concepts" else 3
    matrix = vectors(count, 768, 1)
    file = written(layout, matrix, tmp_path)
    header = read_header(file)
    match = adapter.recognise(header)
    assert match is not None
    base = SimpleNamespace(variant="base", dimensions={"text_encoder": {"width": 768}})
    use = Use(kind="embedding", ref=Ref(name="word"))
    what = Attachment(use, header, match, header, base, FAMILIES["sd1"])  # type: ignore[arg-type]
    pipe = SimpleNamespace(embeddings=ChainMap({}, {}), prompts=None)
    attach(pipe, what)  # type: ignore[arg-type]
    expected = matrix.half().float() if layout == "half" else matrix
    assert torch.equal(pipe.embeddings["word"]["text_encoder"], expected)


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"emb_params": (2, 768)}, "its vectors are 768 wide, and the model's text encoder hears 32"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "768 and 1280 wide"),
        ({"emb_params": (76, 32)}, "it has 76 vectors, and 75 fit"),
        ({"string_to_param.a": (1, 32), "string_to_param.b": (1, 32)}, "it holds 2 words"),
    ],
)
def test_what_does_not_fit_is_told(
    tensors: Mapping[str, tuple[int, int]], told: str, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "word.safetensors"
    safetensors.write(file, rows({name: torch.zeros(shape) for name, shape in tensors.items()}))
    assert told in adapter.unfit(attachment(file, tiny))


def test_numbers_that_are_not_finite_are_refused(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "word.safetensors"
    safetensors.write(file, rows({"emb_params": torch.full((2, NARROW), torch.nan)}))
    with pytest.raises(FormatError, match="not finite"):
        attach(opened(tiny), attachment(file, tiny))


def test_what_no_encoder_hears_is_noted(tmp_path: Path) -> None:
    model = toy.write_single_file(tmp_path / "sdxl.safetensors", "sdxl", variant="refiner", dtype="float32")
    said: list[object] = []
    attach(opened(model), attachment(write_for(model, tmp_path / "lighthouse", 2), model), said)
    assert said == [Note("lighthouse: not used: 'clip_l'")]
