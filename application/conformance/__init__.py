"""The kit: what every adapter of a port promises, as tests. `docs/adapters.md` says how to use it."""

from typing import Final

import pytest

EXPLAINED: Final = tuple(
    f"{__name__}.{module}"
    for module in ("blob_store", "event_loop", "face_embedder", "job_queue", "liveness_checker", "vector_index")
)
"""The modules with assertions, which pytest explains where it is told of them before they are imported."""

pytest.register_assert_rewrite(*EXPLAINED)
