"""Runs the model over the sequences and puts what its layers attend with into the file."""

import torch

from .attention import watched
from .model import forward, new_cache
from .plan import first_query
from .row_writer import RowWriter


def capture(model, sequences, plan, file, chunk, key_basis="post_rope", deployed=None, progress=lambda tokens: None):
    """Goes on after the file's `done` sequences. sequences: int64 arrays of token ids; chunk: tokens of a forward
    pass. Calls progress(tokens done in all)."""
    writer = RowWriter(file, plan, model.device, min(chunk, max(plan.lengths)))
    try:
        for index in range(file.done, len(sequences)):
            _capture_sequence(model, sequences[index], index, plan, writer, chunk, key_basis, deployed, progress)
            writer.commit(index + 1)
        writer.finish()
    finally:
        writer.close()


def _capture_sequence(model, ids, index, plan, writer, chunk, key_basis, deployed, progress):
    token_row, query_row = plan.first_rows(index)
    begin = 0

    def keep(call):
        writer.write(call.layer, "k", token_row + begin, call.k)
        writer.write(call.layer, "v", token_row + begin, call.v)
        if plan.query_every == 0:
            return
        first = first_query(begin, len(ids), plan.query_every)
        q = call.q[:, first - begin::plan.query_every]
        if q.shape[1]:
            writer.write(call.layer, "q", query_row + first // plan.query_every, q)

    cache, tokens = new_cache(model), torch.from_numpy(ids).to(model.device)
    if deployed is not None:
        deployed.start_sequence()
    with torch.inference_mode(), watched(model, keep, key_basis, deployed):
        for begin in range(0, len(ids), chunk):
            forward(model, tokens[begin:begin + chunk], cache)
            progress(token_row + min(begin + chunk, len(ids)))
