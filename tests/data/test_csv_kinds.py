"""A CSV as programs write it reaches the same silver as the plain one."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pytest

from tasks.errors import DataError
from tasks.run.manifest import Manifest
from tests.data.conftest import HEADER, House, by_patient, patients, read, text_of

TEXT = text_of(patients())
SEMICOLONS = text_of(patients(), delimiter=";")
LINES = TEXT.splitlines()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return buffer.getvalue()


def zstd(text: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return bytes(sink.getvalue())


def mixed_ends() -> bytes:
    ends = ["\n", "\r\n"]
    return "".join(line + ends[i % 2] for i, line in enumerate(LINES)).encode()


KINDS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "byte order mark": ("", "", lambda: b"\xef\xbb\xbf" + TEXT.encode()),
    "UTF-16 that is not named": ("", "", lambda: TEXT.encode("utf-16")),
    "UTF-16 that is named": (", encoding: utf-16", "", lambda: TEXT.encode("utf-16")),
    "old Mac line ends": ("", "", lambda: "\r".join(LINES).encode()),
    "Windows line ends": ("", "", lambda: "\r\n".join(LINES).encode()),
    "mixed line ends": ("", "", mixed_ends),
    "Excel's sep line": (", delimiter: ';'", "", lambda: f"sep=;\r\n{SEMICOLONS}".encode()),
    "title lines": (", skip: 2", "", lambda: f"Ward 7\nmade, on 1 May\n{TEXT}".encode()),
    "title and sep": (", skip: 1", "", lambda: f"Ward 7\nsep=,\n{TEXT}".encode()),
    "an index without a name": (
        "", "", lambda: "\n".join(f"{i or ''},{x}" for i, x in enumerate(LINES)).encode()
    ),
    "rows of delimiters": (
        "", "", lambda: "\n".join([*LINES[:9], ",,,,,,", ",,", " , ", *LINES[9:], ",,,"]).encode()
    ),
    "delimiters before the header": ("", "", lambda: f",,,,,,\n{TEXT}".encode()),
    "rows of tabs": (
        ', delimiter: "\\t"', "",
        lambda: (text_of(patients(), delimiter="\t") + "\t" * 6 + "\n\n").encode(),
    ),
    "gzip": ("", "north.csv.gz", lambda: gzip.compress(TEXT.encode())),
    "bzip2": ("", "north.csv.bz2", lambda: bz2.compress(TEXT.encode())),
    "zstandard": ("", "north.csv.zst", lambda: zstd(TEXT)),
    "zip": ("", "north.zip", lambda: zipped("folder/export.csv")),
    "gzip of UTF-16": ("", "n.GZ", lambda: gzip.compress(TEXT.encode("utf-16"))),
    "a hidden name": ("", "_export.csv", TEXT.encode),
    "brackets": ("", "export[1].csv", TEXT.encode),
    "a blank in the name": ("", "a b.csv", TEXT.encode),
}  # fmt: skip


def put(house: House, source: str, name: str, content: bytes) -> None:
    change = ("{path: north.csv}", f'{{path: "{name}"}}') if name else ("", "")
    house.study(source=source, change=change)
    (house.folder / (name or "north.csv")).write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reaches_the_same_silver(house: House, sound: dict[str, Manifest], kind: str) -> None:
    source, name, content = KINDS[kind]
    put(house, source, name, content())
    silver = house.steps("r", "collect", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-1", "iso-8859-15"])
def test_letters_beyond_ascii_keep_their_meaning(house: House, encoding: str) -> None:
    letter = {"cp1252": "–", "iso-8859-1": "Å", "iso-8859-15": "€"}[encoding]
    house.study(source=f", encoding: {encoding}")
    rows = patients()
    rows[0][2] = f"M{letter}le"
    house.north(text_of(rows).encode(encoding))
    bronze = read(house.steps("r", "collect").tables["bronze"])
    assert f"M{letter}le" in {row["sex"] for row in bronze}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("north.zip", zipped("a.csv", "b.csv"), "holds 2 files"),
        ("north.zip", b"PK no zip", "cannot be unpacked or read"),
        ("north.csv.gz", gzip.compress(TEXT.encode())[:-300], "cannot be unpacked or read"),
        ("north.csv", b"\xff\xfe" + b"\x00\xd8" * 9, "not utf-16"),
        ("north.csv", TEXT.encode()[:99] + b"\xe9\xff", "not UTF-8 at byte 99"),
    ],
    ids=["two files", "no zip", "cut off", "no UTF-16", "no UTF-8"],
)
def test_what_cannot_be_read_is_named(house: House, name: str, content: bytes, words: str) -> None:
    put(house, "", name, content)
    with pytest.raises(DataError, match=words) as caught:
        house.steps("bad", "collect")
    assert "hospital north" in str(caught.value)


def test_a_long_value_of_a_packed_file_is_read(house: House) -> None:
    rows = [[*row, "z" * 3_000_000 if i == 7 else ""] for i, row in enumerate(patients())]
    put(house, "", "north.csv.gz", gzip.compress(text_of(rows, [*HEADER, "note"]).encode()))
    assert house.steps("r", "collect").figures["rows"] == len(rows)


def test_the_line_of_a_broken_row_is_the_files_own(house: House) -> None:
    house.study(source=", skip: 2")
    house.north("\n".join(["a", "b", *LINES[:4], "1,2", *LINES[4:]]))
    with pytest.raises(DataError, match=r"1 of 81 rows .* \(line 7\)"):
        house.steps("bad", "collect")


@pytest.mark.parametrize("other", ["refuse", "ignore"])
def test_rows_of_other_sites_are_refused_or_left_out(house: House, other: str) -> None:
    house.study(source=f", site_column: site, path: all.csv, skip: 1, other_sites: {other}")
    file = house.folder / "small.yaml"
    text = file.read_text().replace("kind: own", "kind: site_column")
    file.write_text(
        text.replace("path: north.csv", "site: N").replace("path: south.csv", "site: S")
    )
    rows = [[*row, "NSX"[i % 3]] for i, row in enumerate(patients(90))]
    (house.folder / "all.csv").write_text("A title\n" + text_of(rows, [*HEADER, "site"]))
    if other == "refuse":
        with pytest.raises(DataError, match="of 30 of 90 rows names no hospital"):
            house.steps("bad", "deal", hospital=None)
        return
    done = house.steps("r", "deal", hospital=None)
    assert (done.figures["rows"], done.figures["other_sites"]) == (60, 30)
    assert house.steps("r", "collect").figures["rows"] == 30
