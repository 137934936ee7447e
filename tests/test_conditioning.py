"""Encoded prompts are what the text encoders say, with the weights, layers and sizes that the families learned with."""

from __future__ import annotations

import json

import pytest
import torch

from bottega.diffusion.clip_tokenizer import builtin_tokenizer
from bottega.diffusion.conditioning import PictureSize, PromptEncoder, TextEncoder, fourier_features
from bottega.errors import InvalidRecipe

transformers = pytest.importorskip("transformers")

WIDTH, LAYERS, START, END = 32, 3, 49406, 49407
SIZE = PictureSize(target=(768, 512), original=(1024, 960), crop=(8, 16))


def clip(seed: int, cls=transformers.CLIPTextModel, **options) -> torch.nn.Module:
    config = transformers.CLIPTextConfig(
        vocab_size=49_408, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
        projection_dim=24, bos_token_id=START, eos_token_id=END, **options,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():  # as initialised it hardly tells one word from another, and the final norm does nothing
        model.get_input_embeddings().weight.mul_(20)
        getattr(model, "text_model", model).final_layer_norm.weight.uniform_(0.5, 1.5)
        getattr(model, "text_model", model).final_layer_norm.bias.uniform_(-0.5, 1.0)
    return model


@pytest.fixture(scope="module")
def clip_l():
    return clip(1)


@pytest.fixture(scope="module")
def clip_g():
    return clip(2, transformers.CLIPTextModelWithProjection, hidden_act="gelu")


def sd1(model) -> PromptEncoder:
    return PromptEncoder([TextEncoder(model, builtin_tokenizer(), obeys_clip_skip=True)])


def sdxl(clip_l, clip_g, **options) -> PromptEncoder:
    tokenizer = builtin_tokenizer()
    return PromptEncoder(
        [
            TextEncoder(clip_l, tokenizer, layer=2, final_norm=False),
            TextEncoder(clip_g, tokenizer, layer=2, final_norm=False, pad=0, pooled=True),
        ],
        **{"sizes": "base", "zero_empty_negative": True, **options},
    )


def said(encoder: PromptEncoder, prompt: str, step: int = 0, **options):
    [(conditioning, _)] = encoder.encode(prompt, **{"steps": 10, **options}).at(step)
    return conditioning


def rows(text: str, pad: int = END) -> torch.Tensor:
    ids = [START, *builtin_tokenizer().encode(text), END]
    return torch.tensor([ids + [pad] * (77 - len(ids))])


@torch.no_grad()
def run(model, text: str, pad: int = END):
    return model(input_ids=rows(text, pad), output_hidden_states=True)


def test_plain_prompt_is_the_models_own_output(clip_l):
    for text in ("", "a photo of a cat", "cat " * 75):
        conditioning = said(sd1(clip_l), text)
        assert torch.equal(conditioning.context, run(clip_l, text).last_hidden_state)
        assert conditioning.vector is None


def test_long_prompt_is_chunks_side_by_side(clip_l):
    context = said(sd1(clip_l), "cat " * 75 + "dog " * 80).context
    parts = [run(clip_l, text).last_hidden_state for text in ("cat " * 75, "dog " * 75, "dog " * 5)]
    assert torch.equal(context, torch.cat(parts, dim=1))


def test_break_begins_a_chunk(clip_l):
    context = said(sd1(clip_l), "a cat BREAK a dog").context
    assert torch.equal(context, torch.cat([run(clip_l, text).last_hidden_state for text in ("a cat", "a dog")], dim=1))


def test_emphasis_by_hand(clip_l):
    encoder = sd1(clip_l)
    plain = run(clip_l, "a red cat").last_hidden_state
    weights = torch.ones(1, 77, 1)
    weights[0, 2] = 1.5
    weighed = plain * weights
    text = "a (red:1.5) cat"
    torch.testing.assert_close(said(encoder, text).context, weighed * (plain.mean() / weighed.mean()), rtol=0, atol=0)
    assert torch.equal(said(encoder, text, emphasis="No norm").context, weighed)
    assert torch.equal(said(encoder, text, emphasis="Ignore").context, plain)
    assert torch.equal(said(encoder, text, emphasis="None").context, run(clip_l, text).last_hidden_state)


def test_emphasis_is_per_chunk(clip_l):
    encoder = sd1(clip_l)
    context = said(encoder, "a (cat:1.4) BREAK a dog").context
    assert torch.equal(context[:, :77], said(encoder, "a (cat:1.4)").context)
    assert torch.equal(context[:, 77:], said(encoder, "a dog").context)


def test_emphasis_restores_the_mean_over_a_schedule(clip_l):
    """The webui encodes the texts of a schedule as one batch, repeats and all: alternation in 3 steps is a, b, a."""
    encoder = sd1(clip_l)
    schedule = encoder.encode("(big:1.5) [cat|dog]", steps=3)
    cat, dog = (run(clip_l, f"big {animal}").last_hidden_state for animal in ("cat", "dog"))
    weights = torch.ones(1, 77, 1)
    weights[0, 1] = 1.5
    before = torch.cat([cat, dog, cat])
    after = before * weights
    expected = after * (before.mean() / after.mean())
    for step, index in ((1, 0), (2, 1), (3, 2)):
        torch.testing.assert_close(schedule.at(step)[0][0].context[0], expected[index], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("skip", [1, 2, 3])
def test_clip_skip_is_an_earlier_layer_then_the_norm(clip_l, skip):
    expected = clip_l.final_layer_norm(run(clip_l, "a cat").hidden_states[-skip])
    assert torch.equal(said(sd1(clip_l), "a cat", clip_skip=skip).context, expected)


@pytest.mark.parametrize("skip", [-1, 4])
def test_clip_skip_beyond_the_layers_is_refused(clip_l, skip):
    with pytest.raises(InvalidRecipe, match="use 1 to 3"):
        said(sd1(clip_l), "a cat", clip_skip=skip)


def test_sd2_reads_the_layer_before_the_last_and_ignores_clip_skip(clip_l):
    encoder = PromptEncoder([TextEncoder(clip_l, builtin_tokenizer(), layer=2, pad=0)])
    expected = clip_l.final_layer_norm(run(clip_l, "a cat", pad=0).hidden_states[-2])
    for skip in (None, 1, 3):
        assert torch.equal(said(encoder, "a cat", clip_skip=skip).context, expected)


def test_sdxl_is_that_of_diffusers(clip_l, clip_g, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    builtin_tokenizer()._tokenizer.model.save(str(tmp_path))
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        text_encoder=clip_l,
        text_encoder_2=clip_g,
        tokenizer=transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77),
        tokenizer_2=transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token="!"),
    )
    with torch.no_grad():
        context, negative, pooled, negative_pooled = pipeline.encode_prompt("a red cat", negative_prompt="a dog")

    encoder = sdxl(clip_l, clip_g)
    for text, is_negative, their_context, their_pooled in (
        ("a red cat", False, context, pooled),
        ("a dog", True, negative, negative_pooled),
    ):
        ours = said(encoder, text, negative=is_negative, size=SIZE)
        assert torch.equal(ours.context, their_context)
        torch.testing.assert_close(ours.vector[:, :24], their_pooled)

    features = diffusers.models.embeddings.Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    numbers = torch.tensor([1024.0, 960.0, 8.0, 16.0, 768.0, 512.0])
    assert torch.equal(fourier_features(numbers), features(numbers))
    assert torch.equal(ours.vector[0, 24:], features(numbers).flatten())


def test_pooled_text_is_that_of_the_first_chunk(clip_l, clip_g):
    vector = said(sdxl(clip_l, clip_g, sizes=None), "a cat BREAK a dog").vector
    torch.testing.assert_close(vector, run(clip_g, "a cat", pad=0).text_embeds)


def test_refiner_reads_a_score_for_the_target_size(clip_g):
    encoder = PromptEncoder(
        [TextEncoder(clip_g, builtin_tokenizer(), layer=2, final_norm=False, pad=0, pooled=True)], sizes="refiner"
    )
    for negative, score in ((False, 6.0), (True, 2.5)):
        vector = said(encoder, "a cat", negative=negative, size=SIZE).vector
        assert vector.shape == (1, 24 + 5 * 256)
        expected = fourier_features(torch.tensor([1024.0, 960.0, 8.0, 16.0, score])).flatten()
        assert torch.equal(vector[0, 24:], expected)


def test_empty_negative_of_sdxl_is_zero(clip_l, clip_g):
    encoder = sdxl(clip_l, clip_g)
    empty = said(encoder, "", size=SIZE)
    nothing = said(encoder, "", negative=True, size=SIZE)
    assert not nothing.context.any()
    assert not nothing.vector[:, :24].any()
    assert torch.equal(nothing.vector[:, 24:], empty.vector[:, 24:])
    padded = said(encoder, "", negative=True, size=SIZE, chunks=2)
    assert torch.equal(padded.context, torch.cat([nothing.context, empty.context], dim=1))
    assert torch.equal(said(encoder, "", size=SIZE).context, empty.context)  # the zeros did not reach what is kept
    assert said(encoder, " ", negative=True, size=SIZE).context.any()


def test_schedule_counts_steps_from_zero(clip_l):
    schedule = sd1(clip_l).encode("a [cat:dog:3]", steps=10)
    expected = {text: run(clip_l, f"a {text}").last_hidden_state for text in ("cat", "dog")}
    for step in range(14):
        [(conditioning, weight)] = schedule.at(step)
        assert weight == 1.0
        # up to and including step 3; past the end the first text comes again
        assert torch.equal(conditioning.context, expected["dog" if 3 < step <= 10 else "cat"])


def test_equal_texts_of_a_schedule_are_one_object(clip_l):
    schedule = sd1(clip_l).encode("[cat|dog]", steps=6)
    assert schedule.at(1)[0][0] is schedule.at(3)[0][0]
    assert schedule.at(1)[0][0] is not schedule.at(2)[0][0]


def test_texts_of_a_schedule_have_one_length(clip_l):
    schedule = sd1(clip_l).encode(f"[cat:{'dog ' * 80}:5]", steps=10)
    assert schedule.chunks == 2
    short = schedule.at(0)[0][0].context
    assert torch.equal(short[:, 77:], run(clip_l, "").last_hidden_state)


def test_composition(clip_l):
    encoder = sd1(clip_l)
    schedule = encoder.encode("a cat AND " + "dog " * 80 + ":0.5", steps=10)
    (cat, cat_weight), (dog, dog_weight) = schedule.at(0)
    assert (cat_weight, dog_weight) == (1.0, 0.5)
    assert cat.context.shape == dog.context.shape == (1, 154, WIDTH)
    own = run(clip_l, "a cat").last_hidden_state
    assert torch.equal(cat.context, torch.cat([own, own[:, -1:].expand(-1, 77, -1)], dim=1))
    [(_, weight)] = encoder.encode("a cat AND a dog", steps=10, negative=True).at(0)
    assert weight == 1.0


def test_padding_to_equal_lengths(clip_l):
    encoder = sd1(clip_l)
    prompt = encoder.encode("cat " * 80, steps=10)
    negative = encoder.encode("dog", steps=10, negative=True)
    assert (prompt.chunks, negative.chunks) == (2, 1)
    padded = encoder.encode("dog", steps=10, negative=True, chunks=prompt.chunks)
    expected = [run(clip_l, text).last_hidden_state for text in ("dog", "")]
    assert torch.equal(padded.at(0)[0][0].context, torch.cat(expected, dim=1))


def test_extra_networks_are_no_words(clip_l):
    assert torch.equal(said(sd1(clip_l), "a cat<lora:x:1>").context, run(clip_l, "a cat").last_hidden_state)


def test_half_precision_encoders_answer_in_float32():
    encoder = sdxl(clip(1).bfloat16(), clip(2, transformers.CLIPTextModelWithProjection).bfloat16())
    conditioning = said(encoder, "a (cat:1.2)", size=SIZE)
    assert conditioning.context.dtype == conditioning.vector.dtype == torch.float32
    assert not conditioning.context.requires_grad


def test_a_text_is_encoded_once(clip_l):
    calls = []
    handle = clip_l.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        encoder = PromptEncoder([TextEncoder(clip_l, builtin_tokenizer(), obeys_clip_skip=True)], remembered=2)
        encoder.encode("[cat|dog]", steps=20)
        assert len(calls) == 2
        encoder.encode("(cat:1.3) BREAK dog", steps=20, emphasis="No norm")
        assert len(calls) == 2
        encoder.encode("cat", steps=20, clip_skip=2)
        assert len(calls) == 3  # and with it the cat, used longest ago, is dropped
        encoder.encode("dog", steps=20)
        assert len(calls) == 3
        encoder.encode("cat", steps=20)
        assert len(calls) == 4
        encoder.forget()
        encoder.encode("cat", steps=20)
        assert len(calls) == 5
    finally:
        handle.remove()
