# try and test are what a newcomer needs; the others are for those who change something.
.DEFAULT_GOAL := help
.PHONY: help try test lint bench image mutants docs crds

help:
	@echo "make try         see it work: a cluster, the operator, a changed value (KEEP=1 keeps it running)"
	@echo "make test        run every test"
	@echo "make lint        check format, lints and generated files"
	@echo "make bench       measure the operator beside a bare client (QUICK=1: a few minutes; ROWS=cold,hang: some rows)"
	@echo "make image       build the image without a daemon (as root)"
	@echo "make mutants     break the deciding parts on purpose and see the tests redden (an hour)"
	@echo "make docs crds   print docs/configuration.md and crds/ anew"

try:
	@ci/try

test:
	@ci/test

lint:
	@ci/lint

bench:
	@ci/bench

image:
	@ci/image

mutants:
	@ci/mutants

docs:
	cargo run --locked --quiet -- reference > docs/configuration.md.new && mv docs/configuration.md.new docs/configuration.md

crds:
	cargo run --locked --quiet -- crds --dir crds
