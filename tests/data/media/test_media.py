"""Media: what they may be made from, what opening gives, what is refused, and that content is decoded once."""

import base64
import copy
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmpost.data.media import modalities
from mmpost.data.media.limits import Limits
from mmpost.data.media.media import cache, media
from mmpost.data.media.modalities import Modality
from mmpost.errors import DataError
from mmpost.types import Part

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()


def picture(width=6, height=4):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def stored(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path):
    image = picture()
    content = stored(image)
    (tmp_path / "a b.png").write_bytes(content)
    forms = [
        "a b.png",
        tmp_path / "a b.png",
        f"file://{tmp_path}/a%20b.png",
        content,
        bytearray(content),
        {"bytes": content, "path": None},
        {"bytes": None, "path": "a b.png"},
        "data:image/png;base64," + base64.b64encode(content).decode(),
        image,
        np.asarray(image),
    ]
    for form in forms:
        found = media(form, "image", root=tmp_path)
        assert np.array_equal(np.asarray(found.open()), np.asarray(image)), form
        assert found.header() == {"width": 6, "height": 4}
    same = {media(form, "image", root=tmp_path).hash for form in forms[:8]}
    assert len(same) == 1
    assert media(forms[0], "image", root=tmp_path).bytes() == content


def test_media_stand_for_their_content(tmp_path):
    content = stored(picture())
    (tmp_path / "a.png").write_bytes(content)
    one, two, other = media(tmp_path / "a.png", "image"), media(content, "image"), media(stored(picture()), "image")
    assert one == two
    assert one != other
    assert len({Part("image", one), Part("image", two), Part("image", other)}) == 2
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(two))):
        assert again == one
        assert hash(again) == hash(one)
    assert str(content) not in repr(two)
    assert media(one, "image") is one
    with pytest.raises(DataError, match="modality video"):
        media(one, "video")


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    missing = media("no/such.png", "image", root=tmp_path)
    for use in (missing.open, missing.header, missing.bytes, lambda: missing.hash):
        with pytest.raises(DataError, match=r"no/such\.png"):
            use()


def counting(monkeypatch, name):
    """The options of each decoding of kind `name`."""
    made = []
    old = modalities.modality(name)

    def opened(file, **options):
        made.append(options)
        return old.open(file, **options)

    monkeypatch.setattr(
        modalities, "_registry", {**modalities._registry, name: Modality(name, opened, old.header, size=old.size)}
    )
    return made


def test_the_same_content_is_decoded_once(tmp_path, monkeypatch):
    made = counting(monkeypatch, "image")
    content = stored(picture())
    (tmp_path / "a.png").write_bytes(content)
    first = media(tmp_path / "a.png", "image").open()
    first.paste((0, 0, 0), (0, 0, 6, 4))
    second = media(content, "image").open()
    assert len(made) == 1
    assert np.asarray(second).any(), "what one caller does to its image must not reach the next"
    media(stored(picture()), "image").open()
    assert len(made) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_once_to_header_and_pixels(orientation, format):
    image = Image.new("RGB", (48, 32), "black")
    image.paste("white", (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = media(stored(image, format, exif=exif), "image")
    turned = orientation >= 5
    assert found.header() == ({"width": 32, "height": 48} if turned else {"width": 48, "height": 32})
    opened = found.open()
    assert opened.size == (found.header()["width"], found.header()["height"])
    bright = np.asarray(opened.convert("L")) > 128
    rows, columns = np.nonzero(bright)
    corner = (
        "top" if rows.mean() < opened.height / 2 else "bottom",
        "left" if columns.mean() < opened.width / 2 else "right",
    )
    # Where the stored first row and column are shown, from the table of the EXIF standard.
    expected = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    expected |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}
    assert " ".join(corner) == expected[orientation]
    again = media(opened, "image")
    assert again.open().size == opened.size, "turned a second time"


def test_an_orientation_after_the_pixels_of_a_png_counts_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = stored(Image.new("RGB", (48, 32)))
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    found = media(plain[:-12] + chunk + plain[-12:], "image")
    assert found.header() == {"width": 32, "height": 48}
    assert found.open().size == (32, 48)


def test_header_of_an_image_does_not_decode_it():
    whole = stored(picture(64, 64))
    assert media(whole[: len(whole) // 2], "image").header() == {"width": 64, "height": 64}
    with pytest.raises(DataError, match="cannot be decoded"):
        media(whole[: len(whole) // 2], "image").open()


def test_modes_become_rgb():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((0, 0), (200, 0, 0, 255))
    assert np.asarray(media(clear, "image").open()).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    deep = Image.fromarray(np.array([[0, 0x80FF, 0xFFFF]], np.uint16))
    assert np.asarray(media(stored(deep), "image").open())[0, :, 0].tolist() == [0, 0x80, 0xFF]
    palette = picture().convert("P")
    assert media(stored(palette), "image").open().mode == "RGB"
    real = Image.fromarray(np.array([[0.5, 3e9]], np.float32))
    with pytest.raises(DataError, match="no fixed range"):
        media(stored(real, "TIFF"), "image").open()


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel, written without holding it in memory."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    found = media("bomb.png", "image", root=tmp_path)
    for use in (found.open, found.header, found.preview):
        with pytest.raises(
            DataError,
            match=r"bomb\.png: .*most 89,478,485 pixels, found 30000 x 30000, which is 900,000,000.*max_frame_pixels",
        ):
            use()


def test_limits_belong_to_the_medium(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    content = png(50, 50)
    strict, loose = (media(content, "image", limits=Limits(frame=size)) for size in (2499, 2500))
    assert loose.open().size == (50, 50)
    with pytest.raises(DataError, match="2,499 pixels"):
        strict.open()
    (tmp_path / "a.png").write_bytes(content)
    strict, loose = (media("a.png", "image", root=tmp_path, limits=Limits(frame=size)) for size in (2499, 2500))
    assert loose.header() == {"width": 50, "height": 50}
    with pytest.raises(DataError, match="2,499 pixels"):
        strict.header()
    blank = loose.blank()
    assert blank is not None
    assert blank.limits == loose.limits
    assert before == Image.MAX_IMAGE_PIXELS


def test_what_pil_refuses_opens_where_the_user_says_so(monkeypatch):
    large, small = png(20_000, 10_000), png(50, 50)
    assert media(large, "image", limits=Limits(frame=200_000_000)).header() == {"width": 20_000, "height": 10_000}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(small))
    assert media(small, "image").open().size == (50, 50)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_a_file_that_is_too_large_is_refused_by_its_size(tmp_path, kind):
    (tmp_path / "large.bin").write_bytes(bytes(2000))
    small = Limits(bytes=1999)
    found = media("large.bin", kind, root=tmp_path, limits=small)
    for use in (found.open, found.header, found.bytes, lambda: found.hash):
        with pytest.raises(DataError, match=r"large\.bin: .*at most 1,999 bytes, found 2,000.*data\.max_bytes"):
            use()
    with pytest.raises(DataError, match="found 2,000"):
        media(bytes(2000), kind, limits=small).open()


def test_what_is_not_an_image_is_refused_by_name(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(stored(picture(64, 64), "JPEG")[:-200])
    (tmp_path / "folder.png").mkdir()
    for name in ("page.jpg", "empty.png", "cut.jpg", "folder.png"):
        with pytest.raises(DataError, match=name):
            media(name, "image", root=tmp_path).open()


@pytest.mark.parametrize(
    "address", ["http://host/a.png", "HTTPS://host/a.png", "s3://bucket/a.png", "ftp://host/a.png", "file://host/a.png"]
)
def test_addresses_are_refused(address):
    with pytest.raises(DataError, match=r"host|bucket"):
        media(address, "image")
    with pytest.raises(DataError, match=r"host|bucket"):
        media({"bytes": None, "path": address}, "image")
    if "://host/a.png" in address and not address.startswith("file"):
        with pytest.raises(DataError, match="opens no network connection: download it and put its path into the row"):
            media(address, "image")


def test_paths_stay_in_the_root(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    picture().save(tmp_path / "out.png")
    picture().save(inside / "in.png")
    (inside / "link.png").symlink_to(tmp_path / "out.png")
    (inside / "near.png").symlink_to("in.png")
    (inside / "away").symlink_to(tmp_path)
    for bad in (
        "../out.png",
        "x/../../out.png",
        str(tmp_path / "out.png"),
        f"file://{tmp_path}/out.png",
        "link.png",
        "away/out.png",
        "away/nothing.png",
    ):
        with pytest.raises(DataError, match="inside the folder"):
            media(bad, "image", root=inside)
    for good in ("in.png", "../inside/in.png", str(inside / "in.png"), "near.png", "away/inside/in.png"):
        assert media(good, "image", root=inside).open().size == (6, 4)
    for free in ("../out.png", "link.png"):
        assert media(free, "image", folder=inside).open().size == (6, 4)
    assert media(str(tmp_path / "out.png"), "image", folder=inside).open().size == (6, 4)


def test_links_of_a_hub_cache_are_followed(tmp_path):
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "datasets--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    picture().save(blobs / "89ab", "PNG")
    (snapshot / "a.png").symlink_to("../../blobs/89ab")
    (tmp_path / "secret").write_bytes(b"")
    (snapshot / "b.png").symlink_to("../../../secret")
    assert media("a.png", "image", root=snapshot).open().size == (6, 4)
    with pytest.raises(DataError, match=r"b\.png, which leads to .*secret"):
        media("b.png", "image", root=snapshot)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "path"),
        ("a\0b", "path"),
        ({"bytes": None, "path": None}, "bytes or a path"),
        ("data:image/png;base64,@@@", "base64"),
        ("data:nothing", "data URL"),
        (3.5, "uint8"),
        (np.zeros((4, 4, 3)), "uint8"),
        (["a.png"], "uint8"),
    ],
)
def test_values_that_are_no_image_say_so(value, message):
    with pytest.raises(DataError, match=message):
        media(value, "image")


def test_previews_are_small_png(tmp_path):
    sound = {"array": np.sin(np.arange(4000) / 20), "sampling_rate": 8000}
    frames = RNG.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    for value, kind in ((picture(900, 300), "image"), (sound, "audio"), (frames, "video")):
        shown = Image.open(io.BytesIO(media(value, kind).preview()))
        assert shown.format == "PNG"
        assert max(shown.size) <= 512
        assert np.asarray(shown).std() > 0
    assert media(picture(900, 300), "image").describe().startswith("image width=900 height=300")
