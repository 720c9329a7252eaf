"""The audit of objects and archives, on every format that irc writes."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from irc.audit import Check, audit, disassembly
from irc.audit.files import read
from irc.audit.machine import Frame, Instruction, UnknownStack
from irc.audit.machines import MACHINES
from irc.backends.llvm.files.aot import save
from irc.backends.llvm.target import parse_target
from irc.errors import ToolError
from tests.backends.llvm.nets import tiny_net

FOREIGN = ("x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc", "x86_64-apple-darwin",
           "arm64-apple-darwin", "cortex-m7", "apple-m1", "riscv64-linux-gnu")  # fmt: skip
TRIPLES = {
    "ELF x86-64": "x86_64-unknown-linux-gnu", "ELF AArch64": "aarch64-unknown-linux-gnu",
    "ELF Cortex-M4": "cortex-m4", "ELF Arm": "armv7", "ELF RISC-V": "riscv64",
    "Mach-O x86-64": "x86_64-apple-darwin:x86-64", "Mach-O Arm": "arm64-apple-darwin",
    "COFF x86-64": "x86_64-pc-windows-msvc:x86-64", "COFF Arm": "aarch64-pc-windows-msvc",
    "WebAssembly": "wasm32",
}  # fmt: skip


def audited(path: Path) -> dict[str, Check]:
    """The checks by their last word; skipped where nothing here reads the code."""
    try:
        return {c.promise.split()[-1]: c for c in audit(path)}
    except ToolError as error:
        if "objdump" in str(error):
            pytest.skip(str(error))
        raise


def failed(checks: dict[str, Check]) -> set[str]:
    return {word for word, check in checks.items() if check.holds is False}


def assert_object_and_archive_keep_their_promises(folder: Path) -> None:
    checks = audited(folder / "net.o")
    wasm = read(folder / "net.o").form == "WebAssembly"
    assert failed(checks) == set()
    untried = {word for word, check in checks.items() if check.holds is None}
    assert untried == ({"test", "stack"} if wasm else {"test"})
    assert checks == audited(folder / "libnet.a")


@pytest.mark.parametrize("target", FOREIGN)
def test_other_systems_keep_the_promises(target: str, tmp_path: Path) -> None:
    """`tests/backends/llvm/test_aot.py` asks the same of every named target."""
    save(tiny_net(), tmp_path, "net", target, emit=["o", "a"])
    assert_object_and_archive_keep_their_promises(tmp_path)


SOUND = r"""
@manifest = private constant [31 x i8] c"{\0A \22format\22: 1, \22name\22: \22net\22}\00"
define ptr @net_manifest() nounwind { ret ptr @manifest }
define i32 @net_self_test(ptr %w) nounwind { ret i32 0 }
"""
RUN = "define i32 @net_run(ptr %x, ptr %y, ptr %w) nounwind {\n"
PLAIN = f"{RUN} ret i32 0\n}}\n"
FAULTS = {
    "a float": (f"""{RUN}
        %v = load float, ptr %x
        %p = fmul float %v, %v
        store float %p, ptr %y
        ret i32 0 }}""", {"point"}),
    "a float behind a call": (f"""{RUN}
        %r = call i32 @inner(ptr %x)
        %s = add i32 %r, 1
        ret i32 %s }}
    define internal i32 @inner(ptr %x) noinline {{
        %v = load float, ptr %x
        %p = fadd float %v, %v
        %r = fptosi float %p to i32
        ret i32 %r }}""", {"point"}),
    "a call of something else": (f"""{RUN}
        %r = call i32 @outside(ptr %x)
        %s = add i32 %r, 1
        ret i32 %s }}
    declare i32 @outside(ptr)""", {"outside", "code"}),
    "writable data": (f"""@counter = internal global i32 7
    {RUN}
        %v = load i32, ptr @counter
        %n = add i32 %v, 1
        store i32 %n, ptr @counter
        ret i32 0 }}""", {"data"}),
    "zeroed data": (f"""@counter = internal global i32 0
    {RUN}
        store i32 1, ptr @counter
        ret i32 0 }}""", {"data"}),
    "a second interface": (f"{PLAIN} define i32 @net_secret() {{ ret i32 1 }}", {"more"}),
    "a call by a pointer": (f"""{RUN}
        %r = call i32 %x(ptr %y)
        %s = add i32 %r, 1
        ret i32 %s }}""", {"code"}),
    "recursion": (f"""{RUN}
        %r = call i32 @inner(ptr %x)
        %s = add i32 %r, 1
        ret i32 %s }}
    define internal i32 @inner(ptr %x) noinline {{
        %r = call i32 @inner(ptr %x)
        %s = add i32 %r, 1
        ret i32 %s }}""", {"stack"}),
    "stack by a number": (f"""{RUN}
        %n = load i32, ptr %x
        %p = alloca i8, i32 %n
        store volatile i8 1, ptr %p
        ret i32 0 }}""", {"stack"}),
}  # fmt: skip


def build(folder: Path, form: str, source: str) -> Path:
    """An object of LLVM text, as it stands: nothing is optimized away."""
    target = parse_target(TRIPLES[form])
    machine = target.machine()
    module = binding.parse_assembly(f'target triple = "{target.triple}"\n{SOUND}{source}')
    module.data_layout = str(machine.target_data)
    (folder / "net.o").write_bytes(machine.emit_object(module))
    return folder / "net.o"


@pytest.mark.parametrize("form", TRIPLES)
def test_a_sound_object_passes(form: str, tmp_path: Path) -> None:
    path = build(tmp_path, form, PLAIN)
    assert failed(audited(path)) == set()
    assert read(path).form == form.split()[0]


@pytest.mark.parametrize("form", TRIPLES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str, form: str, tmp_path: Path) -> None:
    source, promises = FAULTS[fault]
    checks = audited(build(tmp_path, form, source))
    if form == "WebAssembly" and promises == {"stack"}:
        assert checks["stack"].holds is None
        return
    assert promises <= failed(checks), {w: c.seen for w, c in checks.items()}


def test_what_a_cpu_lacks_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"net\.o calls __muldi3 .* libgcc or compiler-rt"):
        save(tiny_net(), tmp_path, "net", "cortex-m0", emit=["o"])
    checks = audited(tmp_path / "net.o")
    assert failed(checks) == {"outside", "code"}
    assert "__muldi3 of the compiler's own runtime library" in checks["outside"].seen


def test_llvms_tool_reads_what_gnus_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (llvm := [t for t in disassembly.tools("wasm32") if "llvm" in t]):
        pytest.skip("no llvm-objdump")
    save(tiny_net(), tmp_path, "net", "x86-64", emit=["so"])
    seen = audited(tmp_path / "libnet.so")
    monkeypatch.setattr(disassembly, "tools", lambda arch: llvm)
    assert audited(tmp_path / "libnet.so") == seen
    assert failed(seen) == set()


def mutated(content: bytes) -> Iterator[bytes]:
    """Some bytes changed, mostly of the headers."""
    rng = np.random.default_rng(len(content))
    for most in (16, 64, 64, 256, len(content), len(content)) * 4:
        made = np.frombuffer(content, np.uint8).copy()
        made[rng.integers(0, min(most, len(made)), 3)] = rng.choice([0, 1, 127, 128, 255], 3)
        yield made.tobytes()


def test_broken_and_foreign_files_are_refused(tmp_path: Path) -> None:
    save(tiny_net(), tmp_path, "net", "x86-64-v3", emit=["o", "a"])
    for form in TRIPLES:
        content = build(tmp_path, form, PLAIN).read_bytes()
        sizes = (9, 40, 100, len(content) // 2, len(content) - 3)
        for broken in (*(content[:size] for size in sizes), *mutated(content)):
            (tmp_path / "cut.o").write_bytes(broken)
            try:
                read(tmp_path / "cut.o")
            except ToolError as error:
                assert "cut.o" in str(error)  # noqa: PT017 (what is read may also be whole)
    member = (tmp_path / "libnet.a").read_bytes()
    (tmp_path / "two.a").write_bytes(member + member[8:])
    with pytest.raises(ToolError, match=r"two\.a holds 2 objects"):
        audit(tmp_path / "two.a")
    (tmp_path / "none.a").write_bytes(b"!<arch>\n")
    with pytest.raises(ToolError, match="holds 0 objects"):
        audit(tmp_path / "none.a")
    (tmp_path / "text.o").write_text("int main(void) { return 0; }")
    with pytest.raises(ToolError, match=r"libNAME\.so, libNAME\.a and NAME\.o"):
        audit(tmp_path / "text.o")
    linked = struct.pack("<8I", 0xFEEDFACF, 0x01000007, 3, 6, 0, 0, 0, 0)
    (tmp_path / "linked.dylib").write_bytes(linked)
    with pytest.raises(ToolError, match="it is linked"):
        audit(tmp_path / "linked.dylib")


def instruction(text: str) -> Instruction:
    mnemonic, _, rest = text.partition(" ")
    operands = tuple(o.strip() for o in rest.split(";") if o.strip())
    return Instruction(0, mnemonic, operands, 4)


FLOATS = {
    "arm": ("vadd.f32", "vcvt.f64.s32", "vcvt.s32.f32", "vmul.f16", "vfma.f32", "vdiv.f64",
            "vcmp.f32", "vmrs APSR_nzcv;fpscr", "vsqrt.f64"),
    "riscv": ("fadd.s", "fcvt.d.w", "feq.d", "fmadd.d", "vfadd.vv", "vmflt.vf", "vfcvt.x.f.v",
              "csrr a0;fcsr", "fsqrt.s"),
    "wasm32": ("f32.add", "f64x2.mul", "i32.trunc_f64_s", "f32.convert_i32_s", "f32.demote_f64",
               "i32x4.trunc_sat_f32x4_s", "f64.promote_f32", "f32.lt"),
}  # fmt: skip
INTEGERS = {
    "arm": ("vmov.f32", "vldr", "vstr", "vadd.i32", "vmull.s16", "vmlav.s8", "vmsr p0;r0", "ldr",
            "vmovgt.f64", "smlad", "vpush {d8, d9}"),
    "riscv": ("fld", "fsw", "fmv.x.w", "fence", "vfmv.f.s", "vfirst.m", "vadd.vv", "mul",
              "csrr a0;vlenb", "fsgnj.d"),
    "wasm32": ("f32.load", "f64.const", "f32.select", "i32.reinterpret_f32", "i32x4.add",
               "f64x2.extract_lane", "i64.extend_i32_s"),
}  # fmt: skip


@pytest.mark.parametrize("arch", FLOATS)
def test_what_computes_with_floats(arch: str) -> None:
    machine = MACHINES[arch]
    assert [t for t in FLOATS[arch] if not machine.is_float(instruction(t))] == []
    assert [t for t in INTEGERS[arch] if machine.is_float(instruction(t))] == []


def test_arm_goes_where_it_says() -> None:
    kinds = {
        "bl 0x10": "call", "blx r3": "call", "bleq 0x10": "call", "b 0x10": "jump",
        "b.w 0x10": "jump", "b.n 0x10": "jump", "bcs.n 0x10": "branch", "udf.w #0": "stop",
        "bls 0x10": "branch", "ble.w 0x10": "branch", "cbnz r0;0x10": "branch",
        "le lr;0x10": "branch", "bx lr": "return", "bxeq lr": "next", "bx r3": "jump",
        "pop {r4, pc}": "return", "pop.w {r4, lr}": "next", "pophs {r4, pc}": "next",
        "ldr pc;[sp];#4": "return", "mov pc;lr": "return", "mov pc;r3": "jump",
        "tbb [pc, r0]": "jump", "bic r0;r0;#1": "next", "svc #0": "system", "udf #0": "stop",
        ".word 0x0": "bad",
    }  # fmt: skip
    assert {t: MACHINES["arm"].kind(instruction(t)) for t in kinds} == kinds


STACKS = {
    "arm": [("push {r4, r5, r7, lr}", 16), ("add r7;sp;#8", 16), ("sub sp;#0x40", 80),
            ("vpush {d8-d11}", 112), ("sub.w r4;sp;#16", 112), ("bfc r4;#0;#5", 112),
            ("mov sp;r4", 160), ("addhs sp;#76", 160), ("pophs {r4, pc}", 160),
            ("sub.w sp;r7;#8", 16), ("ldr r3;[sp];#4", 12), ("str lr;[sp, #-8]!", 20),
            ("pop {r4, r5, r7, lr}", 4), ("stm.w sp;{r2, r3}", 4), ("ldm sp;{r1, r12}", 4)],
    "riscv": [("addi sp;sp;-64", 64), ("addi s0;sp;64", 64), ("sd ra;56(sp)", 64),
              ("andi sp;sp;-32", 96), ("addi sp;s0;-64", 64), ("mv a0;sp", 64),
              ("addi sp;sp;64", 0), ("add sp;sp;-16", 16)],
}  # fmt: skip
UNKNOWN = {
    "arm": ("sub sp;sp;r3", "mov sp;r3", "subne sp;#8", "pushne {r4}", "ldm sp;{r1, sp}"),
    "riscv": ("sub sp;sp;a0", "mv sp;a0"),
}


@pytest.mark.parametrize("arch", STACKS)
def test_stack_arithmetic(arch: str) -> None:
    machine, frame = MACHINES[arch], Frame()
    for text, depth in STACKS[arch]:
        frame = machine.stack(instruction(text), frame)
        assert frame.depth == depth, text
    for text in UNKNOWN[arch]:
        with pytest.raises(UnknownStack):
            machine.stack(instruction(text), Frame())
