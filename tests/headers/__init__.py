"""Headers of published models, written down as the rules that their layouts follow: names and shapes, no weights."""
