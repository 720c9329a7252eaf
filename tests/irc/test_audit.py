"""The audit passes what irc compiles, and sees every planted fault."""

import shutil
import subprocess
from pathlib import Path

import pytest
from llvmlite import binding

import irc
from irc import driver
from irc.audit import Check, audit
from irc.audit.arm64 import Arm64
from irc.audit.machine import Frame, Instruction, UnknownStack
from irc.audit.x86 import X86
from irc.errors import ToolError

PROMISES = {
    "manifest": "carries its manifest",
    "exports": "exports its interface and no more",
    "undefined": "needs nothing from outside",
    "data": "has no writable data",
    "integer": "computes without floating point",
    "control": "never leaves its own code",
    "stack": "uses a bounded stack",
    "self test": "passes its self test",
}
SOUND = """
#include <stdint.h>
#define API __attribute__((visibility("default")))
API const char *net_manifest(void) {
    return "{\\n \\"format\\": 1, \\"name\\": \\"net\\", \\"workspace_bytes\\": 64}";
}
API int net_self_test(void *w) { return !w; }
static __attribute__((noinline)) int kernel(const uint8_t *x, int n) {
    int a = 0;
    for (int i = 0; i < n; i++) a += x[i] * 3;
    return a;
}
"""
RUN = "API int net_run(const uint8_t *x, int8_t *y, void *w) { %s }\n"
PLAIN = RUN % "*y = (int8_t)kernel(x, 100); return !w;"
FLAGS = ["-shared", "-nostdlib", "-fPIC", "-O1", "-fvisibility=hidden", "-fno-builtin",
         "-fno-stack-protector", "-fcf-protection=none", "-Wl,-z,now"]  # fmt: skip


def build(folder: Path, source: str, *options: str, name: str = "libnet.so") -> Path:
    (folder / "net.c").write_text(SOUND + source)
    command = ["cc", *FLAGS, *options, str(folder / "net.c"), "-o", str(folder / name)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / name


def failed(checks: list[Check]) -> set[str]:
    of = {promise: key for key, promise in PROMISES.items()}
    return {of[c.promise] for c in checks if c.holds is False}


def test_a_compiled_library_keeps_every_promise(tmp_path: Path) -> None:
    text = "graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}"
    irc.compile(irc.parse(text)).save(tmp_path, name="net")
    assert [c for c in audit(tmp_path / "libnet.so") if not c.holds] == []


def test_only_a_library_of_several_levels_may_keep_a_word(tmp_path: Path) -> None:
    text = "graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}"
    irc.compile(irc.parse(text), target="x86-64").save(tmp_path, name="net")
    (data,) = [c for c in audit(tmp_path / "libnet.so") if c.promise == PROMISES["data"]]
    assert (data.holds, "one word" in data.seen) == (True, True)


def test_a_sound_library_in_c_passes(tmp_path: Path) -> None:
    assert failed(audit(build(tmp_path, PLAIN))) == set()


FAULTS = {
    "float arithmetic": (
        RUN % "*y = (int8_t)((float)x[0] * 1.5f); return !w;",
        "integer",
    ),
    "float behind a call": (
        "static __attribute__((noinline)) int half(int v) { return (int)(v * 0.5); }\n"
        + RUN % "*y = (int8_t)half(x[0]); return !w;",
        "integer",
    ),
    "float behind another entry": (
        PLAIN + "API int net_run_parallel(void *w, double *d) { *d = *d / 3; return !w; }\n",
        "integer",
    ),
    "undefined symbol": (
        "extern int outside(int);\n" + RUN % "return outside(x[0]) + *y + !w;",
        "undefined",
    ),
    "writable data": (
        "static volatile int counter = 7;\n" + RUN % "counter++; *y = (int8_t)x[0]; return !w;",
        "data",
    ),
    "zeroed data": (
        "static volatile int counter;\n" + RUN % "counter++; *y = (int8_t)x[0]; return !w;",
        "data",
    ),
    "data that needs relocation": (
        "static const char *const words[] = {\"a\", \"b\"};\n"
        "API int net_run(const uint8_t *x, const char **y) { *y = words[x[0] & 1]; return 0; }\n",
        "data",
    ),
    "alloca": (
        RUN % "volatile char *p = __builtin_alloca(x[0]); p[0] = 1; *y = p[0]; return !w;",
        "stack",
    ),
    "recursion": (
        "static __attribute__((noinline)) int again(volatile int *v)"
        " { return --*v > 0 ? again(v) + *v : 1; }\n"
        + RUN % "volatile int v = x[0]; *y = (int8_t)again(&v); return !w;",
        "stack",
    ),
    "extra export": (
        PLAIN + "API int net_secret(void) { return 1; }\n",
        "exports",
    ),
    "indirect call": (
        "API int net_run(int (*f)(int), int x) { return f(x) + 1; }\n",
        "control",
    ),
    "system call": (
        RUN % '__asm__ volatile("syscall" ::: "memory"); *y = (int8_t)x[0]; return !w;',
        "control",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    source, promise = FAULTS[fault]
    assert promise in failed(audit(build(tmp_path, source)))


def test_the_float_edge_may_compute_with_floats(tmp_path: Path) -> None:
    edge = "API int net_run_f32(float *x, float *y) { *y = *x * 2.5f; return 0; }\n"
    assert failed(audit(build(tmp_path, PLAIN + edge))) == set()


def test_a_missing_manifest_and_a_failing_self_test_are_seen(tmp_path: Path) -> None:
    source = (SOUND + PLAIN).replace('\\"format\\"', '\\"sort\\"').replace("return !w; }\nstatic",
                                                                      "return w != 0; }\nstatic")
    (tmp_path / "net.c").write_text(source)
    subprocess.run(["cc", *FLAGS, str(tmp_path / "net.c"), "-o", str(tmp_path / "libnet.so")],
                   check=True)  # fmt: skip
    assert {"manifest", "self test"} <= failed(audit(tmp_path / "libnet.so"))


def test_a_crashing_self_test_is_a_finding(tmp_path: Path) -> None:
    crash = SOUND.replace("return !w; }\nstatic", "__builtin_trap(); }\nstatic")
    (tmp_path / "net.c").write_text(crash + PLAIN)
    subprocess.run(["cc", *FLAGS, str(tmp_path / "net.c"), "-o", str(tmp_path / "libnet.so")],
                   check=True)  # fmt: skip
    (check,) = [c for c in audit(tmp_path / "libnet.so") if c.promise == PROMISES["self test"]]
    assert check.holds is False
    assert "signal" in check.seen


@pytest.mark.skipif(not driver.host_target().is_x86, reason="runs code for x86-64")
def test_code_for_another_cpu_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}"
    irc.compile(irc.parse(text), target="x86-64-v3").save(tmp_path, name="net", emit=["so"])
    monkeypatch.setattr(binding, "get_host_cpu_features", dict)
    checks = audit(tmp_path / "libnet.so")
    (check,) = [c for c in checks if c.promise == PROMISES["self test"]]
    assert check.holds is None
    assert "avx2" in check.seen


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "a.so", b"not ELF"), (tmp_path / "b.so", b"\x7fELF\2\1\1")):
        path.write_bytes(content)
        with pytest.raises(ToolError, match=path.name):
            audit(path)
    with pytest.raises(ToolError, match="no library"):
        audit(tmp_path / "absent.so")
    with pytest.raises(ToolError, match="exports no NAME_run"):
        audit(build(tmp_path, "", name="libother.so"))


def test_realigned_frames_are_followed(tmp_path: Path) -> None:
    source = (
        "static __attribute__((noinline)) void fill(char *p) { for (int i = 0; i < 64; i++)"
        " p[i] = (char)i; }\n"
        + RUN % "_Alignas(64) char p[64]; fill(p); *y = p[x[0] & 63]; return !w;"
    )
    checks = audit(build(tmp_path, source, "-fno-omit-frame-pointer"))
    assert failed(checks) == set()


def instruction(text: str) -> Instruction:
    mnemonic, _, rest = text.partition(" ")
    return Instruction(0, mnemonic, tuple(o.strip() for o in rest.split(",") if o.strip()), 4)


X86_FLOAT = [
    "addss", "addsd", "addps", "vaddpd", "mulps", "vfmadd231ps", "divsd", "sqrtss", "cvtsi2sd",
    "vcvtdq2ps", "vcvttps2dq", "cmpltps", "ucomiss", "vcomisd", "minps", "vmaxsd", "roundsd",
    "vrndscaleps", "fld", "fstp", "fadd", "fild", "haddps", "dpps", "vdpbf16ps", "vaddph",
    "vmulsh", "rcpps", "vrsqrt14ps", "pfadd", "pi2fd", "ldmxcsr", "vrangeps", "vreducesd",
    "vscalefpd",
]  # fmt: skip
X86_INTEGER = [
    "movss", "movsd", "movaps", "vmovups", "movhps", "vmovlps", "vbroadcastss", "vbroadcastsd",
    "vshufps", "vxorps", "andps", "vandnpd", "orps", "vblendps", "vblendvps", "vunpcklps",
    "unpckhpd", "vinsertps", "vextractps", "vinsertf128", "vextractf128", "vinsertf32x4",
    "vpermps", "vpermilps", "vperm2f128", "vmovmskps", "vmovd", "vmovq", "vmovdqu64", "vpaddd",
    "pabsd", "vpabsd", "vpdpbusd", "vpdpbusds", "vpdpwssd", "vpmaxsd", "pminsd", "vpcompressd",
    "packusdw", "tdpbusd", "tdpbssd", "movsxd", "cdq", "imul", "push", "clflush", "prefetcht0",
    "add", "sub", "vzeroupper", "vgatherdps", "vmaskmovps", "vpmaddubsw", "movabs", "bsf",
]  # fmt: skip
ARM64_FLOAT = [
    "fadd", "fmul", "fcvtzs", "scvtf", "ucvtf", "fcmp", "fmadd", "bfdot", "fmla",
]  # fmt: skip
ARM64_INTEGER = [
    "fmov", "bfi", "bfxil", "sdot", "mla", "ldr", "dup", "smull", "bfc",
]  # fmt: skip


@pytest.mark.parametrize("mnemonic", X86_FLOAT)
def test_x86_computes_with_floats(mnemonic: str) -> None:
    assert X86().is_float(instruction(mnemonic))


@pytest.mark.parametrize("mnemonic", X86_INTEGER)
def test_x86_only_moves_or_computes_integers(mnemonic: str) -> None:
    assert not X86().is_float(instruction(mnemonic))


@pytest.mark.parametrize("mnemonic", ARM64_FLOAT)
def test_arm64_computes_with_floats(mnemonic: str) -> None:
    assert Arm64().is_float(instruction(mnemonic))


@pytest.mark.parametrize("mnemonic", ARM64_INTEGER)
def test_arm64_only_moves_or_computes_integers(mnemonic: str) -> None:
    assert not Arm64().is_float(instruction(mnemonic))


def test_x86_stack_arithmetic() -> None:
    machine, frame = X86(), Frame()
    for text, depth in [
        ("push rbp", 8), ("mov rbp,rsp", 8), ("sub rsp,0x40", 72),
        ("and rsp,0xffffffffffffffc0", 136), ("lea rsp,[rbp-0x8]", 16), ("add rsp,0x8", 8),
        ("pop rbp", 0), ("sub rsp,0x60", 96), ("lea rbp,[rsp+0x20]", 96),
        ("and rsp,0xffffffffffffffe0", 128), ("mov rsp,rbp", 64), ("lea rsp,[rbp+0x40]", 0),
    ]:  # fmt: skip
        frame = machine.stack(instruction(text), frame)
        assert frame.depth == depth, text
    for text in ("sub rsp,rax", "mov rsp,rax", "lea rsp,[rbp-0x8]", "leave", "xchg rax,rsp"):
        with pytest.raises(UnknownStack):
            machine.stack(instruction(text), Frame())


def test_arm64_stack_arithmetic() -> None:
    machine, frame = Arm64(), Frame()
    for mnemonic, operands, depth in [
        ("stp", ("x29", "x30", "[sp, #-32]!"), 32), ("mov", ("x29", "sp"), 32),
        ("sub", ("sp", "sp", "#0x10"), 48), ("sub", ("x9", "sp", "#0x40"), 48),
        ("and", ("sp", "x9", "#0xffffffffffffffc0"), 176), ("mov", ("sp", "x29"), 32),
        ("ldp", ("x29", "x30", "[sp], #32"), 0),
    ]:  # fmt: skip
        frame = machine.stack(Instruction(0, mnemonic, operands, 4), frame)
        assert frame.depth == depth, mnemonic
    with pytest.raises(UnknownStack):
        machine.stack(Instruction(0, "sub", ("sp", "sp", "x0"), 4), Frame())


def test_foreign_code_is_audited_or_refused_clearly(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    model = irc.compile(irc.parse("graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}"),
                        target="aarch64")  # fmt: skip
    model.save(tmp_path, name="net")
    if shutil.which("aarch64-linux-gnu-objdump") is None:
        with pytest.raises(ToolError, match=r"disassemble|no objdump"):
            audit(tmp_path / "libnet.so")
        return
    assert failed(audit(tmp_path / "libnet.so")) == set()

