"""The words that call forth what a model was trained on, from how often each tag stood in its captions."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import TypeGuard

from bottega.library.about.facts import MAX_WORDS

NEARLY_ALL = 90  # percent of a folder's captions: what the model can't tell apart from what it was taught
MOST = 12  # words from one folder
LONGEST = 100  # characters; what is longer is a sentence and not a word

# What captioning programs and trainers write to every picture, whatever it shows: no word of any one model's own.
_GENERAL = frozenset((
    "1girl", "1boy", "1other", "girl", "boy", "woman", "man", "solo", "no_humans", "looking_at_viewer",
    "simple_background", "white_background", "realistic", "photo", "photo_(medium)", "photorealistic",
    "masterpiece", "best_quality", "high_quality", "good_quality", "amazing_quality", "absurdres", "highres",
    "general", "sensitive", "explicit", "safe", "score_9", "score_8_up", "score_7_up", "score_6_up", "score_5_up",
    "score_4_up", "newest", "recent", "image", "images", "img", "imgs", "picture", "pictures", "data", "dataset",
    "train", "training", "class", "instance",
))  # fmt: skip

_REPEATED = re.compile(r"([0-9]{1,6})_(.+)", re.DOTALL)  # how kohya's folders are called: `10_token class`


def trigger_words(
    frequencies: Mapping[str, object], folders: Mapping[str, object], regularisation: Container[str] = ()
) -> tuple[str, ...]:
    """The trigger words from `ss_tag_frequency` (tags with their counts by folder) and `ss_dataset_dirs`.

    From each folder the tags that nearly all of its captions have, in their order there, general ones left out; from
    one without such the words of its own name. Those of the folders with most captions come first. Folders of
    `regularisation` pictures, which show what is to stay as it was, have none; nor have those that `folders` leaves
    out.
    """
    found: dict[str, int] = {}
    for folder, told in frequencies.items():
        if folder in regularisation or (folders and folder not in folders):
            continue
        counts = told if isinstance(told, dict) else {}
        images = _images(folders.get(folder)) or max(filter(_is_count, counts.values()), default=0)
        for tag in _of_folder(folder, counts, images):
            found[tag] = max(found.get(tag, 0), counts.get(tag, images))
    return tuple(sorted(found, key=lambda tag: -found[tag]))[:MAX_WORDS]


def _of_folder(folder: str, counts: Mapping[str, object], images: int) -> list[str]:
    least = NEARLY_ALL * images  # both sides stay integers, which may be too large for a float
    # What stands in the one caption of one picture describes that picture.
    often = [tag for tag, count in counts.items() if _is_count(count) and 100 * count >= least] if images > 1 else []
    own = [tag for tag in often if 0 < len(tag) <= LONGEST and not _is_general(tag)]
    name = _REPEATED.fullmatch(folder)
    if name and not own and len(name[2]) <= LONGEST and not _is_general(name[2]):
        own = [name[2]]
    return own[:MOST]


def _is_count(told: object) -> TypeGuard[int]:
    return type(told) is int


def _images(told: object) -> int:
    """How many pictures were in a folder, from `ss_dataset_dirs`; 0 if that does not say."""
    count = told.get("img_count") if isinstance(told, dict) else None
    return count if type(count) is int and count > 0 else 0


def _is_general(tag: str) -> bool:
    return tag.strip().lower().replace(" ", "_") in _GENERAL
