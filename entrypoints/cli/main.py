"""`facepass`, the command."""

import click

from entrypoints.cli.bootstrap import bootstrap
from entrypoints.cli.compare import compare
from entrypoints.cli.config import config
from entrypoints.cli.database import db
from entrypoints.cli.demo.command import demo
from entrypoints.cli.detect import detect
from entrypoints.cli.enrol import enrol
from entrypoints.cli.evaluate import calibrate, evaluate
from entrypoints.cli.index import index
from entrypoints.cli.models import models
from entrypoints.cli.search import search
from entrypoints.cli.serve import serve
from entrypoints.cli.verify import verify

_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Begin": (demo, bootstrap, serve),
    "Faces": (enrol, verify, search, compare, detect),
    "Models": (models, evaluate, calibrate),
    "Operation": (index, db, config),
}


class _Sections(click.Group):
    """Lists commands by what they are for, in the order in which they are met."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the sections."""
        width = max(map(len, self.commands))
        limit = formatter.width - width - 6
        for section, commands in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [((command.name or "").ljust(width), command.get_short_help_str(limit)) for command in commands]
                )


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="facepass", message="facepass %(version)s")
@click.option("--debug", is_flag=True, help="Log everything, and show where an error comes from.")
def main(*, debug: bool) -> None:
    """Self-hosted face recognition: enrol people, verify a face, search a face.

    Settings come from the environment and from .env; 'facepass config' lists them. Results go to
    standard output, progress and remarks to standard error.
    """


for section in _SECTIONS.values():
    for command in section:
        main.add_command(command)
