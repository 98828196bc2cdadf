# The tasks of a developer; `just` lists them. `.ci/run` runs those that a change must pass, in a fresh clone.

set positional-arguments

# The version is the one that `rust-version` in Cargo.toml names.
msrv := `sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml`

# List the recipes.
default:
    @just --list --unsorted

# Run the main checks of `.ci/run`, which need no program but Cargo.
check: format lint doc test

# Run one test, or all whose names contain the text: `just one expired_session_is_401`.
one *text:
    cargo test --locked -- "$@"

# Run all tests, with the purge of 100,000 rows.
test:
    SESSIONGATE_PURGE_ROWS=100000 cargo test --locked

# Run the tests of memory with the packages' allocator.
test-allocator:
    cargo test --locked --features jemalloc --test it -- connections::

# Check the format.
format:
    cargo fmt --check

# Lint all targets, with and without the embedded engine.
lint:
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --no-default-features -- -D warnings

# Build the documentation, private items included.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Check licences, sources and duplicates of dependencies. Advisories have a job of their own, weekly.
deny:
    command -v cargo-deny >/dev/null || cargo install --locked --debug cargo-deny@0.20.2
    cargo deny --locked check bans licenses sources

# Check that the oldest supported toolchain builds sessiongate.
msrv:
    #!/usr/bin/env bash
    set -euo pipefail
    if cargo --version | grep -q '^cargo {{ msrv }}\.'; then
        echo "this toolchain is the oldest supported one, {{ msrv }}: lint and test have checked it"
    else
        rustup toolchain install --profile minimal {{ msrv }}
        cargo +{{ msrv }} check --locked
    fi

# Run each fuzz target for some seconds, from its corpus.
fuzz-smoke seconds="10":
    #!/usr/bin/env bash
    set -euo pipefail
    command -v cargo-fuzz >/dev/null || cargo install --locked --debug cargo-fuzz@0.13.2
    export RUSTC_BOOTSTRAP=1
    for target in $(cargo fuzz list); do
        # New inputs that a run finds stay out of the repository's corpus.
        scratch=$(mktemp -d)
        cargo fuzz run --dev "$target" -s none "$scratch" "fuzz/corpus/$target" -- \
            -max_total_time={{ seconds }} -verbosity=0 -print_final_stats=1 2>&1 | grep -E 'panicked|ERROR|SUMMARY|number_of_executed_units' | sed "s/^/$target: /"
        rm -r "$scratch"
    done

# Fuzz one target until it finds something: `just fuzz route`.
fuzz target:
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{ target }} -s none

# Count the instructions of the request path's parts, and compare them with the accepted ones.
instructions:
    python3 benches/instructions/check.py

# Check the simulation of DynamoDB's costs against closed forms.
figures:
    python3 benches/fleet/run.py --check

# Time the parts of the request path.
bench *parts:
    cargo bench --bench parts -- "$@"

# Run mutation tests of the code that decides about requests and sessions; takes hours.
mutants:
    command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants@27.1.0
    cargo mutants -f 'src/proxy/request/*.rs' -f src/session/judge.rs -f src/headers.rs
