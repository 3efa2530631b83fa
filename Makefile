# `make demo` runs the main job on the checkpoint we ship; `make test` passes the tests. Both set up what they need, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-ready
TEST := $(VENV)/.test-ready
BUNDLE := out/nano-int4
# With test,litert,litert-lm the tests of LiteRT bundles and packages run too; that is 0.9 GB more to install.
EXTRAS ?= test

# On Linux a plain `pip install torch` brings gigabytes of CUDA; PyTorch's own index has the CPU build.
CPU_TORCH := $(if $(filter Linux,$(shell uname -s)),--extra-index-url https://download.pytorch.org/whl/cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test clean

demo: $(BUNDLE)/manifest.json
	@BIN=$(BIN) BUNDLE=$(BUNDLE) sh nano/examples/demo.sh

test: $(TEST)
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) out

$(BUNDLE)/manifest.json: $(CORE) $(wildcard nano/checkpoint/* export/*.py export/*/*.py quant/*.py)
	$(BIN)/t5g2-export --size nano --quant int4 --output $(BUNDLE) --force

$(CORE): pyproject.toml setup.py CMakeLists.txt $(wildcard $(foreach d,runtime/kernels runtime/engine runtime/cli runtime/include benchmarks/bench,$d/*.cpp $d/*.h $d/*.hpp))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "t5g2 needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	    { echo "t5g2 needs a C++20 compiler: on Debian, apt install g++" >&2; exit 1; }
	@printf '#include <stdio.h>\n#include <jpeglib.h>\n#include <png.h>\n' | $${CXX:-c++} -fsyntax-only -xc++ - 2>/dev/null || \
	    { echo "t5g2-run reads pictures with libjpeg and libpng: on Debian, apt install libjpeg-dev libpng-dev" >&2; exit 1; }
	@echo "setting up $(VENV): PyTorch, ExecuTorch, our operators and the engine, about four minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --retries 2 --no-deps $(CPU_TORCH) 'torch==2.13.*' 'executorch==1.5.1'
	@$(PIP) --editable .
	@touch $@

$(TEST): $(CORE)
	@echo "setting up the tests"
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@
