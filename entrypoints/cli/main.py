"""`facepass`, the command."""

from collections.abc import Mapping
from importlib import import_module

import click

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Begin": {
        "demo": ("entrypoints.cli.demo.command", "See it work on real faces."),
        "bootstrap": ("entrypoints.cli.bootstrap", "Make the first workspace and API key."),
        "serve": ("entrypoints.cli.serve", "Run the service."),
        "worker": ("entrypoints.cli.worker", "Do background work."),
    },
    "Faces": {
        "enrol": ("entrypoints.cli.enrol", "Enrol a folder of people."),
        "verify": ("entrypoints.cli.verify", "Verify that a face is a given person (1:1)."),
        "search": ("entrypoints.cli.search", "Find out who a face is (1:N)."),
        "compare": ("entrypoints.cli.compare", "Tell whether two images show the same person."),
        "detect": ("entrypoints.cli.detect", "Find every face in an image."),
    },
    "Models": {
        "models": ("entrypoints.cli.models", "Get and check face models."),
        "evaluate": ("entrypoints.cli.evaluate", "Measure how well the face model tells people apart."),
        "calibrate": ("entrypoints.cli.evaluate", "Measure thresholds on photographs of your own."),
    },
    "Operation": {
        "adapters": ("entrypoints.cli.adapters", "See which adapters are there, and prove them."),
        "users": ("entrypoints.cli.users", "Look after the accounts that sign in."),
        "api-keys": ("entrypoints.cli.api_keys", "List, make and revoke API keys."),
        "keys": ("entrypoints.cli.keys", "Change the secrets that everything stands under."),
        "gallery": ("entrypoints.cli.galleries", "Move a gallery to another model."),
        "audit": ("entrypoints.cli.audit", "Read the audit log, and prove that nobody changed it."),
        "index": ("entrypoints.cli.index", "Check the vector index or make it anew."),
        "backup": ("entrypoints.cli.backup", "Back up the record, kept images and the ledger of erasures."),
        "restore": ("entrypoints.cli.backup", "Restore a backup, and erase again whoever was erased since."),
        "erase": ("entrypoints.cli.erase", "Erase people for good, and prove it."),
        "db": ("entrypoints.cli.database", "Look after the database."),
        "config": ("entrypoints.cli.config", "Print every setting."),
    },
}
"""Commands by what they are for, in the order in which they are met: each one's module and its first sentence.

A module is imported when its command is called: all of them together bring the models' and the web server's
libraries, which takes seconds that nobody asking for help should wait. A test holds the sentences to the commands.
"""

_COMMANDS = {name: place for section in SECTIONS.values() for name, place in section.items()}


class _Sections(click.Group):
    """Lists commands in their sections, and imports none of them for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command's module."""
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the sections."""
        width = max(map(len, _COMMANDS))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), sentence) for name, (_, sentence) in commands.items()])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="facepass", message="facepass %(version)s")
@click.option("--debug", is_flag=True, help="Log everything, and show where an error comes from.")
def main(*, debug: bool) -> None:
    """Self-hosted face recognition: enrol people, verify a face, search a face.

    Settings come from the environment and from .env; 'facepass config' lists them. Results go to
    standard output, progress and remarks to standard error.
    """
