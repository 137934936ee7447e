"""Models of which only the deciding tensors are left are still told for what they were, and said to be guesses."""

from __future__ import annotations

import pytest
from headers import stable_diffusion as sd
from headers.architectures import LAYOUTS
from headers.layout import Layout
from headers.minimal import MINIMAL, OTHERWISE, TRANSFORMERS

from bottega.families import known
from bottega.formats.header import Header
from bottega.library.identify import identify
from bottega.recognisers import all_recognisers

LAST = [each for each in known() if each.asked_last]


def header_of(layout: Layout) -> Header:
    header = sd.header(layout.shapes, layout.dtype, metadata=layout.metadata, configs=layout.configs)
    return Header(header.path, layout.format, header.tensors, header.metadata, header.configs)


@pytest.mark.parametrize("name", MINIMAL)
def test_what_decides_is_enough(name: str) -> None:
    layout = MINIMAL[name]
    found = identify(header_of(layout), all_recognisers())
    match = found.match
    assert (match.kind, found.family, match.variant) == (layout.kind, layout.family, layout.variant), match.because
    assert match.guess or not layout.guess
    assert not (found.runs and found.recogniser == "incomplete")


@pytest.mark.parametrize("name", MINIMAL)
def test_at_most_one_claims_it_at_first(name: str) -> None:
    header = header_of(MINIMAL[name])
    claims = [each.id for each in all_recognisers() if each not in LAST and each.recognise(header)]
    assert len(claims) <= 1


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model.", "net.", "model.model."])
def test_a_prefix_does_not_matter(prefix: str) -> None:
    for layout in TRANSFORMERS.values():
        shapes = sd.under(prefix, dict(layout.shapes))
        found = identify(header_of(Layout(shapes, "", "")), all_recognisers())
        assert (found.family, found.match.variant) == (layout.family, layout.variant)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_deciding_name_among_others_decides_nothing(name: str) -> None:
    header = header_of(Layout(OTHERWISE[name], "", ""))
    assert [each.id for each in known() if each.recognise(header)] == []


def test_whoever_is_asked_last_takes_nothing_from_others() -> None:
    for layout in LAYOUTS.values():
        assert identify(header_of(layout), all_recognisers()).recogniser not in {each.id for each in LAST}


@pytest.mark.parametrize("shape", [(), (0,), (1,) * 64, (1 << 62, 1 << 62)])
def test_hostile_shapes_are_no_error(shape: tuple[int, ...]) -> None:
    for layout in MINIMAL.values():
        header = header_of(Layout(dict.fromkeys(layout.shapes, shape), "", ""))
        for each in LAST:
            each.recognise(header)
