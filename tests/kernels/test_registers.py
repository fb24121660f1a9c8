"""The loops that take nearly all of a join's time keep their sums in vector registers: read from the instructions.

GCC 12 stores sums in every step of a loop when they are in arrays or are used beyond it, at half the speed and without
a word. The files are compiled here, as ``csrc/CMakeLists.txt`` says, since the built module has no names of functions.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
FAMILY = REPOSITORY / "csrc/kernels/fused_similarity"
COMPILER = shutil.which((sysconfig.get_config_var("CXX") or "c++").split()[0]) or shutil.which("c++")
DISASSEMBLER = shutil.which("objdump")

pytestmark = pytest.mark.skipif(
    COMPILER is None or DISASSEMBLER is None or not FAMILY.is_dir(),
    reason="needs the C++ sources, a C++ compiler and objdump",
)


class Instruction(NamedTuple):
    address: int
    name: str
    operands: list[str]  # the destination last

    @property
    def jump_target(self) -> int | None:
        if not self.name.startswith("j") or not self.operands:
            return None
        return int(self.operands[0].split()[0], 16)

    def stores_vector(self) -> bool:
        return bool(self.operands) and "(" in self.operands[-1] and any("mm" in name for name in self.operands[:-1])

    def reads_stack(self) -> bool:
        return any(re.search(r"\(%r[sb]p", operand) for operand in self.operands)


def isa_flags(isa: str) -> list[str]:
    """What ``csrc/CMakeLists.txt`` compiles files of the instruction set with."""
    text = (REPOSITORY / "csrc/CMakeLists.txt").read_text()
    found = re.search(rf"set\(ISA_FLAGS_{isa} ([^)]*)\)", text)
    assert found is not None, isa
    flags: list[str] = []
    for flag in found[1].split():
        nested = re.fullmatch(r"\$\{ISA_FLAGS_(\w+)\}", flag)
        flags += isa_flags(nested[1]) if nested else [flag]
    return flags


@cache
def functions(isa: str, folder: Path) -> dict[str, list[Instruction]]:
    """The instructions of each function of ``fused_similarity_<isa>.cpp``."""
    assert COMPILER is not None
    assert DISASSEMBLER is not None
    source, out = FAMILY / f"fused_similarity_{isa}.cpp", folder / f"{isa}.o"
    flags = ["-O3", "-DNDEBUG", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
    command = [COMPILER, *flags, "-fno-trapping-math", *isa_flags(isa), f"-I{REPOSITORY / 'csrc'}", "-w", "-c"]
    compiled = subprocess.run([*command, str(source), "-o", str(out)], capture_output=True, text=True)
    if re.search("unrecognized|unknown argument|unsupported option", compiled.stderr):
        pytest.skip(f"the compiler does not know {isa}")
    assert compiled.returncode == 0, compiled.stderr
    disassembled = subprocess.run(
        [DISASSEMBLER, "-d", "-C", "--no-show-raw-insn", "-M", "att", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    return parsed(disassembled.stdout)


def parsed(listing: str) -> dict[str, list[Instruction]]:
    result: dict[str, list[Instruction]] = {}
    for line in listing.splitlines():
        if heading := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            result[heading[1]] = []
        elif found := re.match(r" *([0-9a-f]+):\t(?:\{vex\} )?(\S+) *([^#<]*)", line):
            operands = [part.strip() for part in re.split(r",(?![^(]*\))", found[3]) if part.strip()]
            result[next(reversed(result))].append(Instruction(int(found[1], 16), found[2], operands))
    return result


def inner_loops(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The loops that hold no other: from the target of a jump backwards to the jump."""
    spans = [(i.jump_target, i.address) for i in instructions if i.jump_target is not None]
    spans = [(begin, end) for begin, end in spans if instructions[0].address <= begin <= end]
    innermost = [
        (begin, end)
        for begin, end in spans
        if not any((begin, end) != other and begin <= other[0] and other[1] <= end for other in spans)
    ]
    return [[i for i in instructions if begin <= i.address <= end] for begin, end in innermost]


def check_registers(instructions: list[Instruction], product: str, least: int) -> None:
    """Of the loops with ``product``, of which there must be one, and in each at least ``least`` of it."""
    loops = [loop for loop in inner_loops(instructions) if any(i.name.startswith(product) for i in loop)]
    assert loops, f"no loop with {product}"
    for loop in loops:
        assert sum(i.name.startswith(product) for i in loop) >= least
        spilled = [f"{i.address:x}: {i.name} {','.join(i.operands)}" for i in loop if i.stores_vector()]
        spilled += [f"{i.address:x}: {i.name} {','.join(i.operands)}" for i in loop if i.reads_stack()]
        assert not spilled, "sums leave their registers: " + "; ".join(spilled)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.mark.parametrize(
    ("isa", "function", "product", "least"),
    [
        ("avx2", "screen<", "vpmaddubsw", 8),
        ("avxvnni", "screen<", "vpdpbusd", 8),
        ("avx512", "screen<", "vpmaddubsw", 24),
        ("avx512vnni", "screen<", "vpdpbusd", 24),
        ("avx2", "canonical_", "vfmadd", 12),
        ("avx512", "canonical_", "vfmadd", 24),
    ],
)
def test_sums_stay_in_registers(isa: str, function: str, product: str, least: int, folder: Path) -> None:
    """``function`` is a part of names: what is inlined into what is the compiler's choice."""
    with_product = [
        instructions
        for name, instructions in functions(isa, folder).items()
        if function in name and any(i.name.startswith(product) for i in instructions)
    ]
    assert with_product
    for instructions in with_product:
        check_registers(instructions, product, least)


LOOP = """
0000000000000100 <f(int)>:
 100:	xor    %ecx,%ecx
 108:	vmovdqa (%r14),%ymm0
 13d:	{vex} vpdpbusd %ymm0,%ymm2,%ymm3
 147:	{vex} vpdpbusd -0xa0(%r14),%ymm1,%ymm15
 1b7:	jne    108 <f(int)+0x8>
 1bd:	vmovdqa %ymm3,-0x20(%rsp)
 1c5:	ret
"""


@pytest.mark.parametrize(
    "spilled",
    [
        " 177:	vmovdqa %ymm3,-0x20(%rsp)",
        " 177:	vmovdqu %ymm3,0x20(%rdi,%rax,4)",
        " 177:	vpaddd 0x8(%rbp),%ymm3,%ymm3",
    ],
)
def test_a_spilled_sum_is_seen(spilled: str) -> None:
    """And what is stored behind the loop is none."""
    check_registers(parsed(LOOP)["f(int)"], "vpdpbusd", 2)
    lines = LOOP.splitlines()
    lines.insert(lines.index(" 1b7:	jne    108 <f(int)+0x8>"), spilled)
    with pytest.raises(AssertionError, match="sums leave their registers: 177"):
        check_registers(parsed("\n".join(lines))["f(int)"], "vpdpbusd", 2)
