import pytest

from irc.backends.llvm.target import NAMED, Dot, host, parse_target, refusal
from irc.backends.llvm.target_names import ALIASES, CPUS
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


@pytest.mark.parametrize(
    ("name", "halves"),
    [("znver4", True), ("znver5", False), ("sapphirerapids", False), ("znver3", False)],
)
def test_wide_vectors_in_two_turns(name: str, *, halves: bool) -> None:
    assert parse_target(name).halves is halves


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_other_words_mean_a_target(name: str) -> None:
    assert name not in NAMED
    assert parse_target(name) is parse_target(name.upper()) or ALIASES[name] in CPUS
    parse_target(name).machine()


@pytest.mark.parametrize("name", sorted(CPUS))
def test_llvm_knows_every_cpu(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = parse_target(name)
    target.machine()
    assert (target.cpu, target.name) == (name, CPUS[name])
    assert "not a recognized" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "like", "system"),
    [
        ("aarch64-linux-gnu", "aarch64", "linux"),
        ("x86_64-unknown-linux-gnu", "x86-64", "linux"),
        ("x86_64-linux-musl", "x86-64", "linux"),
        ("riscv64-linux-gnu", "riscv64", "linux"),
        ("wasm32-wasi", "wasm32", "wasi"),
        ("arm64-apple-ios", "aarch64", "ios"),
        ("armv7-linux-gnueabihf", "armv7", "linux"),
    ],
)
def test_a_triple_is_the_least_cpu_of_its_architecture(text: str, like: str, system: str) -> None:
    target, named = parse_target(text), NAMED[like]
    assert (target.triple, target.system) == (text, system)
    assert (target.cpu, target.features) == (named.cpu, named.features)
    assert (target.vector_bytes, target.dot) == (named.vector_bytes, named.dot)
    assert [each.name for each in target.levels] == [each.name for each in named.levels]
    assert {each.triple for each in target.levels} <= {text}


def test_no_system_but_linux_is_taken_to_lend_tiles() -> None:
    for text in ("x86_64-pc-windows-msvc", "x86_64-apple-darwin"):
        levels = parse_target(text).levels
        assert len(levels) == len(NAMED["x86-64"].levels) - 1
        assert not any(each.tiles for each in levels)


def test_object_formats() -> None:
    formats = {
        "arm64-apple-ios": (False, True), "arm64-apple-darwin": (False, True),
        "x86_64-pc-windows-msvc": (False, False), "wasm32": (False, False),
        "thumbv7em-none-eabi": (True, False), "aarch64-linux-gnu": (True, False),
    }  # fmt: skip
    for text, expected in formats.items():
        target = parse_target(text)
        assert (target.is_elf, target.is_macho) == expected, text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skylke", "did you mean skylake"),
        ("cortex-m8", "cortex-m7"),
        ("aarch65", "did you mean aarch64"),
        ("avx2", "there are host"),
        ("riscv32-none-elf", "riscv32-none-elf:CPU:FEATURES"),
        ("aarch64-linux-gnu:foo", "'foo' is not a recognized processor"),
        ("aarch64-linux-gnu:generic:+foo", "'[+]foo' is not a recognized feature"),
        ("foo-linux", "foo-linux"),
    ],
)
def test_what_does_not_exist_says_what_is_near(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        parse_target(text)


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
