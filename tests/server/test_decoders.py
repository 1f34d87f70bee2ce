"""Whatever a file does to its decoder, the server goes on."""

import asyncio
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
from clients import disc, encoded

from fullyconv.errors import ImageError, MachineError
from fullyconv.server import Limits, decoders
from fullyconv.server.decoders import Decoder


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(height, width):
    """A few kilobytes that claim, and hold, very many black pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + png_chunk(b"IDAT", rows)
        + png_chunk(b"IEND", b"")
    )


def decode(folder, body, limits=None, times=1):
    """Decode a file, as often as told, with one decoder; return the arrays."""
    (folder / "upload").write_bytes(body)

    async def work():
        decoder = Decoder(limits or Limits())
        try:
            for number in range(times):
                await decoder.decode(folder / "upload", folder / f"{number}.npy")
        finally:
            await decoder.close()

    asyncio.run(work())
    return [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(times)]


def test_arrays_are_those_of_the_library(tmp_path):
    image = disc(70, 50)
    for array in decode(tmp_path, encoded(image), times=3):
        assert np.array_equal(array, image)


def test_deep_images_keep_their_type(tmp_path):
    values = np.arange(5000, dtype=np.uint16).reshape(50, 100)
    (array,) = decode(tmp_path, encoded(values))
    assert (array.dtype, array.shape) == (np.uint16, (50, 100, 1))
    assert np.array_equal(array[..., 0], values)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        encoded(disc())[:500],
        encoded(disc(), "JPEG")[:300],
        b"II*\0" + b"\xff" * 100,
        b"RIFF\0\0\0\0WEBPVP8 " + b"\xff" * 50,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
    ],
    ids=range(9),
)
def test_files_that_are_no_images_are_refused_without_the_server_s_paths(tmp_path, body):
    with pytest.raises(ImageError) as caught:
        decode(tmp_path, body)
    assert str(tmp_path) not in str(caught.value)
    assert str(caught.value).startswith("the image: ")


def test_too_many_pixels_are_refused_by_their_claim(tmp_path):
    with pytest.raises(ImageError, match="10000 pixels"):
        decode(tmp_path, encoded(disc(100, 100)), Limits(pixels=9999))
    tiled = tmp_path / "tiled.tif"
    import tifffile

    tifffile.imwrite(tiled, np.zeros((2000, 3000), np.uint8), tile=(16, 16))
    with pytest.raises(ImageError, match="--max-megapixels"):
        decode(tmp_path, tiled.read_bytes(), Limits(pixels=5_000_000))
    assert not (tmp_path / "0.npy").exists()


def test_a_bomb_meets_the_bound_on_memory(tmp_path):
    """40 kilobytes that become 40 megapixels, in a process that may hold no more than it has."""
    body = png_bomb(5000, 8000)
    assert len(body) < 100_000
    (array,) = decode(tmp_path, body)  # harmless where there is room
    assert array.shape == (5000, 8000, 1)
    (tmp_path / "0.npy").unlink()
    with pytest.raises((MachineError, ImageError)):
        decode(tmp_path, body, Limits(decode_bytes=180 * 2**20))
    assert not (tmp_path / "0.npy").exists() or (tmp_path / "0.npy").stat().st_size < 40_000_000


@pytest.fixture
def tampered(tmp_path, monkeypatch, request):
    """A decoder in which opening a file does what the file says; how much later its clock ends it."""
    beyond = getattr(request, "param", -1)
    program = tmp_path / "tampered.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, os, signal, time
            spec = importlib.util.spec_from_file_location("decoding", {str(decoders._PROGRAM)!r})
            decoding = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(decoding)

            def open_image(path, **options):
                exec(path.read_text())

            real, decoding.open_image = decoding.open_image, lambda path, **options: (
                real(path, **options) if path.read_bytes()[:1] == b"\\x89" else open_image(path)
            )
            decoding._BEYOND = {beyond}
            decoding.main()
            """
        )
    )
    monkeypatch.setattr(decoders, "_PROGRAM", program)
    monkeypatch.setattr(decoders, "_LATE", 100.0)  # a busy machine may be slow, and is not what is tested
    return tmp_path


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.abort()", "broke down"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "broke down"),
        ("os._exit(7)", "broke down"),
        ("raise SystemExit", "broke down"),
        ("time.sleep(100)", "over 1 s"),
        ("held = bytearray(10**11)", "memory"),
        ("os.kill(os.getppid(), signal.SIGKILL)", "broke down"),
    ],
)
def test_whatever_a_file_does_ends_with_its_process(tampered, deed, said):
    """The next image is decoded by the same decoder."""
    (tampered / "bad").write_text(deed)
    (tampered / "good").write_bytes(encoded(disc()))

    async def work():
        decoder = Decoder(Limits(decode_seconds=1))
        try:
            with pytest.raises((ImageError, MachineError), match=said):
                await decoder.decode(tampered / "bad", tampered / "bad.npy")
            await decoder.decode(tampered / "good", tampered / "good.npy")
        finally:
            await decoder.close()

    asyncio.run(work())
    assert np.array_equal(np.load(tampered / "good.npy"), disc())


@pytest.mark.parametrize("tampered", [60], indirect=True)
def test_a_file_that_keeps_the_processor_busy_is_ended_before_its_clock(tampered):
    test_whatever_a_file_does_ends_with_its_process(tampered, "while True: pass", "over 1 s")


def test_nobody_s_secrets_are_given_to_decoders(tampered, monkeypatch):
    monkeypatch.setenv("FULLYCONV_TOKEN", "0123456789abcdef")
    (tampered / "upload").write_text(
        f"open({str(tampered / 'seen')!r}, 'w').write(repr(dict(os.environ)))\nos.abort()"
    )

    async def work():
        decoder = Decoder(Limits())
        with pytest.raises(ImageError):
            await decoder.decode(tampered / "upload", tampered / "0.npy")
        await decoder.close()

    asyncio.run(work())
    assert "0123456789abcdef" not in (tampered / "seen").read_text()


def test_a_decoder_nobody_waits_for_is_ended(tampered):
    (tampered / "upload").write_text("time.sleep(100)")

    async def work():
        decoder = Decoder(Limits())
        await decoder.start()
        program = decoder._program
        waiting = asyncio.create_task(decoder.decode(tampered / "upload", tampered / "0.npy"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert program.returncode is not None

    asyncio.run(work())


def test_a_process_that_leaves_its_group_holds_nobody_up(tampered, monkeypatch):
    monkeypatch.setattr(decoders, "_LATE", 1.0)
    ended = tampered / "ended"
    (tampered / "upload").write_text(
        f"signal.alarm(0); os.setsid(); time.sleep(20); open({str(ended)!r}, 'x')"
    )

    async def work():
        decoder = Decoder(Limits(decode_seconds=1))
        with pytest.raises(ImageError, match="broke down"):
            await decoder.decode(tampered / "upload", tampered / "0.npy")

    asyncio.run(work())
    assert not ended.exists()


def test_the_end_of_the_program_is_collected_by_asyncio_alone(monkeypatch):
    """Who asks for it at the same time makes asyncio complain, now and then, of a child it does not know."""
    collected = []
    monkeypatch.setattr(subprocess.Popen, "poll", collected.append)

    async def work():
        decoder = Decoder(Limits())
        await decoder.start()
        await decoder.close()

    asyncio.run(work())
    assert not collected


def test_the_program_loads_no_more_than_it_needs(tmp_path):
    code = f"import runpy, sys; runpy.run_path({str(decoders._PROGRAM)!r}); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "openvino", "scipy", "fastapi", "asyncio"} & set(loaded)


def test_hostile_images_over_http_cost_nobody_else_anything(client, png):
    for body in (png_bomb(5000, 8000)[:-40], b"GIF89a" + bytes(100), b"MM\0*" + b"\xff" * 1000):
        reply = client.predict(body)
        assert reply.status == 422
        assert reply.problem["fix"]
        assert "/tmp" not in reply.problem["detail"]
    assert client.predict(png).status == 200
