.PHONY: docs
docs:
	cargo run --locked --quiet -- reference > docs/configuration.md
