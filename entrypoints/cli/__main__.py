"""`python -m entrypoints.cli`, the same as `facepass`."""

from entrypoints.cli.main import main

main(prog_name="facepass")
