"""Images of this machine's Docker for the test cluster: only the layers that it lacks.

``docker save`` writes all of an image to disk, and the cluster reads all of it: minutes for
gigabytes of which one layer of kilobytes is new. Docker keeps each layer's files and what is needed
to put its archive together again, byte by byte (tar-split), and containerd takes an archive in
which layers are missing that it has.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1 << 20
LAYER, CONFIG, MANIFEST = (
    f"application/vnd.oci.image.{kind}"
    for kind in ("layer.v1.tar", "config.v1+json", "manifest.v1+json")
)


@dataclass(frozen=True)
class Layer:
    """A layer as Docker's storage driver overlay2 keeps it.

    Attributes:
        digest: Of its archive.
        entries: Description of the archive (``tar-split.json.gz``).
        files: Its files.
    """

    digest: str
    entries: Path
    files: Path

    def __iter__(self) -> Iterator[bytes]:
        """The archive, piece by piece."""
        for entry in self._described():
            if entry["type"] == 2:
                yield base64.b64decode(entry["payload"])
            elif entry.get("size"):
                with (self.files / _name_of(entry)).open("rb") as file:
                    while piece := file.read(CHUNK):
                        yield piece

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(
            len(base64.b64decode(entry["payload"])) if entry["type"] == 2 else entry.get("size", 0)
            for entry in self._described()
        )

    def _described(self) -> Iterator[dict[str, Any]]:
        with gzip.open(self.entries) as lines:
            yield from map(json.loads, lines)


def _name_of(entry: dict[str, Any]) -> str:
    raw = entry.get("name_raw")
    return (base64.b64decode(raw).decode() if raw else entry["name"]).lstrip("/")


def write_images(names: Iterable[str], known: set[str], out: BinaryIO) -> None:
    """Write images as one OCI archive.

    Args:
        names: ``name:tag``, each of Docker's.
        known: Digests of the layers that are left out.
        out: Where to.
    """
    index, known = list[dict[str, Any]](), set(known)
    for name in names:
        config, layers = _image(name)
        for layer in layers:
            if layer.digest not in known:
                _add(out, layer.digest, layer.size, layer)
                known.add(layer.digest)
        manifest = _blob(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _described(CONFIG, config),
                "layers": [
                    {"mediaType": LAYER, "digest": each.digest, "size": each.size}
                    for each in layers
                ],
            }
        )
        for blob in (config, manifest):
            _add(out, _digest(blob), len(blob), [blob])
        # As the cluster's nodes look a name up.
        first = name.partition("/")[0]
        full = name if "." in first else f"docker.io/{'' if '/' in name else 'library/'}{name}"
        named = {"annotations": {"io.containerd.image.name": full}}
        index.append(_described(MANIFEST, manifest) | named)
    for path, content in (
        ("oci-layout", _blob({"imageLayoutVersion": "1.0.0"})),
        ("index.json", _blob({"schemaVersion": 2, "manifests": index})),
    ):
        _member(out, path, len(content), [content])
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def _image(name: str) -> tuple[bytes, list[Layer]]:
    """An image's configuration and its layers, the first one first."""
    asked = ["docker", "image", "inspect", "-f", "{{.Id}}", name]
    identity = subprocess.check_output(asked, text=True, timeout=400).strip()
    asked = ["docker", "info", "-f", "{{.DockerRootDir}}"]
    root = Path(subprocess.check_output(asked, text=True, timeout=400).strip())
    database = root / "image" / "overlay2"
    config = (database / "imagedb/content/sha256" / identity.removeprefix("sha256:")).read_bytes()
    found, chain = list[Layer](), ""
    for digest in json.loads(config)["rootfs"]["diff_ids"]:
        chain = _digest(f"{chain} {digest}".encode()) if chain else digest
        kept = database / "layerdb/sha256" / chain.removeprefix("sha256:")
        folder = root / "overlay2" / (kept / "cache-id").read_text() / "diff"
        found.append(Layer(digest, kept / "tar-split.json.gz", folder))
    return config, found


def _blob(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _add(out: BinaryIO, digest: str, size: int, content: Iterable[bytes]) -> None:
    _member(out, f"blobs/{digest.replace(':', '/')}", size, content)


def _member(out: BinaryIO, name: str, size: int, content: Iterable[bytes]) -> None:
    about = tarfile.TarInfo(name)
    about.size = size
    out.write(about.tobuf())
    for piece in content:
        out.write(piece)
    out.write(bytes(-size % tarfile.BLOCKSIZE))
