"""HTML and Markdown as the plain text that they show; in time that grows with their length and no faster."""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})((?:\"[^\"]*\"|'[^']*'|[^'\"<>]){0,2000})>")
_HREF = re.compile(r"\bhref\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_UNSEEN = ("script", "style", "head", "template", "iframe", "object", "svg", "noscript")
_BLOCKS = frozenset((
    "p", "div", "br", "hr", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "table", "tr", "blockquote", "pre",
    "section", "article", "header", "footer", "figure", "details", "summary",
))  # fmt: skip


def plain(markup: str) -> str:
    """The text that a browser would show for a piece of HTML: a link's address follows it, list items are dashed.

    Python's own parser takes quadratic time for some texts, and this is read from anybody's cards.
    """
    if "<" not in markup and "&" not in markup:
        return markup.strip()
    parts: list[str] = []
    links: list[tuple[str, int]] = []  # the open link, if there is one: where it leads, and where its text begins
    position = 0
    while (at := markup.find("<", position)) >= 0:
        parts.append(html.unescape(_flat(markup[position:at])))
        if markup.startswith(("<!", "<?"), at):
            mark = "-->" if markup.startswith("<!--", at) else ">"
            end = markup.find(mark, at + 2)
            position = len(markup) if end < 0 else end + len(mark)
            continue
        tag = _TAG.match(markup, at)
        if tag is None:
            parts.append("<")
            position = at + 1
            continue
        position = tag.end()
        closes, name = bool(tag[1]), tag[2].lower()
        if name in _UNSEEN and not closes:
            position = _after(markup, name, position)
        elif name == "a":
            _link(parts, links, "" if closes else _address(tag[3]), closes)
        elif name == "li":
            parts.append("" if closes else "\n- ")
        elif name in _BLOCKS:
            parts.append("\n\n" if name == "p" else "\n")
        elif name in ("td", "th"):
            parts.append(" ")
    parts.append(html.unescape(_flat(markup[position:])))
    return tidy("".join(parts))


def tidy(text: str) -> str:
    """Text without spaces at the ends of its lines, and with at most one empty line in a row."""
    lines = [_flat(line).strip() for line in text.split("\n")]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return "\n".join(kept).strip()


def _flat(text: str) -> str:
    return re.sub(r"[ \t\r\n\f]+", " ", text)


def _address(attributes: str) -> str:
    match = _HREF.search(attributes)
    told = html.unescape(next((group for group in match.groups() if group), "")) if match else ""
    return told.strip() if re.match(r"https?://\S+\Z", told.strip(), re.IGNORECASE) else ""


def _link(parts: list[str], links: list[tuple[str, int]], address: str, closes: bool) -> None:
    if not closes:
        links[:] = [(address, len(parts))]  # a link in a link ends it
    elif links:
        address, begin = links.pop()
        shown = "".join(parts[begin:]).strip()
        if address and shown and address.rstrip("/") != shown.rstrip("/"):
            parts.append(f" ({address})")
        elif address and not shown:
            parts.append(address)


def _after(markup: str, name: str, position: int) -> int:
    """Where an element ends whose content nobody sees; it has no end where the text has none for it."""
    end = re.compile(rf"</{name}[^>]{{0,100}}>", re.IGNORECASE).search(markup, position)
    return end.end() if end else len(markup)


# --- Markdown --------------------------------------------------------------------------------------------------------

_IMAGE = re.compile(r"!\[[^\]\n]{0,300}\]\([^)\n]{0,2000}\)")
_MARKDOWN_LINK = re.compile(r"\[([^\[\]\n]{1,300})\]\((https?://[^()\s]{1,1000})\)")
_TEMPLATES = ("Model Card for Model ID",)  # of huggingface_hub, which people leave as it is
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)([^*_`\n]{1,300})(?<=\S)\1")


def first_paragraph(markdown: str) -> str:
    """The first paragraph of prose in Markdown: no heading, picture, table, list of links or code."""
    markdown = re.sub(r"<!--.{0,2000}?-->", "", markdown[:50_000], flags=re.DOTALL)
    in_code = False
    for block in re.split(r"\n[ \t]*\n", markdown):
        fences = block.count("```")
        starts_in_code, in_code = in_code, in_code != bool(fences % 2)
        if starts_in_code or fences:
            continue
        lines = [line.strip() for line in block.strip().split("\n")]
        lines = [line for line in lines if not line.startswith(("#", "|", "<", ">", "---", "==="))]
        shown = _inline(" ".join(lines))
        if len(shown) > 20 and not block.lstrip().startswith(("- ", "* ", "1. ", "    ")):
            return shown
    return ""


def heading(markdown: str) -> str:
    """The first heading of Markdown that no template wrote; lines of code may look like one."""
    in_code = False
    for line in markdown[:50_000].split("\n"):
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        match = None if in_code else re.match(r"#{1,2}[ \t]+([^\n]{1,300})", line)
        if match and (shown := _inline(match[1]).rstrip("# ")) and shown not in _TEMPLATES:
            return shown
    return ""


def _inline(line: str) -> str:
    line = _MARKDOWN_LINK.sub(r"\1 (\2)", _IMAGE.sub("", line))
    return plain(_EMPHASIS.sub(r"\2", line))
