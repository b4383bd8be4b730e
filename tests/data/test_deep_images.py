"""Images of more than 8 bits are scaled by their range, and what has no known look is refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nni_spos.data import open_data
from nni_spos.data.rgb import to_rgb
from nni_spos.data.stores import ImageFiles
from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import DataSettings

GREYS = np.linspace(0.1, 0.9, 48).reshape(6, 8)


def read(tmp_path, image, suffix="png", **options):
    folder = tmp_path / "a"
    folder.mkdir(exist_ok=True)
    image.save(folder / f"0.{suffix}", **options)
    return np.asarray(ImageFiles(tmp_path, ["a"]).read(np.array([0]))[0])


def assert_greys(pixels, greys=GREYS):
    assert pixels.shape == (*greys.shape, 3)
    assert np.abs(pixels / 255 - greys[..., None]).max() < 0.6 / 255


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits(tmp_path, suffix):
    deep = Image.fromarray((GREYS * 65535).astype(np.uint16))
    assert_greys(read(tmp_path, deep, suffix))


def test_16_bits_with_the_high_byte_first(tmp_path):
    values = (GREYS * 65535).astype(np.uint16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.pgm").write_bytes(b"P5 8 6 65535\n" + values.astype(">u2").tobytes())
    assert_greys(np.asarray(ImageFiles(tmp_path, ["a"]).read(np.array([0]))[0]))
    (tmp_path / "a" / "0.pgm").unlink()
    data = values.astype(">u2").tobytes()
    (tmp_path / "a" / "0.tif").write_bytes(tiff(data, bits=16, order=">"))
    assert_greys(np.asarray(ImageFiles(tmp_path, ["a"]).read(np.array([0]))[0]))


def tiff(data, bits, order="<", photometric=1, sample_format=1, width=8, height=6):
    """Write a grey TIFF file by hand, as its specification says."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    entries = b"".join(
        struct.pack(order + ("HHIHxx" if kind == 3 else "HHII"), tag, kind, 1, value)
        for tag, kind, value in tags
    )
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def test_12_bits(tmp_path):
    values = (GREYS * 4095).astype(np.uint16).ravel()
    first, second = values[::2], values[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.tif").write_bytes(tiff(packed.astype(np.uint8).tobytes(), bits=12))
    assert_greys(np.asarray(ImageFiles(tmp_path, ["a"]).read(np.array([0]))[0]))


def test_floats_from_0_to_1(tmp_path):
    assert_greys(read(tmp_path, Image.fromarray(GREYS.astype(np.float32)), "tif"))


def test_colours_of_16_bits(tmp_path):
    values = (np.stack([GREYS, GREYS / 2, 1 - GREYS], 2) * 65535).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(
        png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    pixels = np.asarray(ImageFiles(tmp_path, ["a"]).read(np.array([0]))[0])
    assert np.abs(pixels / 255 - values / 65535).max() <= 1 / 255


def grey8():
    return Image.fromarray(np.rint(GREYS * 255).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        grey8(),
        grey8().convert("RGB"),
        grey8().convert("RGBA"),
        grey8().convert("LA"),
        grey8().convert("P"),
    ],
    ids=lambda image: image.mode,
)
def test_8_bits_stay_what_they_are(tmp_path, image):
    assert_greys(read(tmp_path, image))


def test_black_and_white(tmp_path):
    assert_greys(read(tmp_path, Image.fromarray(GREYS > 0.5)), (GREYS > 0.5).astype(float))


def refusal(tmp_path, image, suffix="png", **options):
    with pytest.raises(DataError) as caught:
        read(tmp_path, image, suffix, **options)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a' / f'0.{suffix}'}: cannot be read as an image (")
    assert "\n" not in message
    return message


def floats(values):
    return Image.fromarray(values.astype(np.float32))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (floats(GREYS * 255), "floats from 25.5 to 229.5"),
        (floats(GREYS - 0.5), "floats from -0.4 to 0.4"),
        (floats(np.where(GREYS > 0.5, np.nan, GREYS)), "not finite"),
        (floats(np.where(GREYS > 0.5, np.inf, GREYS)), "not finite"),
        (Image.fromarray((GREYS * 2**31).astype(np.int32)), "whole numbers of 32 bits"),
        (Image.fromarray((GREYS * 255).astype(np.uint16)), "the largest is 229"),
    ],
)
def test_ranges_that_are_not_known_are_refused(tmp_path, image, reason):
    assert reason in refusal(tmp_path, image, "tif")


def test_all_black_of_16_bits_is_black(tmp_path):
    assert read(tmp_path, Image.fromarray(np.zeros((6, 8), np.uint16))).max() == 0


@pytest.mark.parametrize(("bits", "kind"), [(16, np.uint16), (32, np.float32)])
def test_films_are_refused(tmp_path, bits, kind):
    values = (GREYS * (65535 if bits == 16 else 1)).astype(kind)
    content = tiff(values.tobytes(), bits, photometric=0, sample_format=3 if bits == 32 else 1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.tif.*WhiteIsZero"):
        ImageFiles(tmp_path, ["a"]).read(np.array([0]))


def test_signed_values_are_refused(tmp_path):
    values = ((GREYS - 0.5) * 30000).astype(np.int16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.tif").write_bytes(tiff(values.tobytes(), 16, sample_format=2))
    with pytest.raises(DataError, match="or signed, whose range is not known"):
        ImageFiles(tmp_path, ["a"]).read(np.array([0]))


def glyph(mode):
    """Draw black on a transparent background: without the transparency all is black."""
    image = Image.new(mode, (8, 6), 0)
    image.putalpha(Image.fromarray((GREYS > 0.5).astype(np.uint8) * 255))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(tmp_path, mode):
    assert "transparent" in refusal(tmp_path, glyph(mode))


@pytest.mark.parametrize("image", [grey8().convert("P"), grey8(), grey8().convert("RGB")])
def test_a_transparent_colour_is_refused_if_a_pixel_has_it(tmp_path, image):
    colour = image.getpixel((3, 2))
    assert "transparent" in refusal(tmp_path, image, transparency=colour)


def test_a_transparent_grey_of_16_bits_is_refused(tmp_path):
    deep = Image.fromarray((GREYS * 65535).astype(np.uint16))
    assert "transparent" in refusal(tmp_path, deep, transparency=100)


def test_an_image_folder_of_deep_images_is_seen_as_it_is(tmp_path):
    for part in ("train", "val"):
        for name, base in (("bright", 0.6), ("dark", 0.1)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                values = base + 0.1 * np.random.default_rng(i).random((32, 32))
                Image.fromarray((values * 65535).astype(np.uint16)).save(folder / f"{i}.png")
    settings = DataSettings(
        "image_folder", root=str(tmp_path), image_size=32, crop_pct=1.0, num_validation=2
    )
    data = open_data(settings)
    mean, std = (torch.tensor(x)[:, None, None] for x in (data.spec.mean, data.spec.std))
    for images, labels in data.validation_batches(4):
        for image, label in zip(images, labels, strict=True):
            expected = [0.65, 0.15][int(label)]
            assert float((image * std + mean).mean()) == pytest.approx(expected, abs=0.02)


def test_a_tag_of_several_bits_is_no_reason_to_fail():
    image = Image.fromarray((GREYS * 65535).astype(np.uint16))
    image.format, image.tag_v2 = "TIFF", ImageFileDirectory_v2()
    assert_greys(np.asarray(to_rgb(image)))
