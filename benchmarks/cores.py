"""A device's cores: which of them are the big ones."""

from __future__ import annotations

import re
from typing import NamedTuple

# Most ARM kernels know how fast a core is beside the fastest, which has 1024, and nearly all its highest frequency.
BIG_CAPACITY, BIG_FREQUENCY = 0.5, 0.8  # of the highest

# One line for each core: number, capacity, frequency in kHz, a dash for what it does not tell. Then those we may run on.
CORES_SCRIPT = """cd ${T5G2_SYSFS:-/sys}/devices/system/cpu && for core in cpu[0-9]*; do
    capacity=$(cat $core/cpu_capacity 2> /dev/null) || capacity=-
    khz=$(cat $core/cpufreq/cpuinfo_max_freq 2> /dev/null) || khz=-
    echo "core ${core#cpu} $capacity $khz"
done
echo "online $(cat online 2> /dev/null)"
grep Cpus_allowed_list: /proc/self/status"""


class Core(NamedTuple):
    number: int
    capacity: int | None
    khz: int | None


def parse_cores(output: str) -> list[Core]:
    """What CORES_SCRIPT printed, by number."""
    found = re.findall(r"^core (\d+) (\d+|-) (\d+|-)$", output, re.MULTILINE)
    cores = sorted(Core(int(n), *(None if value == "-" else int(value) for value in rest)) for n, *rest in found)
    for allowed in re.findall(r"^(?:online|Cpus_allowed_list:)\s+([\d,-]+)$", output, re.MULTILINE):
        cores = [core for core in cores if core.number in numbers(allowed)]
    return cores


def big_cores(cores: list[Core]) -> list[int]:
    """The numbers of the cores that are at least half as fast as the fastest; none where the system does not tell.

    By capacity, which counts what a core does in a cycle; else by frequency alone, where a small core may come closer.
    """
    for field, share in (("capacity", BIG_CAPACITY), ("khz", BIG_FREQUENCY)):
        values = [getattr(core, field) for core in cores]
        if cores and None not in values:
            return [core.number for core, value in zip(cores, values) if value >= share * max(values)]
    return []


def numbers(text: str) -> set[int]:
    """Of a list such as 0-3,7."""
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def ranges(cores: list[int]) -> str:
    """The list again, as short as it can be."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
