"""Media: accepted sources, decoded values, refused input, and content decoded once."""

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


def random_image(width=6, height=4):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path):
    image = random_image()
    content = encoded(image)
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
        medium = media(form, "image", root=tmp_path)
        assert np.array_equal(np.asarray(medium.open()), np.asarray(image)), form
        assert medium.header() == {"width": 6, "height": 4}
    hashes = {media(form, "image", root=tmp_path).hash for form in forms[:8]}
    assert len(hashes) == 1
    assert media(forms[0], "image", root=tmp_path).bytes() == content


def test_media_are_compared_and_hashed_by_content(tmp_path):
    content = encoded(random_image())
    (tmp_path / "a.png").write_bytes(content)
    one, two, other = (
        media(tmp_path / "a.png", "image"),
        media(content, "image"),
        media(encoded(random_image()), "image"),
    )
    assert one == two
    assert one != other
    assert len({Part("image", one), Part("image", two), Part("image", other)}) == 2
    for duplicate in (copy.deepcopy(one), pickle.loads(pickle.dumps(two))):
        assert duplicate == one
        assert hash(duplicate) == hash(one)
    assert str(content) not in repr(two)
    assert media(one, "image") is one
    with pytest.raises(DataError, match="modality video"):
        media(one, "video")


def test_files_are_read_lazily(tmp_path):
    missing = media("no/such.png", "image", root=tmp_path)
    for use in (missing.open, missing.header, missing.bytes, lambda: missing.hash):
        with pytest.raises(DataError, match=r"no/such\.png"):
            use()


def count_decodes(monkeypatch, name):
    """Record the options of each decoding of modality `name`."""
    decodes = []
    original = modalities.modality(name)

    def opened(file, **options):
        decodes.append(options)
        return original.open(file, **options)

    monkeypatch.setattr(
        modalities,
        "_registry",
        {**modalities._registry, name: Modality(name, opened, original.header, size=original.size)},
    )
    return decodes


def test_the_same_content_is_decoded_once(tmp_path, monkeypatch):
    decodes = count_decodes(monkeypatch, "image")
    content = encoded(random_image())
    (tmp_path / "a.png").write_bytes(content)
    first = media(tmp_path / "a.png", "image").open()
    first.paste((0, 0, 0), (0, 0, 6, 4))
    second = media(content, "image").open()
    assert len(decodes) == 1
    assert np.asarray(second).any(), "what one caller does to its image must not reach the next"
    media(encoded(random_image()), "image").open()
    assert len(decodes) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_once_to_header_and_pixels(orientation, format):
    image = Image.new("RGB", (48, 32), "black")
    image.paste("white", (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    medium = media(encoded(image, format, exif=exif), "image")
    rotated = orientation >= 5
    assert medium.header() == ({"width": 32, "height": 48} if rotated else {"width": 48, "height": 32})
    opened = medium.open()
    assert opened.size == (medium.header()["width"], medium.header()["height"])
    bright = np.asarray(opened.convert("L")) > 128
    rows, columns = np.nonzero(bright)
    corner = (
        "top" if rows.mean() < opened.height / 2 else "bottom",
        "left" if columns.mean() < opened.width / 2 else "right",
    )
    # Where the stored first row and column are displayed: table of the EXIF standard.
    expected = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    expected |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}
    assert " ".join(corner) == expected[orientation]
    again = media(opened, "image")
    assert again.open().size == opened.size, "rotated a second time"


def test_exif_orientation_after_the_pixels_of_a_png_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(Image.new("RGB", (48, 32)))
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    medium = media(plain[:-12] + chunk + plain[-12:], "image")
    assert medium.header() == {"width": 32, "height": 48}
    assert medium.open().size == (32, 48)


def test_the_header_of_an_image_is_read_without_decoding():
    content = encoded(random_image(64, 64))
    assert media(content[: len(content) // 2], "image").header() == {"width": 64, "height": 64}
    with pytest.raises(DataError, match="cannot be decoded"):
        media(content[: len(content) // 2], "image").open()


def test_modes_become_rgb():
    transparent = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    transparent.putpixel((0, 0), (200, 0, 0, 255))
    assert np.asarray(media(transparent, "image").open()).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    sixteen_bit = Image.fromarray(np.array([[0, 0x80FF, 0xFFFF]], np.uint16))
    assert np.asarray(media(encoded(sixteen_bit), "image").open())[0, :, 0].tolist() == [0, 0x80, 0xFF]
    palette = random_image().convert("P")
    assert media(encoded(palette), "image").open().mode == "RGB"
    float_image = Image.fromarray(np.array([[0.5, 3e9]], np.float32))
    with pytest.raises(DataError, match="no fixed range"):
        media(encoded(float_image, "TIFF"), "image").open()


def png(width: int, height: int) -> bytes:
    """A black image of one bit per pixel, compressed line by line so that it is never in memory as a whole."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    medium = media("bomb.png", "image", root=tmp_path)
    for use in (medium.open, medium.header, medium.preview):
        with pytest.raises(
            DataError,
            match=r"bomb\.png: .*most 89,478,485 pixels, found 30000 x 30000, which is 900,000,000.*max_frame_pixels",
        ):
            use()


def test_limits_are_per_medium(tmp_path):
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


def test_an_image_beyond_the_limit_of_pil_opens_if_limits_allow_it(monkeypatch):
    large, small = png(20_000, 10_000), png(50, 50)
    assert media(large, "image", limits=Limits(frame=200_000_000)).header() == {"width": 20_000, "height": 10_000}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(small))
    assert media(small, "image").open().size == (50, 50)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_a_too_large_file_is_refused(tmp_path, modality):
    (tmp_path / "large.bin").write_bytes(bytes(2000))
    small = Limits(bytes=1999)
    medium = media("large.bin", modality, root=tmp_path, limits=small)
    for use in (medium.open, medium.header, medium.bytes, lambda: medium.hash):
        with pytest.raises(DataError, match=r"large\.bin: .*at most 1,999 bytes, found 2,000.*data\.max_bytes"):
            use()
    with pytest.raises(DataError, match="found 2,000"):
        media(bytes(2000), modality, limits=small).open()


def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(encoded(random_image(64, 64), "JPEG")[:-200])
    (tmp_path / "folder.png").mkdir()
    for name in ("page.jpg", "empty.png", "cut.jpg", "folder.png"):
        with pytest.raises(DataError, match=name):
            media(name, "image", root=tmp_path).open()


@pytest.mark.parametrize(
    "address", ["http://host/a.png", "HTTPS://host/a.png", "s3://bucket/a.png", "ftp://host/a.png", "file://host/a.png"]
)
def test_urls_are_refused(address):
    with pytest.raises(DataError, match=r"host|bucket"):
        media(address, "image")
    with pytest.raises(DataError, match=r"host|bucket"):
        media({"bytes": None, "path": address}, "image")
    if "://host/a.png" in address and not address.startswith("file"):
        with pytest.raises(DataError, match="opens no network connection: download it and put its path into the row"):
            media(address, "image")


def test_paths_outside_the_root_are_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    random_image().save(tmp_path / "out.png")
    random_image().save(inside / "in.png")
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
    random_image().save(blobs / "89ab", "PNG")
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
def test_invalid_image_values_are_refused(value, message):
    with pytest.raises(DataError, match=message):
        media(value, "image")


def test_previews_are_small_png_files(tmp_path):
    sound = {"array": np.sin(np.arange(4000) / 20), "sampling_rate": 8000}
    frames = RNG.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    for value, modality in ((random_image(900, 300), "image"), (sound, "audio"), (frames, "video")):
        preview = Image.open(io.BytesIO(media(value, modality).preview()))
        assert preview.format == "PNG"
        assert max(preview.size) <= 512
        assert np.asarray(preview).std() > 0
    assert media(random_image(900, 300), "image").describe().startswith("image width=900 height=300")


def test_previews_of_prints_are_large_and_of_photographs_small():
    page = Image.new("RGB", (1200, 900), "white")
    for y in range(0, 900, 20):
        page.paste("black", (50, y, 1100, y + 4))
    for image, side in ((page, 640), (random_image(1200, 900), 256), (random_image(100, 90), 100)):
        preview = media(image, "image").preview()
        assert max(Image.open(io.BytesIO(preview)).size) == side
    assert len(media(page, "image").preview()) < 64_000
