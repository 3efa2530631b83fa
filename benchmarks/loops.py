"""The loops of a compiled ARM object file, as llvm-objdump disassembles it."""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
_TARGET = re.compile(r"\b0x([0-9a-f]+) <")


@dataclass(frozen=True)
class Instruction:
    address: int
    mnemonic: str
    operands: str
    target: int | None  # of a branch within the function

    @property
    def text(self) -> str:
        """As an assembler takes it; which place it names makes no difference to its cost."""
        operands = _TARGET.sub("#0 <", self.operands).partition(" <")[0]
        return f"{self.mnemonic} {operands}"

    @property
    def loaded(self) -> int:
        """Vector registers of 128 bits that it loads."""
        if not self.mnemonic.startswith("ld"):
            return 0
        return len(re.findall(r"\bq\d+\b|\bv\d+\.(?:16b|8h|4s|2d)\b", self.operands.partition("[")[0] or self.operands))


Body = tuple[Instruction, ...]


@dataclass(frozen=True)
class Loop:
    """An innermost loop, and the loop around it where that holds no other."""

    function: str
    body: Body
    before: Body | None
    after: Body | None

    def repeated(self, times: int) -> Body | None:
        """An iteration of the loop around it, with so many of its own."""
        return None if self.before is None else (*self.before, *self.body * times, *self.after)


def counts(body: Body) -> Counter:
    """How often each mnemonic occurs; as "q", how many vector registers of 128 bits are loaded."""
    return Counter(i.mnemonic for i in body) + Counter(q=sum(i.loaded for i in body))


def functions(disassembly: str) -> dict[str, list[Instruction]]:
    found, current = {}, []
    for line in disassembly.splitlines():
        if match := _FUNCTION.match(line):
            current = found.setdefault(match[1], [])
        elif match := _INSTRUCTION.match(line):
            branch = _TARGET.search(match[3]) if match[2].startswith(("b", "cb", "tb")) and match[2] != "bl" else None
            operands = match[3].split(" //")[0].strip()
            current.append(Instruction(int(match[1], 16), match[2], operands, int(branch[1], 16) if branch else None))
    return found


def loops(function: str, code: list[Instruction]) -> list[Loop]:
    spans = sorted({(i.target, i.address) for i in code if i.target is not None and i.target <= i.address})
    inside = {span: [s for s in spans if s != span and span[0] <= s[0] and s[1] <= span[1]] for span in spans}

    def between(first: int, last: int) -> Body:
        return tuple(i for i in code if first <= i.address <= last)

    found = []
    for span in (span for span in spans if not inside[span]):
        around = min((s for s in spans if inside[s] == [span]), key=lambda s: s[1] - s[0], default=None)
        before = between(around[0], span[0] - 1) if around else None
        after = between(span[1] + 1, around[1]) if around else None
        found.append(Loop(function, between(*span), before, after))
    return found


def loops_of(disassembler: str, object_file: Path) -> list[Loop]:
    command = [disassembler, "--disassemble", "--demangle", "--no-show-raw-insn", str(object_file)]
    disassembly = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [loop for name, code in functions(disassembly).items() for loop in loops(name, code)]
