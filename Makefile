# Needs Python >= 3.11 with its headers, a C++20 compiler and the network that pip needs. Everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check -qq install
NATIVE := CMakeLists.txt $(shell find csrc -type f)
SANITIZED := build/sanitize
# Kernels and their C++ tests under the sanitizer $(1).
sanitized = $(BIN)/cmake -S . -B $(SANITIZED)-$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPYCURATE_PYTHON=OFF -DPYCURATE_CUDA=OFF -DPYCURATE_TESTS=ON \
    -DPYCURATE_SANITIZE=$(1) -DPYCURATE_WERROR=ON && $(BIN)/cmake --build $(SANITIZED)-$(1)

.PHONY: demo test build lint sanitize bench clean

demo: $(VENV)/.built
	$(BIN)/pycurate demo --out $(DEMO)

test: $(VENV)/.extras-test
	$(BIN)/python -m pytest

build: $(VENV)/.built

lint: $(VENV)/.extras-test $(VENV)/.extras-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest pycurate._core --allowlist tests/stubtest_allowlist.txt
	if $(BIN)/python -c 'import pycurate._core_cuda' 2>/dev/null; then \
	    $(BIN)/python -m mypy.stubtest pycurate._core_cuda --allowlist tests/stubtest_allowlist_cuda.txt; fi
	$(BIN)/lint-imports
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

sanitize: $(VENV)/.built
	$(call sanitized,address)
	$(SANITIZED)-address/csrc/kernel_tests
	$(call sanitized,thread)
	$(SANITIZED)-thread/csrc/kernel_tests thread strongest

bench: $(VENV)/.extras-bench
	$(BIN)/pycurate bench

clean:
	rm -rf build dist $(VENV) $(DEMO)

$(VENV)/.tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pycurate needs Python 3.11 or newer, but $(PYTHON) is %d.%d: name another, as in: make PYTHON=python3.12 demo" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv python3-dev" >&2; exit 1; }
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) 'scikit-build-core>=0.11' 'pybind11>=3.0' 'cmake>=3.24' 'ninja>=1.11'
	@touch $@

# Editable and without isolation: Python files are read in place, and changed C++ is rebuilt in seconds.
$(VENV)/.built: $(VENV)/.tools pyproject.toml $(NATIVE)
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.extras-%: pyproject.toml | $(VENV)/.built
	$(PIP_INSTALL) --no-build-isolation --editable '.[$*]'
	@touch $@
