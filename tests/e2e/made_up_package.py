from collections.abc import Mapping
from pathlib import Path


def made_up_package(folder: Path, name: str, adapters: Mapping[str, Mapping[str, str]], **modules: str) -> None:
    """Install a package in a folder that is on the path: its metadata, and modules of one file each.

    `adapters` are its entry points by port and name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "\n".join(
            "\n".join([f"[facepass.{port}]", *(f"{called} = {place}" for called, place in named.items())])
            for port, named in adapters.items()
        )
    )
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
