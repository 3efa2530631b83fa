"""Sets up the peers in an environment of their own: FOLDER/venv, FOLDER/llama.cpp, and FOLDER/peers.json, which says for
each peer "ok" or why it could not be set up. About 4 GB and 15 minutes on two cores from nothing.

    python benchmarks/peers/setup_peers.py [--env FOLDER] [--only NAME ...]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_ENV = Path.home() / ".cache" / "t5g2-peers"
LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"  # its source archive holds llama.cpp
TORCH = "torch==2.13.0"  # the CPU build is enough; take it where your index has both
TRANSFORMERS = "transformers==5.23.0"
LLAMA_CPP_PACKAGES = ["numpy", "gguf==0.19.0", "cmake>=3.28", "ninja", "scikit-build-core"]
PACKAGES = {
    "llama.cpp": LLAMA_CPP_PACKAGES,
    "llama.cpp-t5": LLAMA_CPP_PACKAGES,
    "onnxruntime": [TORCH, "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.31.1"],
    "litert": [
        TORCH,
        "litert-torch==0.10.0",
        "ai-edge-litert==2.3.0",
        "ai-edge-quantizer==0.10.0",
        "litert-converter==0.5.0",
    ],
    "openvino": [TORCH, "openvino==2026.4.1", "nncf==3.4.0"],
    "ctranslate2": [TORCH, TRANSFORMERS, "ctranslate2==4.8.5"],
    "transformers": [TORCH, TRANSFORMERS],
}
CLANG_VERSIONS = (19, 18, 17, 16)  # gcc 12's build reaches about half the speed


def run(command: list, log: Path, **options) -> None:
    """Runs a command with its output in `log`; RuntimeError with the log's end if it fails."""
    with open(log, "a") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, **options).returncode
    if status:
        end = " | ".join(log.read_text().strip().splitlines()[-3:])
        raise RuntimeError(f"{Path(command[0]).name} failed ({log}): {end[-400:]}")


def find_clang(log: Path) -> int:
    """The newest clang from 16 on; as root on Debian, installed if there is none."""
    for attempt in ("look", "install"):
        for version in CLANG_VERSIONS:
            if shutil.which(f"clang++-{version}"):
                return version
        if attempt == "look" and os.geteuid() == 0 and shutil.which("apt-get"):
            newest = CLANG_VERSIONS[0]
            run(["apt-get", "install", "-y", f"clang-{newest}", f"libomp-{newest}-dev"], log)
    raise RuntimeError("needs clang 16 or newer: apt-get install clang-19 libomp-19-dev")


def build_llama_cpp(env: Path, log: Path) -> None:
    """Builds llama-bench and llama-t5 for this CPU: GGML_NATIVE takes what the CPU has, AMX included."""
    clang = find_clang(log)
    bin_dir, sources, build = env / "venv/bin", env / "src", env / "llama.cpp"
    if not list(sources.glob("*.tar.gz")):
        download = ["pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", LLAMA_CPP_PYTHON]
        run([bin_dir / "python", "-m", *download, "-d", sources], log)
    (archive,) = sources.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(sources, filter="data")
    (tree,) = sources.glob("llama_cpp_python-*/vendor/llama.cpp")
    flags = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_C_COMPILER": f"clang-{clang}",
        "CMAKE_CXX_COMPILER": f"clang++-{clang}",
        "CMAKE_C_FLAGS": "-w",
        "CMAKE_CXX_FLAGS": "-w",
        "GGML_NATIVE": "ON",
        "BUILD_SHARED_LIBS": "OFF",
        "LLAMA_OPENSSL": "OFF",
        **{f"LLAMA_BUILD_{part}": "OFF" for part in ("TESTS", "EXAMPLES", "SERVER", "APP")},
    }
    options = [f"-D{name}={value}" for name, value in flags.items()]
    path = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    run([bin_dir / "cmake", "-S", tree, "-B", build, "-G", "Ninja", *options], log, env=path)
    run([bin_dir / "cmake", "--build", build, "--target", "llama-bench", "-j", "2"], log, env=path)
    build_llama_t5(tree, build, f"clang++-{clang}", log)
    (build / "version.txt").write_text(f"{archive.name.removesuffix('.tar.gz')}, clang {clang}\n")
    shutil.rmtree(tree.parent.parent)


def build_llama_t5(tree: Path, build: Path, compiler: str, log: Path) -> None:
    """Our program for encoder-decoder models, against the headers in `tree` and the libraries that llama-bench is made of."""
    libraries = ["src/libllama.a", *(f"ggml/src/lib{name}.a" for name in ("ggml", "ggml-cpu", "ggml-base"))]
    command = [compiler, "-std=c++17", "-O2", HERE / "llama_t5.cpp", "-I", tree / "include", "-I", tree / "ggml/include"]
    command += [*(build / library for library in libraries), "-fopenmp", "-ldl", "-lpthread", "-o", build / "bin/llama-t5"]
    run(command, log)


def has_llama_cpp(env: Path) -> bool:
    return all((env / "llama.cpp" / name).exists() for name in ("bin/llama-t5", "version.txt"))  # what is written last


def setup(env: Path, names: list[str]) -> dict[str, str]:
    """Sets up the named peers and returns the state of all that were ever set up, "ok" or the reason."""
    python, logs, record = env / "venv/bin/python", env / "logs", env / "peers.json"
    logs.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        venv.create(env / "venv", with_pip=True)
    state = json.loads(record.read_text()) if record.exists() else {}
    for name in names:
        log = logs / f"setup-{name}.log"
        print(f"setting up {name} ({log})", file=sys.stderr, flush=True)
        try:
            run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], log)
            if name in ("llama.cpp", "llama.cpp-t5") and not has_llama_cpp(env):  # one build serves both
                build_llama_cpp(env, log)
            state[name] = "ok"
        except (RuntimeError, OSError) as error:
            state[name] = str(error)
        record.write_text(json.dumps(state, indent=2) + "\n")
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=DEFAULT_ENV, help=f"default: {DEFAULT_ENV}")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES), metavar="NAME", help=", ".join(PACKAGES))
    args = parser.parse_args()
    state = setup(args.env.expanduser().resolve(), args.only)
    for name in args.only:
        print(f"{name}: {state[name]}")


if __name__ == "__main__":
    main()
