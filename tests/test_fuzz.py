"""Short runs of the fuzz targets (tests/native/fuzz_*.cpp) under the address and undefined behaviour sanitizers.

For long ones, with clang: cmake --preset fuzz, and build/fuzz/tests/native/fuzz_<name> SEEDS -max_total_time=600.
"""

import hashlib
import os
import struct

import pytest
from native_programs import ENVIRONMENT, program, run
from PIL import Image

from t5g2.export.tokenizer_file import write_tokenizer
from t5g2.nano import CHECKPOINT_DIR
from t5g2.runtime.bundle import write_manifest


def bundle_seeds(folder, nano_bundle):
    """Manifests of nano, naming the files that the target makes; the first byte chooses what is checked."""
    import json

    (folder / "text.pte").write_text("text program")
    (folder / "tokenizer.bin").write_text("tokenizer")
    manifest = json.loads((nano_bundle("int4") / "manifest.json").read_text())
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")})
    text = (folder / "manifest.json").read_bytes()
    return [bytes([first]) + text for first in range(4)]


def session_seeds(folder, nano_bundle):
    """Sources of a few tokens for the manifest of the target: 32 bytes of cross K/V and 4 states a token."""
    seeds = []
    for tokens in (1, 3, 50):
        header = b"t5g2-src" + struct.pack("<II", 1, 0) + b"\xaa" * 32 + struct.pack("<QQQ", tokens, 32 * tokens, 4)
        content = header + bytes(tokens * (4 + 32 + 16))
        seeds += [bytes([first]) + content + hashlib.sha256(content).digest() for first in (0, 1)]
    return seeds


def image_seeds(folder, nano_bundle):
    """Picture files behind the target's six bytes of settings."""
    seeds = []
    for mode in ("RGB", "L", "P", "RGBA", "CMYK"):
        image = Image.effect_noise((23, 17), 60).convert(mode)
        for kind in ("PNG", "JPEG"):
            if (kind, mode) not in (("PNG", "CMYK"), ("JPEG", "P"), ("JPEG", "RGBA")):
                image.save(folder / "seed", kind)
                seeds += [bytes([9, 7, 40, 1, mended, 13]) + (folder / "seed").read_bytes() for mended in (0, 1)]
    return seeds


def tokenizer_seeds(folder, nano_bundle):
    text = "In digits: four\n\n<bos> naïve ▁🙂 \x00 stop".encode()
    return [bytes([first]) + text for first in range(4)] + [b"\x04" + (nano_bundle("int4") / "tokenizer.bin").read_bytes()]


SEEDS = {"bundle": bundle_seeds, "images": image_seeds, "session": session_seeds, "tokenizer": tokenizer_seeds}


@pytest.mark.parametrize("name", SEEDS)
def test_fuzz(name, nano_bundle, tmp_path):
    write_tokenizer(CHECKPOINT_DIR / "tokenizer.json", tmp_path / "nano.bin")
    files = []
    for index, content in enumerate(SEEDS[name](tmp_path, nano_bundle)):
        files.append(tmp_path / f"seed-{index}")
        files[-1].write_bytes(content)
    environment = ENVIRONMENT | {"T5G2_FUZZ_TOKENIZER": str(tmp_path / "nano.bin"), "TMPDIR": str(tmp_path)}
    runs = os.environ.get("T5G2_FUZZ_RUNS", "1000")
    done = run(program(f"fuzz_{name}", "asan"), "--runs", runs, *files, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]
    assert done.stdout == f"{int(runs) + len(files)} runs\n"
