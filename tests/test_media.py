"""Pictures carry their recipe, in every format and whatever the text; other programs' words are found as well."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, PngImagePlugin

from bottega.errors import FormatError, SaveError
from bottega.formats import exif, media, xmp

LINE = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 64x64"
TEXTS = {
    "plain": "a red house",
    "lines and tabs": "one\ntwo\r\nthree\tfour",
    "latin": "café, naïve",
    "latin that looks like UTF-8": "Ã©",
    "chinese": "一只狐狸, 水墨画",
    "chinese alone": "狐狸水墨画",
    "emoji": "🦊 in the ❄️, 👩‍🚀",
    "markup": "<lora:x:0.8> & </bottega:recipe> &lt; &#13; ]]> \"'",
    "controls": "\x01\x0b\x1b[31m\x7f",
    "long": "a very detailed house, " * 4_500,
    "long chinese": "水墨画" * 35_000,
}


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 12)) -> Image.Image:
    pixels = random.Random(7).randbytes(size[0] * size[1] * len(mode))
    return Image.frombytes(mode, size, pixels)


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "picture"
    path.write_bytes(content)
    return path


def pil_bytes(format: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, format, **options)
    return buffer.getvalue()


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (20, 12)) -> bytes:
    """A PNG with these chunks between its header and its pixels."""
    plain = pil_bytes("PNG")
    header = chunk(b"IHDR", struct.pack(">II", *size) + plain[24:29])
    return plain[:8] + header + b"".join(chunk(*each) for each in chunks) + plain[33:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    plain = pil_bytes("JPEG")
    added = b"".join(struct.pack(">BBH", 255, marker, len(data) + 2) + data for marker, data in segments)
    return plain[:2] + added + plain[2:]


# --- Our own files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_texts_survive(tmp_path: Path, format: str, text: str) -> None:
    recipe = json.dumps({"prompt": TEXTS[text]}, ensure_ascii=False, indent=1)
    parameters = f"{TEXTS[text]}\n{LINE}"
    carried = media.read(saved(tmp_path, media.encode(picture(), format, recipe=recipe, parameters=parameters)))
    assert (carried.format, carried.width, carried.height) == (format, 20, 12)
    assert carried.recipe == recipe and carried.parameters == parameters
    assert not carried.texts and carried.novelai is carried.comfy_prompt is carried.invokeai is None


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_files_are_valid_and_deterministic(tmp_path: Path, format: str) -> None:
    for recipe, parameters in (("{}", LINE), ("{}", None), (None, LINE), (None, None), ("[]" * 60_000, "雪" * 50_000)):
        first, again = (media.encode(picture(), format, recipe=recipe, parameters=parameters) for _ in range(2))
        assert first == again
        with Image.open(io.BytesIO(first)) as opened:
            opened.load()
            assert opened.size == (20, 12) and opened.format == format.upper()
        carried = media.read(saved(tmp_path, first))
        assert (carried.recipe, carried.parameters) == (recipe, parameters)


def test_pixels_survive_where_the_format_is_lossless() -> None:
    for image in (picture(), picture("RGBA")):
        for format in ("png", "webp"):
            content = media.encode(image, format, recipe="{}", lossless=True)
            with Image.open(io.BytesIO(content)) as opened:
                assert opened.convert(image.mode).tobytes() == image.tobytes()
    assert Image.open(io.BytesIO(media.encode(picture("RGBA"), "jpeg"))).mode == "RGB"


def test_quality_counts() -> None:
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    for format in ("jpeg", "webp"):
        assert len(media.encode(image, format, quality=20)) < len(media.encode(image, format, quality=95))


def test_what_an_input_carried_does_not_leak_into_the_output() -> None:
    image = picture()
    image.info = {"icc_profile": b"x" * 128, "dpi": (72, 72), "comment": b"private", "exif": b"Exif\0\0private"}
    for format in media.FORMATS.values():
        assert media.encode(image, format) == media.encode(picture(), format)
    assert image.info["dpi"] == (72, 72)


def test_a1111_finds_its_parameters_in_our_files() -> None:
    """As A1111 reads: Pillow's info for PNG, the UserComment in UTF-16BE for JPEG and WebP."""
    for text in ("plain", "café", "一只狐狸, 🦊"):
        with Image.open(io.BytesIO(media.encode(picture(), "png", recipe="{}", parameters=text))) as opened:
            assert opened.info["parameters"] == text
        for format in ("jpeg", "webp"):
            with Image.open(io.BytesIO(media.encode(picture(), format, recipe="{}", parameters=text))) as opened:
                comment = opened.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0" and comment[8:].decode("utf-16-be") == text


def test_our_xmp_says_the_same_to_any_xml_reader() -> None:
    text = '<a> & \r\n ]]> "雪"'
    packet = xmp.write({"recipe": text})
    assert ElementTree.fromstring(packet)[0][0][0].text == text == xmp.read(packet)["recipe"]


def test_what_can_not_be_saved_is_said() -> None:
    with pytest.raises(SaveError, match="shorten the prompt"):
        media.encode(picture(), "png", recipe="x" * (media.MAX_TEXT + 1))
    with pytest.raises(SaveError, match="half of a character"):
        media.encode(picture(), "jpeg", parameters="\ud83d")
    wide = Image.new("L", (70_000, 1))
    for format in ("jpeg", "webp"):
        with pytest.raises(SaveError, match="save it as png"):
            media.encode(wide, format)
    assert media.encode(wide, "png")


# --- Other programs' files ---------------------------------------------------------------------------------------


def test_a1111_png(tmp_path: Path) -> None:
    for text in (LINE, f"café {LINE}", f"雪 {LINE}"):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", text)
        carried = media.read(saved(tmp_path, pil_bytes("PNG", pnginfo=info)))
        assert carried.parameters == text and carried.recipe is None


def test_png_text_in_all_three_kinds_of_chunks(tmp_path: Path) -> None:
    packed = zlib.compress("雪".encode())
    carried = media.read(
        saved(
            tmp_path,
            png(
                (b"tEXt", b"latin\0caf\xe9"),
                (b"tEXt", b"mojibake\0" + "雪".encode()),
                (b"zTXt", b"packed\0\0" + zlib.compress(b"caf\xe9")),
                (b"iTXt", b"plain\0\0\0en\0title\0" + "雪".encode()),
                (b"iTXt", b"both\0\1\0\0\0" + packed),
                (b"eXIf", exif.write("in EXIF")),
                (b"tEXt", b"parameters\0in text"),
            ),
        )
    )
    assert carried.texts == {"latin": "café", "mojibake": "雪", "packed": "café", "plain": "雪", "both": "雪"}
    assert carried.parameters == "in EXIF"  # a UserComment wins, as in A1111


def test_text_behind_the_pixels(tmp_path: Path) -> None:
    plain = pil_bytes("PNG")
    carried = media.read(saved(tmp_path, plain[:-12] + chunk(b"tEXt", b"parameters\0" + LINE.encode()) + plain[-12:]))
    assert carried.parameters == LINE


def tiff(order: str, comment: bytes) -> bytes:
    """EXIF as other writers lay it out: more entries, in either byte order."""
    software = b"some program\0"
    ifd0 = struct.pack(f"{order}H", 2) + struct.pack(f"{order}HHII", 0x0131, 2, len(software), 38)
    ifd0 += struct.pack(f"{order}HHII", 0x8769, 4, 1, 38 + len(software)) + bytes(4)
    second = struct.pack(f"{order}H", 1)
    second += struct.pack(f"{order}HHII", 0x9286, 7, len(comment), 38 + len(software) + 18) + bytes(4)
    mark = b"MM\0\x2a" if order == ">" else b"II\x2a\0"
    return mark + struct.pack(f"{order}I", 8) + ifd0 + software + second + comment


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + f"雪 {LINE}".encode("utf-16-be"),  # A1111, whatever the byte order of the block
        b"UNICODE\0" + f"雪 {LINE}".encode("utf-16-le"),  # Civitai and others
        b"UNICODE\0\xff\xfe" + f"雪 {LINE}".encode("utf-16-le"),
        b"UNICODE\0\xfe\xff" + f"雪 {LINE}".encode("utf-16-be"),
        b"ASCII\0\0\0" + f"雪 {LINE}".encode(),
        bytes(8) + f"雪 {LINE}".encode(),
        f"雪 {LINE}".encode(),
    ],
)
def test_user_comments_in_every_spelling(tmp_path: Path, order: str, comment: bytes) -> None:
    block = tiff(order, comment)
    for content in (
        jpeg((0xE1, b"Exif\0\0" + block)),
        pil_bytes("WEBP", exif=block),
        pil_bytes("WEBP", exif=b"Exif\0\0" + block),
    ):
        carried = media.read(saved(tmp_path, content))
        assert carried.parameters == f"雪 {LINE}" and carried.texts["Software"] == "some program"


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_a_comment_that_pillow_writes(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + LINE.encode("utf-16-be")
    assert media.read(saved(tmp_path, pil_bytes(format, exif=exif))).parameters == LINE


def test_chunks_of_odd_length_are_padded(tmp_path: Path) -> None:
    block = tiff(">", b"ASCII\0\0\0odd")
    block += bytes(1 - len(block) % 2)
    carried = media.read(saved(tmp_path, pil_bytes("WEBP", exif=block, xmp=xmp.write({"recipe": "{}"}))))
    assert (carried.parameters, carried.recipe) == ("odd", "{}")


def test_a_comment_counts_when_it_is_of_the_kind(tmp_path: Path) -> None:
    assert media.read(saved(tmp_path, jpeg((0xFE, LINE.encode())))).parameters == LINE
    carried = media.read(saved(tmp_path, jpeg((0xFE, b"Made with a camera"))))
    assert carried.parameters is None and carried.texts == {"comment": "Made with a camera"}


def test_comfyui_and_invokeai(tmp_path: Path) -> None:
    content = png((b"tEXt", b'prompt\0{"1": {}}'), (b"tEXt", b'workflow\0{"nodes": []}'), (b"tEXt", b"Dream\0x"))
    carried = media.read(saved(tmp_path, content))
    assert (carried.comfy_prompt, carried.comfy_workflow) == ('{"1": {}}', '{"nodes": []}')
    assert carried.parameters is None and carried.texts == {"Dream": "x"}
    picture_info = Image.Exif()
    picture_info[0x0110], picture_info[0x010F] = 'prompt:{"1": {}}', 'workflow:{"nodes": []}'
    carried = media.read(saved(tmp_path, pil_bytes("WEBP", exif=picture_info.tobytes())))
    assert (carried.comfy_prompt, carried.comfy_workflow) == ('{"1": {}}', '{"nodes": []}')
    carried = media.read(saved(tmp_path, png((b"iTXt", b'invokeai_metadata\0\0\0\0\0{"seed": 1}'))))
    assert carried.invokeai == '{"seed": 1}'


def test_novelai(tmp_path: Path) -> None:
    told = {"steps": 28, "sampler": "k_dpmpp_2m", "scale": 11.0, "seed": 9, "width": 512, "height": 768, "uc": "bad, x"}
    chunks = [(b"tEXt", b"Software\0NovelAI"), (b"tEXt", b"Description\0a fox"), (b"tEXt", b"Source\0SD")]
    content = png(*chunks, (b"tEXt", b"Comment\0" + json.dumps(told).encode()))
    carried = media.read(saved(tmp_path, content))
    assert carried.parameters == (
        "a fox\nNegative prompt: bad, x\nSteps: 28, Sampler: DPM++ 2M, CFG scale: 11.0, Seed: 9, Size: 512x768, "
        "Clip skip: 2, ENSD: 31337"
    )
    assert carried.novelai is not None and json.loads(carried.novelai) == told
    del told["width"], told["height"]
    sizeless = media.read(saved(tmp_path, png(*chunks, (b"tEXt", b"Comment\0" + json.dumps(told).encode()))))
    assert f"Size: {sizeless.width}x{sizeless.height}," in str(sizeless.parameters)
    for broken in (b"{", b"[]", b"[" * 100_000):
        assert media.read(saved(tmp_path, png(*chunks, (b"tEXt", b"Comment\0" + broken)))).parameters is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (b"tEXt", b"x" * (media.MAX_TEXT + 1)),
        (b"tEXt", b"x" * (media.MAX_TEXT + 2000)),
        (b"zTXt", b"\0" + zlib.compress(bytes(50 << 20))),
        (b"iTXt", b"\1\0\0\0" + zlib.compress("雪".encode() * (20 << 20))),
        (b"iTXt", b"\0\0\0\0" + "雪".encode() * (1 << 20)),
    ],
)
def test_of_a_picture_with_a_long_text_all_else_is_used(tmp_path: Path, kind: bytes, text: bytes) -> None:
    path = saved(tmp_path, png((b"tEXt", b"parameters\0" + LINE.encode()), (kind, b"workflow\0" + text)))
    carried = media.read(path)
    assert (carried.parameters, carried.comfy_workflow, carried.too_long) == (LINE, None, ("workflow",))
    assert media.open_picture(path).tobytes() == media.open_picture(saved(tmp_path, png())).tobytes()


def test_a_long_text_of_a_webp_is_left_out(tmp_path: Path) -> None:
    packet = xmp.write({"recipe": "x" * (media.MAX_TEXT + 1), "parameters": LINE})
    path = saved(tmp_path, pil_bytes("WEBP", xmp=packet))
    carried = media.read(path)
    assert (carried.recipe, carried.parameters, carried.too_long) == (None, LINE, ("bottega",))
    assert media.open_picture(path).size == (20, 12)


# --- Broken and hostile files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_every_truncation_is_told(tmp_path: Path, format: str) -> None:
    content = media.encode(picture(), format, recipe="{}", parameters=LINE)
    for length in (*range(12, len(content) - 20, 7), *range(len(content) - 20, len(content))):
        with pytest.raises(FormatError, match=r"cut short|damaged") as caught:
            media.read(saved(tmp_path, content[:length]))
        assert caught.value.remedy
        with pytest.raises(FormatError):
            media.open_picture(tmp_path / "picture")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, format: str) -> None:
    chance = random.Random(3)
    content = media.encode(picture(), format, recipe="{}", parameters=LINE)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = saved(tmp_path, bytes(damaged))
        for reader in (media.read, media.open_picture):
            try:
                reader(path)
            except FormatError:
                continue


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (png((b"zTXt", b"k\0\0no zlib")), "zTXt chunk"),
        (png(*[(b"tEXt", b"k%d\0x" % number) for number in range(65)]), "more than 64"),
        (png((b"tEXt", b"k\0x")).replace(b"k\0x", b"k\0y"), "checksum"),
        (png((b"IHDR", bytes(13))), "out of order"),
        (png(size=(0, 5)), "no pixels"),
        (png((b"IEND", b"")).replace(b"IHDR", b"IEND", 1), "out of order"),
        (b"\xff\xd8\xff\xd9", "before its pixels"),
        (b"\xff\xd8\xff\xe0\0\2\0\0", "marker"),
        (b"RIFF\x10\0\0\0WEBPVP8 \xff\xff\xff\x7f" + bytes(8), "longer than the file"),
        (b"RIFF\x04\0\0\0WEBP" + bytes(8), "no pixels"),
    ],
)
def test_hostile_containers(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(FormatError, match=word) as caught:
        media.read(saved(tmp_path, content))
    assert caught.value.remedy


def test_hostile_exif_ends(tmp_path: Path) -> None:
    circle = b"MM\0\x2a" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x8769, 4, 1, 8) + bytes(4)
    assert exif.read(circle) == {}
    assert exif.read(b"II\x2a\0\xff\xff\xff\xff") == exif.read(b"MM") == exif.read(b"") == {}
    far = b"MM\0\x2a" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x0131, 2, 1 << 31, 1 << 31) + bytes(4)
    assert exif.read(far) == {}


def test_jpeg_extension_of_another_packet_is_not_taken(tmp_path: Path) -> None:
    content = media.encode(picture(), "jpeg", recipe=json.dumps("雪" * 50_000, ensure_ascii=False))
    assert content.count(b"http://ns.adobe.com/xmp/extension/\0") == 3
    guid = content[content.index(b"extension/\0") + 11 :][:32]
    other = content.replace(b"extension/\0" + guid, b"extension/\0" + b"0" * 32)
    assert media.read(saved(tmp_path, content)).recipe is not None
    assert media.read(saved(tmp_path, other)).recipe is None


# --- Pictures to work from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_opened_upright(tmp_path: Path, format: str) -> None:
    tall = Image.new("RGB", (8, 16), "red")
    turned = Image.Exif()
    turned[0x0112] = 6
    opened = media.open_picture(saved(tmp_path, pil_bytes(format, tall, exif=turned.tobytes())))
    assert opened.size == (16, 8) and opened.mode == "RGB"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_size_told_is_that_of_the_upright_picture(
    tmp_path: Path, format: str, orientation: int, order: str
) -> None:
    block = struct.pack(
        f"{order}2sHIHHHIHHI", b"II" if order == "<" else b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    path = saved(tmp_path, pil_bytes(format, Image.new("RGB", (8, 16), "red"), exif=b"Exif\0\0" + block))
    told = media.read(path)
    assert (told.width, told.height) == media.open_picture(path).size


@pytest.mark.parametrize(
    ("mode", "opened_as"),
    [("1", "RGB"), ("L", "RGB"), ("P", "RGB"), ("RGB", "RGB"), ("LA", "RGBA"), ("RGBA", "RGBA"), ("I;16", "RGB")],
)
def test_every_kind_of_pixels_becomes_rgb_or_rgba(tmp_path: Path, mode: str, opened_as: str) -> None:
    if mode == "I;16":
        image = Image.new(mode, (4, 4), 128 * 257)
    else:
        image = Image.new(opened_as, (4, 4), "#808080").convert(mode)
    opened = media.open_picture(saved(tmp_path, pil_bytes("PNG", image)))
    assert opened.mode == opened_as
    assert opened.getpixel((0, 0))[:3] == ((255,) * 3 if mode == "1" else (128,) * 3) or mode in ("1", "P")


def test_transparent_palette_keeps_its_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    opened = media.open_picture(saved(tmp_path, pil_bytes("PNG", image, transparency=0)))
    assert opened.mode == "RGBA" and opened.getpixel((0, 0))[3] == 0


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = saved(tmp_path, png(size=(60_000, 60_000)))
    assert media.read(path).width == 60_000
    with pytest.raises(FormatError, match="60,000 x 60,000 pixels"):
        media.open_picture(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\x0a\0\0\0\0\0\0\0{}        ", "a safetensors file"),
        (b"\x80\x02}.", "pickle"),
        (b"<!doctype html>", "web page"),
        (b"", "empty"),
        (b"text", "plain text"),
        (b"\1\2\3", "no format"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, content: bytes, word: str) -> None:
    for reader in (media.read, media.open_picture):
        with pytest.raises(FormatError, match=word) as caught:
            reader(saved(tmp_path, content))
        assert "PNG, JPEG or WebP" in caught.value.remedy


def test_suffixes() -> None:
    assert media.FORMATS[".png"] == "png" and media.FORMATS[".jpg"] == media.FORMATS[".jpeg"] == "jpeg"
    assert media.FORMATS[".webp"] == "webp"
