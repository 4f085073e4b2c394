# `just` lists what there is to do.

export UV_PYTHON_DOWNLOADS := "never"
# The tests start hundreds of processes: without files to keep it in, each compiles every library anew, for seconds.
export PYTHONDONTWRITEBYTECODE := ""
bin := ".venv/bin"

[private]
default:
    @just --list --unsorted

# Make .venv and install everything, each file checked against the lock's hashes
setup:
    @sh .ci/setup

# Enrol, search and verify real faces on a throw-away server: the whole product in a minute
demo *ARGS: setup
    @{{bin}}/facepass demo {{ARGS}}

# Run the service on this machine
serve *ARGS: setup
    @{{bin}}/facepass serve {{ARGS}}

# Do background work: where the queue is Redis, beside any number of services
worker *ARGS: setup
    @{{bin}}/facepass worker {{ARGS}}

# Everything that CI runs: lint, types, layers, bandit and every test
test: setup lint types layers secure tests

# The same: what to run before a commit
alias check := test

# The tests alone, with pytest's own arguments
tests *ARGS: setup
    @{{bin}}/pytest -n 3 --dist loadscope --no-loadscope-reorder {{ARGS}}

# Style and the whole of ruff's rules
lint: setup
    @{{bin}}/ruff check .
    @{{bin}}/ruff format --check .

# Strict types
types: setup
    @{{bin}}/mypy

# The rules of the hexagon
layers: setup
    @{{bin}}/lint-imports

# Bandit, from medium severity and confidence on: ruff has the same rules at every level, each exception with its reason
secure: setup
    @{{bin}}/bandit -q -ll -ii -r domain application adapters entrypoints migrations -x application/conformance,adapters/vector_index/pgvector.py
    @# Tables cannot be parameters: their names are made of a model's digest, and every value is a parameter.
    @{{bin}}/bandit -q -ll -ii adapters/vector_index/pgvector.py --skip B608

# Look the locked packages up among known vulnerabilities; fails on findings alone
audit:
    @sh .ci/audit

# Rewrite what can be rewritten
fix:
    @{{bin}}/ruff check --fix .
    @{{bin}}/ruff format .

# Print the table of speed and size, with its ratios
bench *ARGS: setup
    @{{bin}}/python -m tests.benchmarks {{ARGS}}

# The same people in every vector index, the same images in every blob store: one table
bench-backends *ARGS: setup
    @{{bin}}/python -m tests.benchmarks.backends {{ARGS}}

# Bring the database to the newest schema
migrate: setup
    @{{bin}}/facepass db upgrade

# Write a new migration from what the tables say
revision MESSAGE: setup
    @{{bin}}/facepass db revision "{{MESSAGE}}"

# Renew the lock: versions and hashes, no addresses
lock:
    uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --all-extras --group dev -o requirements.lock pyproject.toml
