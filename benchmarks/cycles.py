"""Static estimates of the ARM kernels' inner loops: `python benchmarks/cycles.py [--objects FOLDER]`.

Nothing runs: llvm-mca schedules the loops of the compiled objects on models of CPUs, with all data in the first cache. It says
what the instructions cost. It knows nothing of memory, and a model is no CPU: see `trust`. Prints tables in Markdown.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loops import Body, Instruction, Loop, counts, loops_of

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = "CMakeFiles/t5g2_kernels.dir/runtime/kernels"
ITERATIONS = 100


@dataclass(frozen=True)
class Wanted:
    """An inner loop, known by how often its body has some instructions."""

    name: str
    products: tuple[str, ...]  # the instructions that multiply
    has: dict[str, int]  # "q": registers of 128 bits that are loaded
    group: int = 0  # iterations that make a group of 32 columns, which share a scale; 0: no groups


LONG = ("smull", "smull2", "smlal", "smlal2")
WANTED = {
    "neon": (
        Wanted("int4, 1 row", LONG, {"smlal": 8, "smlal2": 8, "ushr": 4}, 4),
        Wanted("int8, 1 row", LONG, {"smull": 4, "smlal": 4, "sadalp": 8}, 4),
        Wanted("int4, 4 rows", LONG, {"smlal": 16, "smlal2": 16, "ushr": 2}, 4),
        Wanted("int8, 4 rows", LONG, {"smull": 8, "smlal": 8, "sadalp": 16}, 4),
    ),
    "neon_dotprod": (
        Wanted("int4, 1 row", ("sdot",), {"sdot": 8, "ushr": 4}, 4),
        Wanted("int8, 1 row", ("sdot",), {"sdot": 8, "ushr": 0}, 4),
        Wanted("int4 and int8, 6 rows", ("sdot",), {"sdot": 24, "ushr": 0, "q": 4}, 4),
        Wanted("attention of a step, 4 heads: scores", ("fmla",), {"fmla": 16, "fcvtl": 4, "ld1r": 0}),
        Wanted("attention of a step, 4 heads: values", ("fmla",), {"fmla": 16, "fcvtl": 4, "ld1r": 1}),
    ),
    "neon_i8mm": (Wanted("int4 and int8, 8 rows", ("smmla",), {"smmla": 32}, 2),),
}


def a55_issue(body: Body) -> float:
    """Two instructions a cycle, of which only the older may work on 128 bits; loads take a cycle for each 64 bits, and do not
    pair with loads (Arm's guide EPM128372 4.0, sections 3.2, 3.3 and 4.13 to 4.17)."""
    cycles = position = 0
    while position < len(body):
        older = body[position]
        cycles += max(1, 2 * older.loaded)
        younger = body[position + 1] if position + 1 < len(body) else None
        both_load = younger and all(i.mnemonic.startswith("ld") for i in (older, younger))
        position += 1 if younger is None or is_wide(younger) or both_load else 2
    return cycles


def is_wide(instruction: Instruction) -> bool:
    return bool(instruction.loaded or re.search(r"\.(16b|8h|4s|2d)\b", instruction.operands))


@dataclass(frozen=True)
class Cpu:
    name: str
    model: str  # llvm-mca's -mcpu
    peak: int  # products of 128 bits that start in a cycle
    trust: str
    least: Callable[[Body], float] | None = None  # cycles below which the CPU cannot issue the instructions
    in_order: bool = False


CPUS = {
    "neon": (
        Cpu("Cortex-A53", "cortex-a53", 1, "a model of its own, coarse: it tells few kinds of vector instructions apart",
            in_order=True),
        Cpu("Cortex-A72", "cortex-a72", 1, "LLVM uses its model of Cortex-A57, the predecessor"),
    ),
    "neon_dotprod": (
        Cpu("Cortex-A55", "cortex-a55", 1, "a model of its own, off in both directions: a load of 128 bits takes it one cycle "
            "where Arm's guide says two, and an sdot waits four cycles for the last one's sum where the guide says one",
            a55_issue, in_order=True),
        Cpu("Cortex-A76", "neoverse-n1", 2, "Neoverse N1 is the same core for servers, with a model after Arm's guide; LLVM's "
            "cortex-a76 is Cortex-A57 without dot products. The model issues 8 a cycle where A76 decodes 4",
            lambda body: len(body) / 4),
    ),
    "neon_i8mm": (
        Cpu("Cortex-A510", "cortex-a510", 1, "a model of its own; two cores may share its vector unit", in_order=True),
        Cpu("Cortex-A710", "neoverse-n2", 2, "Neoverse N2 is the same core for servers, with a model after Arm's guide",
            lambda body: len(body) / 5),
    ),
}  # fmt: skip


def assembly(body: Body) -> str:
    return "".join(i.text + "\n" for i in body)


@dataclass(frozen=True)
class Estimate:
    cycles: float  # of one iteration
    bound: str


def schedule(mca: str, cpu: Cpu, body: Body) -> Estimate:
    """llvm-mca's cycles of an iteration of `body` among many, and what keeps it from fewer."""
    command = [mca, "--mtriple=aarch64", f"--mcpu={cpu.model}", "--mattr=+dotprod,+i8mm", f"--iterations={ITERATIONS}"]
    command += [] if cpu.in_order else ["--bottleneck-analysis"]
    done = subprocess.run(command, input=assembly(body), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{mca} does not take the loop: {done.stderr.strip()}")
    cycles = int(re.search(r"Total Cycles: +(\d+)", done.stdout)[1]) / ITERATIONS
    units = busy(done.stdout, cycles)
    most = max(units.values())
    full = sorted(name for name, share in units.items() if share > 0.9)
    reasons = [f"{', '.join(full)} busy"] if full else [f"waits: no unit is busy for more than {percent(most)}"]
    if waits := re.search(r"Data Dependencies: +\[ ([\d.]+)% \]", done.stdout):
        reasons += [f"dependences in {percent(float(waits[1]) / 100)} of the cycles"] if float(waits[1]) > 5 else []
    return Estimate(cycles, ", ".join(reasons))


def busy(report: str, cycles: float) -> dict[str, float]:
    """Units of the CPU, and in which share of the cycles they are busy."""
    names = dict(re.findall(r"^(\[[\d.]+\]) +- \w*?Unit(\w+)$", report, re.M))
    heads, row = re.search(r"Resource pressure per iteration:\n(.*)\n(.*)\n", report).groups()
    found = {}
    for head, value in zip(heads.split(), row.split()):
        share = 0 if value == "-" else float(value) / cycles
        found[names[head]] = max(share, found.get(names[head], 0))  # several units may have one name
    return found


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Row:
    """A loop on a CPU."""

    kernels: str
    wanted: Wanted
    cpu: Cpu
    loop: Loop
    once: Estimate
    group: Estimate | None

    @property
    def products(self) -> int:
        found = counts(self.loop.body)
        return sum(found[name] for name in self.wanted.products)

    def share(self, cycles: float) -> str:
        return percent(self.products / cycles / self.cpu.peak)

    def cells(self) -> list[str]:
        least = max(self.cpu.least(self.loop.body), self.products / self.cpu.peak) if self.cpu.least else None
        least_cell = f"{least:.0f} ({self.share(least)})" if least else ""
        group = ""
        if self.group:
            group = f"{self.group.cycles:.0f} ({self.share(self.group.cycles / self.wanted.group)})"
        once = f"{self.once.cycles:.1f} ({self.share(self.once.cycles)})"
        bound = self.once.bound if not least or least < self.once.cycles else "issue"
        size, stores = len(self.loop.body), sum(i.mnemonic.startswith("st") for i in self.loop.body)
        name = f"{self.wanted.name}{f' ({stores} stores)' if stores else ''}"
        return [self.kernels, name, self.cpu.name, str(size), str(self.products), once, least_cell, group, bound]


def find(wanted: Wanted, loops: list[Loop]) -> Loop | None:
    return next((loop for loop in loops if all(counts(loop.body)[name] == n for name, n in wanted.has.items())), None)


def rows(mca: str, objdump: str, objects: Path) -> list[Row]:
    found = []
    for kernels, loops_wanted in WANTED.items():
        loops = loops_of(objdump, objects / f"isa_{kernels}.cpp.o")
        for wanted in loops_wanted:
            loop = find(wanted, loops)
            if not loop:
                sys.exit(f"{kernels}: no loop for {wanted.name}, with {wanted.has}; did the kernel or the compiler change?")
            group = loop.repeated(wanted.group) if wanted.group else None
            for cpu in CPUS[kernels]:
                estimate = schedule(mca, cpu, loop.body)
                found.append(Row(kernels, wanted, cpu, loop, estimate, schedule(mca, cpu, group) if group else None))
    return found


HEADINGS = ["kernels", "loop", "CPU", "instructions", "products", "cycles, llvm-mca (share of peak)", "at least, issue",
            "a group of 32, llvm-mca", "bound by"]  # fmt: skip


def table(found: list[Row]) -> str:
    lines = [HEADINGS, ["---"] * 3 + ["--:"] * 5 + ["---"], *(row.cells() for row in found)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def models() -> str:
    lines = []
    for cpu in (cpu for cpus in CPUS.values() for cpu in cpus):
        lines.append(f"- {cpu.name}: `-mcpu={cpu.model}`, peak {cpu.peak} a cycle. {cpu.trust[0].upper()}{cpu.trust[1:]}.")
    return "\n".join(lines)


def tool(name: str) -> str | None:
    """LLVM 17 has the models; Debian 12's unnumbered tools are of LLVM 14."""
    found = [shutil.which(f"{name}{suffix}") for suffix in ("", *(f"-{n}" for n in range(23, 16, -1)))]
    return next((path for path in found if path and int(re.search(r"version (\d+)", version(path))[1]) >= 17), None)


def tools() -> tuple[str, str] | None:
    found = tool("llvm-mca"), tool("llvm-objdump")
    return found if all(found) else None


def built_objects() -> Path:
    """The aarch64 objects, built as the tests build theirs."""
    sys.path.append(str(ROOT / "tests"))
    from native_programs import arm_executorch, own_program

    return own_program("t5g2_kernels", "aarch64", arm_executorch()).parent / OBJECTS


def version(program: str) -> str:
    lines = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()
    return next((line.strip() for line in lines if "version" in line), lines[0])


def compiler_of(object_file: Path) -> str:
    comment = re.search(rb"(GCC: [^\0]+|[^\0]*clang version [^\0]+)\0", object_file.read_bytes())
    return comment[1].decode() if comment else "an unknown compiler"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--objects", type=Path, help="where isa_neon*.cpp.o lie (default: built here, by aarch64-linux-gnu-g++)")
    args = p.parse_args()
    found = tools()
    if not found:
        sys.exit("llvm-mca and llvm-objdump of LLVM 17 or newer are missing; on Debian, apt install llvm-19")
    objects = args.objects or built_objects()
    print(f"{version(found[0])}; objects by {compiler_of(objects / 'isa_neon.cpp.o')}\n\n{models()}\n")
    print(table(rows(*found, objects)))


if __name__ == "__main__":
    main()
