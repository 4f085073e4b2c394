import os
import platform


def machine() -> str:
    """What it was measured on, and how busy that was with other things."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"load over 15 minutes {os.getloadavg()[2]:.1f}"
    )
