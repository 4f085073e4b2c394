"""Options that several commands share, so that they read the same everywhere."""

from pathlib import Path

import click

from application.use_cases.keys.bootstrap import DEFAULT_WORKSPACE
from domain.gallery import DEFAULT_GALLERY

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

image = click.argument("image", type=EXISTING_FILE)

workspace = click.option(
    "--workspace", default=DEFAULT_WORKSPACE, show_default=True, metavar="NAME", help="The workspace's name."
)
gallery = click.option(
    "--gallery", default=DEFAULT_GALLERY, show_default=True, metavar="NAME", help="The gallery's name or id."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
threshold = click.option(
    "--threshold",
    type=click.FloatRange(-1.0, 1.0),
    metavar="COSINE",
    help="Similarity from which a face matches, -1 to 1, in place of the gallery's.",
)
target_fmr = click.option(
    "--target-fmr",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    metavar="RATE",
    help="False matches per verification of an impostor (0.001: one in 1,000); the threshold follows.",
)
target_fpir = click.option(
    "--target-fpir",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    metavar="RATE",
    help="False positives per search of a stranger (0.01: one in 100); the threshold follows.",
)
output = click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PICTURE",
    help="Draw what was seen into a copy of the image: .png, .jpg or .webp.",
)
