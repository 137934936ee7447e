"""Every published layout of an architecture that can't be run yet is told by exactly one recogniser."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from headers import architectures
from headers import stable_diffusion as sd
from headers.architectures import LAYOUTS, PUBLISHED
from headers.layout import Layout

from bottega.families import known
from bottega.formats.header import Header
from bottega.library.identify import UNKNOWN, Identity, identify
from bottega.recognisers import all_recognisers


def header_of(layout: Layout) -> Header:
    header = sd.header(layout.shapes, layout.dtype, metadata=layout.metadata, configs=layout.configs)
    return Header(header.path, layout.format, header.tensors, header.metadata, header.configs)


def identified(layout: Layout) -> Identity:
    return identify(header_of(layout), all_recognisers())


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(name: str) -> None:
    layout = LAYOUTS[name]
    found = identified(layout)
    match = found.match
    assert (match.kind, found.family, match.variant, match.guess) == (
        layout.kind, layout.family, layout.variant, layout.guess,
    ), match.because  # fmt: skip
    assert match.category in ("base", "part", "lightweight fine-tune")
    assert match.because
    json.dumps(match.dimensions)  # the catalog keeps it so


def test_every_architecture_has_a_layout_or_a_pipeline() -> None:
    told = {identified(layout).recogniser for layout in LAYOUTS.values()}
    silent = {each.id for each in known()} - told
    # Of these only a config or model_index.json tells; each is one more row of a table that is tested as such.
    assert silent <= {each.id for each in known() if not getattr(each.recognise, "__self__", each).namings}
