"""The patterns by which peft's configs name modules, beside peft's own matcher."""

from __future__ import annotations

import pytest

from bottega.families._stable_diffusion import patterns
from bottega.families._stable_diffusion.patterns import Matcher

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
NAMES = (f"{BLOCK}.to_q", f"{BLOCK}.to_out.0", "mid_block.resnets.12.conv1", "to_q", "into_q", "up.to_q.to_k")


@pytest.mark.parametrize(
    "pattern",
    [
        "to_q", "^to_q", "^to_q$", "attn1.to_q", r"attn1\.to_q", "attn1_to_q", f"^{BLOCK}.to_q", "o_q", "down_blocks",
        "down_blocks.*to_q", ".*", "to_[qk]", "to_[^q]", "to_(q|k)", "to_(?:q|out.0)", "to_k|^to_q|conv1",
        r"resnets\.\d+\.conv1", r"resnets\.\d{1,2}\.conv\w", r"\d{2}.conv1", r"\d{3,}.conv1", "re(s|n|e|ts)+.12.conv1?",
        r"(\w+\.)*?to_q", r"(\w+\.){2}to_k", "to_q{0}|to_q", "to_q?", "(to_q.)?to_k", "(in)?to_q$",
        "(.*.)?to_(q|out.0)", "", "0", r"attn\S.to_\D",
    ],
)  # fmt: skip
def test_they_match_as_in_peft(pattern: str) -> None:
    from peft.utils.other import get_pattern_key

    matcher = Matcher()
    assert [name for name in NAMES if matcher.fits(pattern, name)] == [
        name for name in NAMES if get_pattern_key([pattern, "(.*)"], name) == pattern
    ]
    assert not matcher.unread


@pytest.mark.parametrize(
    "pattern",
    [
        r"(to_q)\.\1", "(?=to)to_q", "(?i)TO_Q", "(q|^to_q)", r"\bto_q", "to_q++", "(", "to_q)", "[z-a]", "a" * 501,
        "(" * 30, "((a{1,99}){1,99}){1,99}", "(){999}" * 9,
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_told_once(pattern: str) -> None:
    matcher = Matcher()
    assert not any(matcher.fits(pattern, name) for name in NAMES * 2)
    assert list(matcher.unread) == [pattern]


def test_no_file_keeps_us_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, busy = Matcher(), "b" + "[a-z]*" * 60
    assert not matcher.fits("b(a|a)*(a+)+", "a" * 5000)
    assert not matcher.unread
    monkeypatch.setattr(patterns, "_STEPS", 1_000_000)
    assert not any(matcher.fits(busy, "a" * 200) for _ in range(20))
    assert not matcher.fits("to_q", "to_q")
    assert list(matcher.unread) == [busy, "to_q"]


@pytest.mark.parametrize("piece", ["({}a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?){{0,20}}x7", "(?={})x1"])
def test_many_patterns_are_not_all_read(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    inner = patterns._read
    monkeypatch.setattr(patterns, "_read", lambda pattern: read.append(pattern) or inner(pattern))
    matcher, asked = Matcher(), 0
    while not matcher.is_spent and asked < 1000:
        assert not matcher.fits(piece.format("abc"[asked % 3] * (1 + asked // 3)), "to_q")
        asked += 1
    assert matcher.is_spent and asked == len(read) < 200
    assert not matcher.fits("to_q", "to_q") and len(read) == asked
