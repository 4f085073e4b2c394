"""The kit: what every adapter of a port promises, as tests. `docs/adapters.md` says how to use it."""

from typing import Final

import pytest

CONTRACTS: Final = ("blob_store", "face_embedder", "job_queue", "liveness_checker", "vector_index")
"""The modules, one a port: each has one class whose name ends in `Contract`."""

# pytest explains a failed assertion where it was told of the module before that is imported.
pytest.register_assert_rewrite(*(f"{__name__}.{contract}" for contract in CONTRACTS), f"{__name__}.event_loop")
