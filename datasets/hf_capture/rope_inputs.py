"""Queries and keys as they are before RoPE: the arguments of the family's own apply_rotary_pos_emb.

Rotating back would add the rounding of two rotations and would have to know how the family pairs coordinates.
"""

import contextlib
import sys

from .failure import BAD_INPUT, Failure

FUNCTION = "apply_rotary_pos_emb"


@contextlib.contextmanager
def rope_inputs(model):
    """Yields a function from the rotated queries that attention got to (queries, keys) before the rotation."""
    last = {}

    def watch(rotate):
        def rotate_and_keep(q, k, *arguments, **options):
            rotated = rotate(q, k, *arguments, **options)
            last.update(before=(q, k), query=rotated[0] if isinstance(rotated, tuple) else None)
            return rotated
        return rotate_and_keep

    def before(query):
        if last.get("query") is not query:
            raise Failure(BAD_INPUT, f"{type(model).__name__} does not hand what {FUNCTION}(q, k, ...) returns to "
                                     f"attention; its keys are captured with --key-basis post_rope only")
        return last["before"]

    modules = {sys.modules[type(module).__module__] for module in model.modules()}
    originals = {module: getattr(module, FUNCTION) for module in modules if hasattr(module, FUNCTION)}
    for module, rotate in originals.items():
        setattr(module, FUNCTION, watch(rotate))
    try:
        yield before
    finally:
        for module, rotate in originals.items():
            setattr(module, FUNCTION, rotate)
