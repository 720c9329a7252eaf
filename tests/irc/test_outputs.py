"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from irc.errors import ToolError
from irc.outputs import whole


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
        with pytest.raises(ZeroDivisionError), whole(out) as folder:
            (folder / "kept").write_text("new")
            raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(ToolError, match="taken"), whole(tmp_path) as folder:
        (folder / "other").write_text("")
        (folder / "name").write_text("")
    assert [p.name for p in tmp_path.iterdir()] == ["name"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("")
    with pytest.raises(ToolError, match="can't write"), whole(tmp_path / "name" / "deep"):
        pass
    with pytest.raises(ToolError, match="taken"), whole(tmp_path) as folder:
        (folder / "name").mkdir()
        (folder / "name" / "deep").write_text("")
