"""Files that claim more than they are: bombs, links, duplicates; seeded damage to each format."""

import functools
import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _archive as archive
from snnjax.data import _cifar as cifar
from snnjax.data import _idx as idx
from snnjax.data import arrays
from snnjax.data._fsdd import parse_wav
from snnjax.data.arrays import from_npz
from tests.data import event_files as files
from tests.data.test_fsdd import wav

MEGABYTE = 1 << 20
EVENTS = [(i * 100, i % 5, i % 7, i % 2) for i in range(20)]


def _atis(events):
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events)


def _peak(function, *arguments, match):
    """Peak of the memory that a refused call allocated, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError), match=match):
            function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _load(name, root):
    return data.load(name, data_dir=root)


# --- bombs


def test_archives_stop_at_their_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_BASE", MEGABYTE)
    zeros = bytes(1 << 19)
    for kind in ("zip", "tar.gz", "tar.xz", "tar.bz2"):
        folder = tmp_path / kind / "nmnist"
        folder.mkdir(parents=True)
        path = folder / f"Train.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for i in range(60):
                    packed.writestr(f"Train/3/{i}.bin", zeros[: 5 * 100_000])
        else:
            with tarfile.open(path, f"w:{kind[4:]}") as packed:
                for i in range(60):
                    _add(packed, f"Train/3/{i}.bin", zeros[: 5 * 100_000])
        peak = _peak(_load, "nmnist", folder.parent, match=r"Train\..*unpacks to more than")
        # The recordings up to the limit are 16 bytes for 5, of 2 MB; the whole has 96.
        assert peak < 30 * MEGABYTE, kind


def _add(packed, name, content, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    packed.addfile(info, io.BytesIO(content))


def _tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as packed:
        for name, content, fields in members:
            _add(packed, name, content, **fields)


def test_one_member_is_no_larger_than_its_data_set_allows(tmp_path):
    folder = tmp_path / "nmnist"
    folder.mkdir()
    with zipfile.ZipFile(folder / "Train.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("Train/3/1.bin", bytes(40 * MEGABYTE))
    peak = _peak(_load, "nmnist", tmp_path, match=r"Train.zip: Train/3/1.bin has 41943040 bytes")
    assert peak < MEGABYTE
    (folder / "Train.zip").unlink()
    _tar(folder / "Train.tar.gz", ("Train/3/1.bin", bytes(40 * MEGABYTE), {}))
    assert _peak(_load, "nmnist", tmp_path, match="41943040 bytes") < 5 * MEGABYTE
    (folder / "Train.tar.gz").unlink()
    # A sparse file claims a terabyte and occupies nothing.
    (folder / "Train" / "3").mkdir(parents=True)
    with (folder / "Train" / "3" / "1.bin").open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert _peak(_load, "nmnist", tmp_path, match="1099511627776 bytes") < MEGABYTE


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_headers_of_a_tar_are_no_place_for_a_bomb(tmp_path, kind):
    folder = tmp_path / "nmnist"
    folder.mkdir()
    _tar(folder / "Train.tar.gz", ("long", bytes(60 * MEGABYTE), {"type": kind}))
    assert _peak(_load, "nmnist", tmp_path, match="a header of 62914560 bytes") < 5 * MEGABYTE


def test_links_and_sparse_members_are_refused(tmp_path):
    folder = tmp_path / "nmnist"
    folder.mkdir()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        _tar(folder / "Train.tar.gz", ("Train/3/1.bin", b"", {"type": kind, "linkname": "/etc"}))
        with pytest.raises(data.CorruptDataError, match="is a link, a sparse or a special file"):
            _load("nmnist", tmp_path)
    sparse = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,5"}
    _tar(folder / "Train.tar.gz", ("Train/3/1.bin", b"12345", {"pax_headers": sparse}))
    with pytest.raises(data.CorruptDataError, match="sparse"):
        _load("nmnist", tmp_path)
    (folder / "Train.tar.gz").unlink()
    with zipfile.ZipFile(folder / "Train.zip", "w") as packed:
        info = zipfile.ZipInfo("Train/3/1.bin")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "../../secret")
    with pytest.raises(data.CorruptDataError, match="is a link"):
        _load("nmnist", tmp_path)


def test_paths_that_climb_are_names_only(tmp_path):
    folder = tmp_path / "inner" / "nmnist"
    folder.mkdir(parents=True)
    members = [(f"../../{s}/3/1.bin", _atis(EVENTS), {}) for s in ("Train", "Test")]
    _tar(folder / "all.tar.gz", *members)
    assert len(_load("nmnist", folder.parent).train) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]


def test_a_gz_unpacks_to_the_published_size_and_no_further(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    path = folder / "train-images-idx3-ubyte.gz"
    compressor = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        for _ in range(60):
            file.write(compressor.compress(bytes(MEGABYTE)))
        file.write(compressor.flush())
    peak = _peak(_load, "mnist", tmp_path, match=r"idx3-ubyte.gz unpacks to more than .* 47040016")
    assert peak < 100 * MEGABYTE  # the published 45 MB, twice while they are joined
    path.unlink()
    with (folder / "train-images-idx3-ubyte").open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert _peak(_load, "mnist", tmp_path, match="1099511627776 bytes") < MEGABYTE
    # A product of 64 bits would wrap to the six bytes that follow.
    header = b"\x00\x00\x08\x04" + struct.pack(">4I", 1 << 31, 1 << 31, 4, 1)
    with pytest.raises(data.CorruptDataError, match="must have 18446744073709551616 bytes"):
        idx.parse_idx(header)


def _npz(path, arrays, *, headers=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            content = buffer.getvalue()
            if headers and key in headers:
                buffer = io.BytesIO()
                fields = np.lib.format.header_data_from_array_1_0(array) | headers[key]
                np.lib.format.write_array_header_1_0(buffer, fields)
                content = buffer.getvalue() + content[-array.nbytes :]
            packed.writestr(f"{key}.npy", content)


X = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
Y = np.array([0, 1, 2, 0, 1, 2])
ARRAYS = {"train_inputs": X, "train_labels": Y, "test_inputs": X, "test_labels": Y}


@pytest.mark.parametrize(
    "shape", [(1 << 40,), (1 << 20, 1 << 20), (-6, 2, -2, 1), (1 << 62, 4), (5, 2, 2, 1)]
)
def test_npy_headers_describe_their_content(tmp_path, shape):
    path = tmp_path / "mine.npz"
    _npz(path, ARRAYS, headers={"train_inputs": {"shape": shape}})
    assert _peak(from_npz, path, match="mine.npz cannot be read: train_inputs.npy st") < MEGABYTE


def test_an_npz_unpacks_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_BASE", MEGABYTE)
    path = tmp_path / "mine.npz"
    _npz(path, ARRAYS | {"train_inputs": np.zeros((6, 2 << 20), np.uint8)})
    assert _peak(from_npz, path, match="write it by numpy.savez instead") < MEGABYTE
    # Members of other names are not read, whatever their size.
    _npz(path, ARRAYS | {"notes": np.zeros(12 << 20, np.uint8)})
    tracemalloc.start()
    assert from_npz(path).classes == 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEGABYTE


def test_names_in_an_npz_are_names(tmp_path):
    path = tmp_path / "mine.npz"
    _npz(path, ARRAYS | {"class_names": np.array([b"a", b"b", b"c"])})
    assert from_npz(path).class_names == ("a", "b", "c")
    _npz(path, ARRAYS | {"class_names": np.array([["a", "b", "c"]])})
    with pytest.raises(ValueError, match="one name per class"):
        from_npz(path)


@pytest.mark.filterwarnings("ignore:Image size:Warning")  # Pillow's, before the error of ours
def test_images_are_measured_before_they_are_decoded(tmp_path):
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("L", (4000, 4000)).save(buffer, "JPEG")
    with pytest.raises(data.CorruptDataError, match=r"1.jpg is an image of \(4000, 4000\)"):
        cifar.decode_jpeg(buffer.getvalue(), archive.PurePosixPath("1.jpg"))
    for split, size in (("train", (10_000, 10_000)), ("val", (20, 20))):
        folder = tmp_path / "photos" / split / "cat"
        folder.mkdir(parents=True)
        image.new("1", size).save(folder / "1.png")
    photos = data.image_folder(tmp_path / "photos", size=8)
    with pytest.raises(data.CorruptDataError, match="1.png claims 10000x10000 pixels"):
        photos.train.inputs[0]
    image.new("I;16", (20, 20), 60_000).save(folder / "1.png")
    with pytest.raises(data.CorruptDataError, match="1.png has pixels of more than 8 bits"):
        photos.test.inputs[0]


def _aedat4(packet):
    return (
        b"#!AER-DAT4.0\r\n"
        + struct.pack("<I", 4)
        + bytes(4)
        + struct.pack("<ii", 0, len(packet))
        + packet
    )


def test_packets_of_aedat4_are_measured_before_they_are_unpacked(tmp_path):
    pytest.importorskip("aedat", reason="AEDAT 4 needs the extra 'events'")
    # Blocks of one repeated byte: 600 of them, 4 bytes each, unpack to 78 MB.
    zeros = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\0"
    zstd = struct.pack("<IBB", 0xFD2FB528, 0, 0x58) + zeros * 600
    # A byte of LZ4 repeats 255 others.
    block = struct.pack("<I", 300_000) + b"\x1f\0\1\0" + bytes([255]) * 299_996
    lz4 = struct.pack("<IBBB", 0x184D2204, 0x60, 0x70, 0) + block * 20
    path = tmp_path / "one.aedat4"
    for packet in (zstd, lz4):
        path.write_bytes(_aedat4(packet))
        peak = _peak(data.event_files.read_aedat4, path, match="one.aedat4 may unpack its packet")
        assert peak < 2 * len(packet) + MEGABYTE


# --- duplicates


def test_examples_that_occur_twice_are_refused(tmp_path):
    folder = tmp_path / "nmnist"
    recording = _atis(EVENTS)
    for path in ("Train/3/1.bin", "copy/Train/3/1.bin", "Test/3/1.bin"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(recording)
    with pytest.raises(data.CorruptDataError, match="train/3/1.bin twice"):
        _load("nmnist", tmp_path)
    subset = tmp_path / "lists" / "nmnist"
    subset.mkdir(parents=True)
    for number in (1, 2):
        (subset / f"{number}.bs2").write_bytes(recording)
    for train, test, match in [
        ("1 5\n", "1 5\n2 0\n", "has 1 twice"),  # in training and test
        ("1 5\n1 6\n", "2 0\n", r"train.txt has 1 twice"),
        ("1 5\n", "2 10\n", "the label 10, no digit"),
        ("1 5\n", "2 -1\n", "the label -1, no digit"),
        ("1 5\n", "2 1.5\n", "test.txt must list"),
        ("1 5 7\n", "2 1\n", "train.txt must list"),
        ("1 5\n", "2 4294967297\n", "no digit"),
    ]:
        (subset / "train.txt").write_text(train)
        (subset / "test.txt").write_text(test)
        with pytest.raises(data.CorruptDataError, match=match):
            _load("nmnist", subset.parent)
    (subset / "test.txt").write_text("2 1\n")
    assert len(_load("nmnist", subset.parent).train) == 1
    (subset / "train2.txt").write_text("2 1\n")
    with pytest.raises(data.CorruptDataError, match=r"two lists train\*.txt"):
        _load("nmnist", subset.parent)


def test_two_archives_of_one_recording_are_refused(tmp_path):
    folder = tmp_path / "nmnist"
    folder.mkdir()
    members = [(f"{split}/3/1.bin", _atis(EVENTS), {}) for split in ("Train", "Test")]
    _tar(folder / "a.tar.gz", *members)
    _tar(folder / "b.tar.xz", *members, mode="w:xz")
    with pytest.raises(data.CorruptDataError, match="Train/3/1.bin occurs twice in the archives"):
        _load("nmnist", tmp_path)


# --- values that wrap


def test_clocks_beyond_32_bits_do_not_wrap():
    # 2^31 us of overflow rows, 2^13 us each.
    rows = np.zeros((2**18 + 2, 5), np.uint8)
    rows[1:-1, 1] = 240
    with pytest.raises(ValueError, match="one has times up to 2147483648 us"):
        data.event_files.parse_atis(rows.tobytes(), name="one")
    assert data.event_files.parse_atis(rows[2:].tobytes())[-1, 0] == 2**31 - 2**13
    with pytest.raises(data.CorruptDataError, match="no event of a pixel"):
        data.event_files.parse_atis(rows[1:-1].tobytes(), name="one")
    # A clock of 32 bits that wraps around twice: 2^32 us and more have passed.
    steps = [0, 2**30, 2**31 - 1, -(2**31) + 5, -(2**30), 7]
    with pytest.raises(ValueError, match="one has times up to 4294967303 us"):
        data.event_files.parse_aedat2(files.aedat2([(t, 1, 1, 1) for t in steps]), name="one")
    content = files.aedat3([(-5, 1, 1, 1), (-4, 1, 1, 1)])
    with pytest.raises(data.CorruptDataError, match="one has a negative time"):
        data.event_files.parse_aedat3(content, name="one")


def test_packets_out_of_order_lose_no_event_of_an_interval():
    content = files.aedat3([(50, 1, 1, 1), (10, 2, 2, 0), (30, 3, 3, 1)])
    events = data.event_files.parse_aedat3(content, start=5, stop=20)
    np.testing.assert_array_equal(events, [[10, 2, 2, 0]])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("1 1 5 -3 200\n2 2 1 1 128\n", "count from 1"),
        ("1 1 5 0 200\n2 2 1 1 128\n", "count from 1"),
        ("1 1 5 200 11\n2 2 1 1 128\n", "the last does not precede"),
        ("1 1 5.5 11 266\n2 2 1 1 128\n", r"row \[1.0, 1.0, 5.5"),
        ("1 1 5 11 266\n2 2 4294967297 1 128\n", "count from 1"),
        ("1 1 nan 11 266\n2 2 1 1 128\n", "labels.txt has numbers that are not finite"),
        ("1 1 5 11 266\n1 1 5 11 266\n2 2 1 1 128\n", "labels samples twice"),
        ("1 1 5 11 266\n1 1 4 200 400\n2 2 1 1 128\n", "labels samples twice"),
        ("1 2 5 11 266\n2 2 1 1 128\n", "experiment 1 of user 2 are missing"),
        ("1 1 5 11\n266 2 2 1 1 128\n", "not a table of 5 numbers"),
        ("2 2 1 1 128\n", "no windows of the people of the training split"),
        ("1 1 5 11 266\n", "no windows of the people of the test split"),
    ],
)
def test_rows_of_labels_fit_the_signals(tmp_path, rows, match):
    _hapt(tmp_path, rows)
    with pytest.raises((data.CorruptDataError, data.MissingDataError), match=match):
        _load("hapt", tmp_path)


def _hapt(root, rows="1 1 5 11 266\n2 2 1 1 128\n"):
    folder = root / "hapt"
    folder.mkdir(parents=True)
    signal = np.arange(1500).reshape(500, 3) / 7
    for kind in ("acc", "gyro"):
        for number in (1, 2):
            name = f"{kind}_exp{number:02d}_user{number:02d}.txt"
            (folder / name).write_text("\n".join(" ".join(map(str, row)) for row in signal))
    (folder / "labels.txt").write_text(rows)
    return folder


@pytest.mark.parametrize(
    ("value", "match"),
    [("nan", "acc_exp01_user01.txt has numbers that are not finite"), ("inf", "not finite"),
     ("4", "acc_exp01_user01.txt has a channel that is constant")],
)  # fmt: skip
def test_signals_are_finite_and_change(tmp_path, value, match):
    folder = _hapt(tmp_path)
    assert len(_load("hapt", tmp_path).train) == 3
    (folder / "acc_exp01_user01.txt").write_text(
        "\n".join(f"{i} {value} {i % 7}" for i in range(500))
    )
    with pytest.raises(data.CorruptDataError, match=match):
        _load("hapt", tmp_path)


# --- seeded damage


def _zip_of(content):
    def write(folder):
        with zipfile.ZipFile(folder / "all.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for name, text in content.items():
                packed.writestr(name, text)
        return folder / "all.zip"

    return write


def _tar_of(content, kind):
    def write(folder):
        _tar(
            folder / f"all.tar.{kind}", *((n, c, {}) for n, c in content.items()), mode=f"w:{kind}"
        )
        return folder / f"all.tar.{kind}"

    return write


RECORDINGS = {
    f"{split}/{digit}/{number}.bin": _atis(EVENTS[: 9 + number])
    for split in ("Train", "Test")
    for digit in (3, 7)
    for number in (1, 2)
}


def _written(name, write):
    def case(root):
        folder = root / name
        folder.mkdir(parents=True)
        return write(folder), functools.partial(_load, name, root)

    return case


def _parsed(suffix, content, parse):
    def case(root):
        path = root / f"one{suffix}"
        path.write_bytes(content)
        return path, lambda: parse(path)

    return case


def _parser(parse):
    return lambda path: parse(path.read_bytes(), name=str(path))


def _from_npz_case(root):
    path = root / "mine.npz"
    _npz(path, ARRAYS)
    return path, lambda: from_npz(path)


# Formats with a checksum load equal data or nothing; the others load valid data or nothing.
CHECKED = {
    "zip": _written("nmnist", _zip_of(RECORDINGS)),
    "tar.gz": _written("nmnist", _tar_of(RECORDINGS, "gz")),
    "tar.xz": _written("nmnist", _tar_of(RECORDINGS, "xz")),
    "tar.bz2": _written("nmnist", _tar_of(RECORDINGS, "bz2")),
    "npz": _from_npz_case,
}
PLAIN = {
    "atis": _parsed(".bin", _atis(EVENTS), _parser(data.event_files.parse_atis)),
    "aedat2": _parsed(".aedat", files.aedat2(EVENTS), _parser(data.event_files.parse_aedat2)),
    "aedat3": _parsed(".aedat", files.aedat3(EVENTS), _parser(data.event_files.parse_aedat3)),
    "dat": _parsed(".dat", files.dat(EVENTS), _parser(data.event_files.parse_dat)),
    "wav": _parsed(
        ".wav",
        wav(range(60)),
        lambda path: parse_wav(path.read_bytes(), rate=8000, name=str(path)),
    ),
    "hapt labels": lambda root: (
        _hapt(root) / "labels.txt",
        functools.partial(_load, "hapt", root),
    ),
}


def _damaged(rng, content):
    content = bytearray(content)
    kind = rng.randrange(5)
    place = rng.randrange(len(content))
    if kind == 0:
        content[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        content[place : place + 8] = rng.randbytes(8)
    elif kind == 3:
        content[place:place] = rng.randbytes(rng.randrange(1, 9))
    else:
        content += rng.randbytes(rng.randrange(1, 9))
    return bytes(content)


def _leaves(loaded):
    if isinstance(loaded, np.ndarray):
        return [loaded]
    parts = [(s.inputs, s.labels) for s in (loaded.train, loaded.test)]
    return [a for inputs, labels in parts for a in (*inputs, labels)]


@pytest.mark.parametrize("name", [*CHECKED, *PLAIN])
def test_damaged_files_load_what_they_were_or_are_named(tmp_path, name):
    path, load = (CHECKED | PLAIN)[name](tmp_path)
    content, whole = path.read_bytes(), _leaves(load())
    rng, refused = random.Random(name), 0
    for _ in range(60):
        path.write_bytes(_damaged(rng, content))
        try:
            loaded = _leaves(load())
        except (ValueError, OSError) as error:
            refused += 1
            assert path.name in str(error) or str(tmp_path) in str(error), error
            continue
        if name in CHECKED:
            assert len(loaded) == len(whole)
            assert all(np.array_equal(a, b) for a, b in zip(loaded, whole, strict=True))
        for leaf in loaded:
            assert np.isfinite(leaf).all()
            if leaf.ndim == 2 and leaf.shape[1] == 4:
                t, x, y, p = leaf.T
                assert (np.diff(t) >= 0).all() and leaf.min() >= 0 and p.max() <= 1
                assert x.max() < 128 and y.max() < 128
    assert refused >= (30 if name in CHECKED else 5)


def test_a_damaged_gz_of_the_published_files_is_named(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    path = folder / "train-images-idx3-ubyte.gz"
    content, rng = gzip.compress(bytes(range(256)) * 4), random.Random(3)
    for _ in range(60):
        path.write_bytes(_damaged(rng, content))
        with pytest.raises(data.CorruptDataError, match="train-images-idx3-ubyte"):
            _load("mnist", tmp_path)
