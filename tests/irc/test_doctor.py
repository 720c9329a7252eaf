"""The doctor sees what is there, and what is not."""

import pytest

from irc import doctor


def found(what: str) -> doctor.Finding:
    (finding,) = [f for f in doctor.examine() if f.what == what]
    return finding


def test_what_is_required_is_there() -> None:
    assert [f for f in doctor.examine() if f.fine is False] == []


def test_a_linker_that_fails_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irc.driver.linker", lambda: ["false"])
    assert found("linker").fine is False


def test_a_missing_package_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    monkeypatch.setattr(doctor, "EXTRAS", {"no-such-extra": "cross"})
    assert found("no-such-package").fine is False
    extra = found("no-such-extra")
    assert extra.fine is None
    assert "irc-nn[cross]" in extra.seen
