"""t5g2-inspect: what a bundle holds and what it will cost, without loading a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from t5g2.runtime.bundle import PROGRAMS, Bundle, open_bundle
from t5g2.runtime.console import Parser, command


def parser() -> Parser:
    p = Parser("t5g2-inspect", description="Check a bundle and show its config, quantization, sizes, memory and hashes.")
    p.add_argument("bundle", type=Path, help="a folder made by t5g2-export")
    p.add_argument("--json", action="store_true", help="print the manifest with a `memory_estimate` as JSON")
    return p


@command("t5g2-inspect")
def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    bundle = open_bundle(args.bundle)
    if args.json:
        print(json.dumps(bundle.manifest | {"memory_estimate": memory_estimate(bundle)}, indent=2))
    else:
        # A pipe has no width: long lines there, so that nothing is cut.
        Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False).print(_table(bundle))
    return 0


def memory_estimate(bundle: Bundle) -> dict[str, int]:
    """Bytes at the bundle's limits, by purpose.

    `weights` is the size of the programs, which are mapped and used in place; XNNPACK, LiteRT's too, packs its own copy of most
    of them when a method is loaded, so a loaded bundle of those backends holds up to twice as much. `planned` is an upper
    bound that a short source does not touch.
    """
    manifest = bundle.manifest
    memory, files = manifest["memory"], manifest["files"]
    return {
        "weights": sum(files[name]["size"] for name in PROGRAMS[bundle.backend] if name in files),
        "self_cache": memory["self_cache_bytes"],
        "cross_kv": memory["cross_kv_bytes_per_source_token"] * bundle.limits.max_source,
        "planned": sum(memory["planned_bytes"].values()),
    }


def _table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    table = Table(title=f"{bundle.path}: {manifest['model']['name']}", title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for section in (_model_rows, _quantization_rows, _limit_rows, _memory_rows, _file_rows, _provenance_rows):
        for row in section(bundle):
            table.add_row(*row)
        table.add_section()
    return table


def _model_rows(bundle: Bundle):
    config = bundle.manifest["model"]["config"]
    for stack in ("encoder", "decoder"):
        text = config[stack]
        full = sum(kind == "full_attention" for kind in text["layer_types"])
        yield (
            stack,
            f"{text['num_layers']} layers ({full} with full attention), hidden {text['hidden_size']}, "
            f"{text['num_heads']} heads over {text['num_kv_heads']} kv heads of {text['head_dim']}, "
            f"window {text['sliding_window']}",
        )
    yield "vocabulary", f"{config['decoder']['vocab_size']}"
    image = bundle.manifest["image"]
    yield "images", f"{image['side']} x {image['side']}, {config['mm_tokens_per_image']} tokens each" if image else "none"


def _quantization_rows(bundle: Bundle):
    quantization = bundle.manifest["quantization"]
    for part in ("text", "embedding", "vision"):
        if quantization[part]:
            yield f"{part} weights", quantization[part]["name"]
    yield "activations", quantization["activations"]
    yield "K/V cache", quantization["kv_cache"]
    yield "backend", bundle.manifest["backend"]


def _limit_rows(bundle: Bundle):
    limits = bundle.limits
    yield "longest source", f"{limits.max_source} tokens"
    yield "longest target", f"{limits.max_target} tokens"


def _memory_rows(bundle: Bundle):
    names = {
        "weights": "weights, mapped",
        "self_cache": "self cache",
        "cross_kv": "cross K/V, longest source",
        "planned": "work space, upper bound",
    }
    for key, size in memory_estimate(bundle).items():
        yield names[key], _size(size)


def _file_rows(bundle: Bundle):
    programs = bundle.manifest["programs"]
    for name, file in bundle.manifest["files"].items():
        methods = f" ({', '.join(programs[name])})" if name in programs else ""
        yield f"{name}{methods}", f"{_size(file['size'])}, sha256 {file['sha256']}"


def _provenance_rows(bundle: Bundle):
    provenance = bundle.manifest["provenance"]
    for key, value in provenance.items():
        if isinstance(value, dict):
            value = ", ".join(f"{tool} {version}" for tool, version in value.items())
        yield key.replace("_", " "), str(value)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
