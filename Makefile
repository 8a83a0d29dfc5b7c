# Two commands on a fresh Debian: `make demo` (the main job on a real torch image) and `make test`.
# Each does its own set-up: see scripts/setup.sh.

.PHONY: help demo demo-small test test-all lint image bench phases variants gpu-check clean

help:
	@echo "make demo        build a real torch service's image without an engine, slim it, show the report (30 GB of disk)"
	@echo "make demo-small  the same with a small stack, in under two minutes (4 GB of disk)"
	@echo "make test        all tests but the slow ones"
	@echo "make test-all    the slow ones too (the whole torch stack, 25 GB of disk)"
	@echo "make lint        ruff and mypy --strict"
	@echo "make image       deadweight as an image of its own, in build/image (TO=docker://HOST/NAME:TAG pushes it)"
	@echo "make bench       speed and memory beside openssl, dive, syft, docker and skopeo (45 GB of disk, half an hour)"
	@echo "make phases      the reference service's image in every shape, built and measured (40 GB of disk, over an hour)"
	@echo "make variants    the same service for CPUs, in two parts, with smaller weights: built, run, measured (40 GB of disk, an hour)"
	@echo "make gpu-check   on a machine with an NVIDIA GPU: does a pruned torch compute the same? (TORCH_PYTHON=python3)"
	@echo "make clean       remove what the above made"

demo:
	scripts/setup.sh python demo
	scripts/demo.sh torch

demo-small:
	scripts/setup.sh python demo
	scripts/demo.sh small

test:
	scripts/setup.sh python demo test truthgraph
	.venv/bin/pytest
	.venv-truthgraph/bin/pytest examples/truthgraph

test-all: test
	.venv/bin/pytest -m slow -n 1

lint:
	scripts/setup.sh python truthgraph
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	cd examples/truthgraph && ../../.venv-truthgraph/bin/mypy

image:
	scripts/setup.sh python demo
	.venv/bin/python scripts/image/build.py --to "$${TO:-oci:build/image:latest}"

bench:
	scripts/setup.sh python demo test bench
	.venv/bin/python bench/bench.py --image "$${IMAGE:-torch}" --json docs/evidence/bench/bench.json --markdown docs/bench.md

phases:
	scripts/setup.sh python demo phases
	.venv/bin/python bench/phases.py

variants:
	scripts/setup.sh python demo variants
	.venv/bin/python bench/variants.py

gpu-check:
	scripts/setup.sh python
	.venv/bin/python bench/gpu_check.py --python "$${TORCH_PYTHON:-python3}"

clean:
	rm -rf build .venv .venv-bench .venv-oracles .venv-truthgraph .pytest_cache .mypy_cache .ruff_cache .hypothesis
