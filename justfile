# What developers run. `just verify` is what CI runs.

# Everything CI checks: format, lints, docs, tests, and the main job.
verify:
    .ci/run

# Format all code.
fmt:
    cargo fmt --all

# Lints as CI sees them.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; `just test durability` runs one suite.
test suite="":
    cargo test {{ if suite == "" { "" } else { "--test " + suite } }}

# The main job, optimized.
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# A cluster to play with.
local folder="target/local":
    cargo run --release -- local --data-dir {{ folder }}

# The API docs.
doc:
    cargo doc --no-deps --workspace --open

# Licences and sources of what we link; needs cargo-deny.
deny:
    cargo deny check
