"""`facepass`, the command."""

import click

from entrypoints.cli.bootstrap import bootstrap
from entrypoints.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="facepass", message="facepass %(version)s")
def main() -> None:
    """Self-hosted face recognition: enrol people, verify a face, search a face.

    Settings come from the environment and from .env; .env.example explains every one.
    """


for command in (serve, bootstrap):
    main.add_command(command)
