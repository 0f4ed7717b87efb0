"""Text files as token ids, cut into the sequences that are captured."""

import contextlib
import dataclasses
import hashlib
import os

import numpy as np

from .failure import BAD_INPUT, Failure

BYTES = 256  # a vocabulary of this size and no tokenizer: the bytes are the tokens
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class Text:
    name: str        # without its folder
    sha256: str      # of the file
    ids: np.ndarray  # int64


def tokenizer_of(model, revision, vocabulary):
    """A function from a file's bytes to token ids. `model`: a folder or a name on the hub."""
    if vocabulary == BYTES and not any(os.path.exists(os.path.join(model, name)) for name in TOKENIZER_FILES):
        return list
    from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except Exception as error:  # whatever the library meets in files that it did not write
        raise Failure(BAD_INPUT, f"{model}: has no tokenizer that can be loaded ({error})") from error
    return lambda content: tokenizer(content.decode(), return_attention_mask=False, verbose=False)["input_ids"]


def read_text(path, tokenize, vocabulary, most_tokens=None):
    """The first `most_tokens` tokens of a file, with what the tokenizer puts before it."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Failure(BAD_INPUT, f"{path}: {error.strerror}") from error
    try:
        ids = np.asarray(tokenize(content)[:most_tokens], dtype=np.int64)
    except UnicodeDecodeError as error:
        raise Failure(BAD_INPUT, f"{path}: is not UTF-8 at byte {error.start}; convert it first") from error
    if len(ids) == 0:
        raise Failure(BAD_INPUT, f"{path}: holds no tokens")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise Failure(BAD_INPUT, f"{path}: has token {ids.max()}, and the model's vocabulary is {vocabulary}: "
                                 f"the tokenizer is another model's")
    return Text(os.path.basename(path), hashlib.sha256(content).hexdigest(), ids)


def windows(texts, length):
    """Every text in pieces of `length` tokens, the last one of a text shorter: what is captured as sequences."""
    return [text.ids[begin:begin + length] for text in texts for begin in range(0, len(text.ids), length)]


def write_tokens(path, texts):
    """The ids of all texts in order, little-endian uint32: what `tq ppl --tokens` reads."""
    temporary = f"{path}.partial"
    try:
        with open(temporary, "wb") as file:
            for text in texts:
                file.write(text.ids.astype("<u4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
