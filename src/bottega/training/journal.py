"""What a training writes down as it goes: every step as a line of JSON, and loss and learning rate as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bottega.events import Learned
from bottega.formats.atomic import atomic

LOG, CURVE = "log.jsonl", "curve.png"
SIZE = (900, 420)
_MARGIN = (64, 24, 64, 40)  # left, top, right, bottom
_INK, _GRID, _LOSS, _SMOOTH, _RATE, _JUDGED = "#30343c", "#e2e5ea", "#c3d3ee", "#2563c9", "#e08a2c", "#1d9a5b"


class Journal:
    """The log of a training whose state is that of `step`: lines of later steps are done again, and written again."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lines = [line for line in read_log(folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        with atomic(folder / LOG) as file:
            file.write(text.encode())
        self._file = (folder / LOG).open("a", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, event: Learned) -> None:
        """Add a step."""
        line: dict[str, Any] = {"step": event.step, "loss": event.loss, "rate": event.rate}
        if event.validation is not None:
            line["validation"] = event.validation
        self._lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def draw(self) -> None:
        """Draw what was written so far."""
        if not self._lines:
            return
        import io

        content = io.BytesIO()
        curve(self._lines).save(content, "PNG")
        with atomic(self._folder / CURVE) as file:
            file.write(content.getvalue())


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The steps in a training's log; a last line that a kill cut short is left out."""
    file = folder / LOG
    lines: list[dict[str, Any]] = []
    if not file.is_file():
        return lines
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def curve(lines: Sequence[dict[str, Any]]) -> Any:
    """A picture of loss (pale, and smoothed), validation loss and learning rate over the steps."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = _MARGIN[0], _MARGIN[1], SIZE[0] - _MARGIN[2], SIZE[1] - _MARGIN[3]
    steps = [line["step"] for line in lines]
    losses = [line["loss"] for line in lines]
    smooth = _smoothed(losses)
    judged = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    shown = sorted([*losses, *(loss for _, loss in judged)])
    high = max(shown[int(len(shown) * 0.99)], max(smooth)) * 1.05 or 1.0  # a few outliers would flatten the rest
    fastest = max(line["rate"] for line in lines) or 1.0
    last = max(steps[-1], 2)

    def place(step: float, value: float, highest: float) -> tuple[float, float]:
        across = (step - 1) / (last - 1)
        return left + across * (right - left), bottom - min(value / highest, 1.0) * (bottom - top)

    for part in range(5):
        y = bottom - part / 4 * (bottom - top)
        pen.line([(left, y), (right, y)], fill=_GRID)
        pen.text((left - 6, y), f"{high * part / 4:.3g}", fill=_SMOOTH, anchor="rm")
        pen.text((right + 6, y), f"{fastest * part / 4:.2g}", fill=_RATE, anchor="lm")
    pen.text((left, SIZE[1] - 12), "1", fill=_INK, anchor="lb")
    pen.text((right, SIZE[1] - 12), f"step {steps[-1]}", fill=_INK, anchor="rb")
    named = f"loss {smooth[-1]:.4f}" + (f", on held-out pictures {judged[-1][1]:.4f}" if judged else "")
    pen.text(((left + right) / 2, SIZE[1] - 12), f"{named}; learning rate", fill=_INK, anchor="mb")
    for values, highest, colour, width in (
        (losses, high, _LOSS, 1),
        ([line["rate"] for line in lines], fastest, _RATE, 2),
        (smooth, high, _SMOOTH, 2),
    ):
        points = [place(step, value, highest) for step, value in zip(steps, values, strict=True)]
        if len(points) > 1:
            pen.line(points, fill=colour, width=width)
    for step, loss in judged:
        x, y = place(step, loss, high)
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=_JUDGED)
    return picture


def _smoothed(values: Sequence[float], keeping: float = 0.95) -> list[float]:
    """The running average of values, corrected for where it begins."""
    smooth, average = [], 0.0
    for count, value in enumerate(values, 1):
        average = keeping * average + (1 - keeping) * value
        smooth.append(average / (1 - keeping**count))
    return smooth
