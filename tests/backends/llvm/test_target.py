import pytest

from irc.backends.llvm.target import NAMED, Dot, host, parse_target, refusal
from irc.errors import CompileError


@pytest.mark.parametrize("name", sorted(NAMED))
def test_llvm_knows_every_named_target(name: str) -> None:
    target = parse_target(name)
    assert target.machine().triple.split("-")[0] == target.arch


def test_host_is_at_least_its_baseline() -> None:
    target = parse_target("host")
    assert target is host()
    assert target.machine().triple == target.triple
    if target.is_x86:
        assert target.vector_bytes in (16, 32, 64)


@pytest.mark.parametrize(
    ("text", "vector_bytes", "dot"),
    [
        ("x86_64-unknown-linux-gnu:znver3", 32, Dot.MADDUBS),
        ("x86_64-unknown-linux-gnu:x86-64-v3:+avxvnni", 32, Dot.VPDPBUSD),
        ("x86_64-unknown-linux-gnu:sapphirerapids:", 64, Dot.VPDPBUSD),
        ("x86_64-unknown-linux-gnu:x86-64", 16, Dot.NONE),
        ("aarch64-unknown-linux-gnu:generic:+dotprod", 16, Dot.SDOT),
        ("riscv64-unknown-linux-gnu:generic-rv64:+m,+v", 16, Dot.NONE),
    ],
)
def test_abilities_of_custom_targets(text: str, vector_bytes: int, dot: Dot) -> None:
    target = parse_target(text)
    assert (target.vector_bytes, target.dot) == (vector_bytes, dot)
    assert target.name == text


@pytest.mark.parametrize("text", ["", "z80", "no-such-triple:cpu", "a:b:c:d"])
def test_unknown_targets_are_errors(text: str) -> None:
    with pytest.raises(CompileError, match="target"):
        parse_target(text)


def test_a_dot_product_is_claimed_only_with_its_feature() -> None:
    for target in NAMED.values():
        if target.dot is Dot.VPDPBUSD:
            assert "vnni" in target.features
        if target.dot is Dot.SDOT:
            assert "dotprod" in target.features


def test_what_this_machine_refuses() -> None:
    here = host()
    assert refusal(here.triple, here.cpu, here.features) == ""
    assert "lacks never-made" in refusal(here.triple, here.cpu, "+never-made")
    assert "it is code for z80" in refusal("z80-unknown-none", "", "")
