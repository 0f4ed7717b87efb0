"""The capture on the disk (*.kv.h5).

How many rows there will be is known, so the whole structure of the file is made first, with room for all rows; rows are
then written straight to their places. That is as fast as the disk, needs no library in between, and leaves nothing
half-done in the structure when a run is killed: what has been captured is the one number `sequences_done`. Filters
would have to run here, chunk by chunk, and a GPU makes rows much faster than a processor deflates them; h5repack puts
compression and checksums in later.
"""

import datetime
import fcntl
import os

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from .failure import BAD_INPUT, MACHINE, Failure

CHUNK_ROWS = 1024
INDEX_CHUNK = 16384
PARTIAL = ".partial"
DONE = "sequences_done"  # -1 while the structure is being written


class CaptureFile:
    """Opens PATH.partial, new or as an earlier run of the same plan left it, and gives it its name at the end."""

    def __init__(self, path, plan):
        self.path, self.partial = path, path + PARTIAL
        try:
            self.fd = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise Failure(MACHINE, f"{self.partial}: {error.strerror}") from error
        try:
            self._open(plan)
        except BaseException:
            self.close()
            raise

    def _open(self, plan):
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure(MACHINE, f"{self.partial}: another run is writing it") from error
        self.done = self._sequences_done(plan)
        if self.done is None:
            self._check_room(plan)
            write_structure(self.partial, plan)
        # No lock of HDF5's: it would collide with the one above.
        with h5py.File(self.partial, "r", locking=False) as file:
            self._done_at = file[DONE].id.get_offset()
            self.places = {key: Places(file["layers/{:03}/{}".format(*key)]) for key in plan.tensors()}
        if self.done is None:
            self.commit(0)

    def commit(self, sequences):
        """All rows of the first `sequences` sequences are in their places."""
        os.fdatasync(self.fd)
        os.pwrite(self.fd, np.int64(sequences).astype("<i8").tobytes(), self._done_at)
        self.done = sequences

    def finish(self):
        os.fsync(self.fd)
        os.replace(self.partial, self.path)
        folder = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def discard(self):
        """For a run that would fail again."""
        os.remove(self.partial)

    def close(self):
        os.close(self.fd)

    def _sequences_done(self, plan):
        """None: there is nothing to go on with."""
        try:
            with h5py.File(self.partial, "r", locking=False) as file:
                done, job = int(file[DONE][()]), file.attrs["job"].decode()
        except (OSError, KeyError):  # killed before the structure was whole
            return None
        if done < 0:
            return None
        if job != plan.job:
            raise Failure(BAD_INPUT, f"{self.partial}: was left by a run with another model, text or options; repeat "
                                     f"that command to finish it, or delete the file")
        return done

    def _check_room(self, plan):
        room = os.fstatvfs(self.fd)
        free = room.f_bavail * room.f_frsize
        if plan.bytes > free:
            raise Failure(MACHINE, f"{self.path}: takes {plan.bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free")


class Places:
    """Where the rows of a dataset lie in the file."""

    def __init__(self, dataset):
        rows, heads, head_dim = dataset.shape
        self.chunk_rows, self.row_bytes = dataset.chunks[0], head_dim * dataset.dtype.itemsize
        self.chunks = np.empty((-(-rows // self.chunk_rows), heads), dtype=np.int64)

        def keep(chunk):
            row, head, _ = chunk.chunk_offset
            self.chunks[row // self.chunk_rows, head] = chunk.byte_offset

        dataset.id.chunk_iter(keep)

    def write(self, fd, row, data):
        """data: uint8, heads x rows x row_bytes, for the rows from `row` on."""
        count = data.shape[1]
        for chunk in range(row // self.chunk_rows, (row + count - 1) // self.chunk_rows + 1):
            first = chunk * self.chunk_rows
            begin, end = max(row, first), min(row + count, first + self.chunk_rows)
            for head, chunk_at in enumerate(self.chunks[chunk]):
                piece = memoryview(data[head, begin - row:end - row]).cast("B")
                at = int(chunk_at) + (begin - first) * self.row_bytes
                while piece:
                    written = os.pwrite(fd, piece, at)
                    piece, at = piece[written:], at + written


def write_structure(path, plan):
    """Everything but the rows."""
    # The oldest layout, which every version of the library reads.
    with h5py.File(path, "w", libver="earliest", locking=False) as file:
        time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        _write_attributes(file, {**plan.attributes, "utc_time": time, "job": plan.job})
        file.create_dataset(DONE, data=np.int64(-1), track_times=False)
        for layer, attributes in enumerate(plan.layer_attributes):
            _write_attributes(file.create_group(f"layers/{layer:03}"), attributes)
        for layer, name in plan.tensors():
            shape = (plan.rows(name), plan.heads(layer, name), plan.layers[layer].head_dim)
            _reserve(file[f"layers/{layer:03}"], name, shape, plan.storage)
        for name, indices in plan.token_indices().items():
            if len(indices):
                file.create_dataset(f"tokens/{name}", data=indices.astype("<i4"), maxshape=(None,), shuffle=True,
                                    chunks=(min(INDEX_CHUNK, len(indices)),), compression="gzip", fletcher32=True,
                                    track_times=False)


def _write_attributes(target, attributes):
    for name, value in attributes.items():
        text = isinstance(value, (str, list))  # of fixed length: the older HDF5's reader of others has faults
        target.attrs[name] = np.char.encode(value, "utf-8") if text else value


def _reserve(group, name, shape, storage):
    rows, _, head_dim = shape
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk((min(CHUNK_ROWS, rows), 1, head_dim))
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]))
    h5d.create(group.id, name.encode(), _element_type(storage), space, dcpl=creation)


def _element_type(storage):
    if storage == "float16":
        return h5t.IEEE_F16LE
    bfloat16 = h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    return bfloat16
