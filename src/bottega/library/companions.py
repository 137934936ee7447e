"""What lies beside a model under its name: one table of the cards and pictures that people and programs put there."""

from __future__ import annotations

SOURCE = ".source.json"  # where `bottega models get` had it from: the only one that is our own
CIVITAI = ".civitai.info"  # Civitai Helper's, which many read
STABILITY_MATRIX = ".cm-info.json"
DESCRIPTION = ".description.txt"
LICENCE = ".license.txt"

# The endings that follow the model's name without its own ending.
CARDS = (
    ".json", ".metadata.json", CIVITAI, STABILITY_MATRIX, SOURCE, ".txt", DESCRIPTION, ".md", LICENCE, ".yaml",
)  # fmt: skip
# What a repository of Hugging Face says of all the models in its folder.
README = "README.md"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")  # the first that is there is the repository's
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
PREVIEWS = (*(f".preview{ending}" for ending in PICTURES), *PICTURES)  # the first that is there is the model's

# The same in two: the last word, with its dot, and what may stand before it.
LAST = frozenset(f".{ending.rpartition('.')[2]}" for ending in (*CARDS, *PREVIEWS))
BEFORE = frozenset(ending.rpartition(".")[0] for ending in (*CARDS, *PREVIEWS)) - {""}
