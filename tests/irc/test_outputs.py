"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from irc.errors import ToolError
from irc.outputs import check_writable, whole


def write(directory: Path, *names: str, error: type[Exception] | None = None) -> None:
    with whole(directory) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("new")
        if error is not None:
            raise error


def test_files_appear_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with whole(out) as folder:
        (folder / "one").write_text("1")
        (folder / "deep").mkdir()
        (folder / "deep" / "two").write_text("2")
        assert not (out / "one").exists()
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == ["deep", "deep/two", "one"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    for out in (tmp_path, tmp_path / "new" / "deep"):
        with pytest.raises(ZeroDivisionError):
            write(out, "kept", error=ZeroDivisionError)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(ToolError, match="taken"):
        write(tmp_path, "other", "name")
    assert [p.name for p in tmp_path.iterdir()] == ["name"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("")
    with pytest.raises(ToolError, match="can't write"):
        write(tmp_path / "name" / "deep", "file")
    with pytest.raises(ToolError, match="taken"):
        write(tmp_path, "name/deep")


def test_what_cant_be_written_is_told_before_and_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "name").write_text("")
    for inside in ("name", "name/deep"):
        with pytest.raises(ToolError, match="name is a file, not a folder"):
            check_writable(tmp_path / inside)
    assert [p.name for p in tmp_path.iterdir()] == ["name"]


def test_a_temporary_folder_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught, whole(tmp_path / "a") as outer, whole(outer / "b"):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == f"can't write to {tmp_path / 'a'}: No space left on device"


def test_stale_files_go_with_what_takes_their_place(tmp_path: Path) -> None:
    for name in ("net.h", "libnet.a", "mine.c"):
        (tmp_path / name).write_text("old")
    with whole(tmp_path, [Path("net.h"), Path("libnet.a"), Path("net.o")]) as folder:
        (folder / "net.h").write_text("new")
        assert (tmp_path / "libnet.a").exists()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"net.h": "new", "mine.c": "old"}


def links_fail(*_: object, **__: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("at", range(8))
def test_a_move_that_fails_midway_changes_nothing(
    at: int, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "stale"):
        (tmp_path / name).write_text("old")
    for name in ("link", "stale-link"):
        (tmp_path / name).symlink_to("a")
    (tmp_path / "nowhere").symlink_to("lost")
    before = content(tmp_path)
    replace, calls = os.replace, list[Path]()

    def failing(source: Path, to: Path) -> None:
        calls.append(to)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        replace(source, to)
        assert {"a", "b", "link"} <= set(os.listdir(tmp_path))

    def write_all() -> None:
        with whole(tmp_path, [Path("stale"), Path("stale-link"), Path("nowhere")]) as folder:
            for name in ("a", "b", "c", "d", "link"):
                (folder / name).write_text("new")
            monkeypatch.setattr(os, "replace", failing)
            if not linked:
                monkeypatch.setattr(os, "link", links_fail)

    with pytest.raises(KeyboardInterrupt):
        write_all()
    monkeypatch.undo()
    assert len(calls) > at
    assert content(tmp_path) == before
    write_all()
    assert content(tmp_path) == dict.fromkeys(("a", "b", "c", "d", "link"), "new")


def content(folder: Path) -> dict[str, str]:
    """What the files of a folder hold, and where its links lead to."""
    return {
        p.name: f"-> {p.readlink()}" if p.is_symlink() else p.read_text()
        for p in folder.iterdir()
    }
