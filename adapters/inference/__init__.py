"""What runs models, and what surrounds that."""

import os

# onnxruntime reports its use to its maker unless this stands in the environment when it is imported, which the modules
# of this package do. A service that sees faces reports to nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - set, not read; there is no other way
