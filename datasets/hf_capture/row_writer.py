"""Brings rows from the model's device to the file while the model goes on."""

import queue
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from .failure import BAD_INPUT, MACHINE, Failure
from .plan import BYTES

BUFFERS = 16  # blocks on their way; a layer of a chunk has three
THREADS = 4   # one does not fill a fast disk
STORAGE = {"float16": torch.float16, "bfloat16": torch.bfloat16}
NAMES = {"k": "keys", "v": "values", "q": "queries"}


class RowWriter:
    """write() returns at once, unless all buffers are on their way. A failure is raised by the next call.

    most_rows  of one write()
    """

    def __init__(self, file, plan, device, most_rows):
        self._file, self._dtype, self._cuda = file, STORAGE[plan.storage], device.type == "cuda"
        self._index = {key: i for i, key in enumerate(plan.tensors())}
        self._finite = torch.ones(len(self._index), dtype=torch.bool, device=device)
        size = max(min(most_rows, plan.rows(name)) * plan.heads(layer, name) * plan.layers[layer].head_dim
                   for layer, name in self._index)
        self._free = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(torch.empty(BYTES * size, dtype=torch.uint8, pin_memory=self._cuda))
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._threads, self._committer = ThreadPoolExecutor(THREADS), ThreadPoolExecutor(1)
        self._writes, self._commits = [], []
        self._failure = None

    def write(self, layer, name, row, block):
        """block: heads x rows x head_dim on the model's device."""
        key = layer, name
        block = block.to(self._dtype).contiguous()
        finite = self._finite[self._index[key]]
        finite &= block.isfinite().all()
        buffer = self._free.get()
        self._raise_failure()
        host = buffer[:BYTES * block.numel()]
        copied = None
        if self._cuda:
            self._stream.wait_stream(torch.cuda.current_stream(block.device))
            with torch.cuda.stream(self._stream):
                host.view(block.dtype).view(block.shape).copy_(block, non_blocking=True)
                copied = self._stream.record_event()
            block.record_stream(self._stream)
        else:
            host.view(block.dtype).view(block.shape).copy_(block)
        data = host.view(*block.shape[:2], -1).numpy()
        self._writes.append(self._threads.submit(self._store, self._file.places[key], row, data, buffer, copied))

    def commit(self, sequences):
        """After the last row of a sequence. Raises Failure where a row held what the storage cannot."""
        bad = torch.nonzero(~self._finite).flatten().tolist()
        if bad:
            layer, name = list(self._index)[bad[0]]
            advice = "; --storage bfloat16 has a wider range" if self._dtype == torch.float16 else ""
            raise Failure(BAD_INPUT, f"{NAMES[name]} of layer {layer} are not finite as "
                                     f"{str(self._dtype).removeprefix('torch.')}{advice}")
        writes, self._writes = self._writes, []
        self._commits.append(self._committer.submit(self._commit, writes, sequences))

    def finish(self):
        wait(self._commits)
        self._raise_failure()

    def close(self):
        self._threads.shutdown(cancel_futures=True)
        self._committer.shutdown(cancel_futures=True)

    def _store(self, places, row, data, buffer, copied):
        try:
            if copied is not None:
                copied.synchronize()
            places.write(self._file.fd, row, data)
        except Exception as error:
            self._failure = error
        finally:
            self._free.put(buffer)

    def _commit(self, writes, sequences):
        try:
            wait(writes)
            if self._failure is None:
                self._file.commit(sequences)
        except OSError as error:
            self._failure = error

    def _raise_failure(self):
        if isinstance(self._failure, OSError):
            raise Failure(MACHINE, f"{self._file.partial}: {self._failure.strerror}") from self._failure
        if self._failure is not None:
            raise self._failure
