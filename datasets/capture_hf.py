#!/usr/bin/env python3
"""Captures keys, values and queries of a Hugging Face model on text files, for `tq calibrate`, `eval` and `sweep`.

Example: capture_hf.py Qwen/Qwen3-0.6B --text a.txt b.txt --out model.kv.h5

MODEL is a folder or a name on the hub. Every text is cut into windows, each a sequence of its own; each goes through
the model in chunks with the model's own cache. Any decoder-only family that attends through Transformers' interface
is captured: Llama, Qwen2, Qwen3, Mistral, Gemma 2, 3 and 4, with grouped queries, sliding windows and layers of
different head_dim. A model of 256 tokens without a tokenizer reads bytes.

A run that is killed leaves OUT.partial; the same command goes on after its last whole sequence.
"""

import argparse
import sys

from hf_capture.failure import BAD_INPUT, INTERRUPTED, MACHINE, USAGE, Failure

try:
    import h5py  # noqa: F401
    import torch
    import transformers
    from hf_capture.capture import capture
    from hf_capture.capture_file import CaptureFile
    from hf_capture.deployed_cache import deployed_cache
    from hf_capture.model import (DTYPES, layer_shapes, load_config, load_model, model_attributes,
                                  model_without_weights, rope_theta, weights_stamp)
    from hf_capture.plan import make_plan
    from hf_capture.row_writer import STORAGE
    from hf_capture.texts import read_text, tokenizer_of, windows, write_tokens
    from tqdm import tqdm  # of transformers
except ImportError as error:
    print(f"capture_hf: needs torch, transformers (5.17 or newer) and h5py (3.8 or newer): pip install torch "
          f"transformers h5py ({error})", file=sys.stderr)
    sys.exit(MACHINE)

QUERY_EVERY, WINDOW = 16, 4096


def count(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def count_or_none(text):
    return 0 if text == "0" else count(text)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="capture_hf.py", description=__doc__.split("\n\n")[0],
                                     epilog="\n\n".join(__doc__.split("\n\n")[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder, or name on the hub")
    add("--text", nargs="+", required=True, metavar="FILE", help="UTF-8 text files (any bytes for a byte-level model)")
    add("--out", metavar="FILE", help="capture to write (*.kv.h5)")
    add("--tokens-out", metavar="FILE", help="also write the token ids of all texts, little-endian uint32, as `tq ppl "
                                             "--tokens` reads them; without --out nothing else is done")
    add("--revision", help="of a model on the hub")
    add("--window", type=count, metavar="N", help=f"tokens of a sequence (default: {WINDOW}, or the model's longest "
                                                  f"context where that is shorter)")
    add("--max-tokens", type=count, metavar="N", help="most tokens of each text (default: all)")
    add("--chunk", type=count, default=WINDOW, metavar="N", help="tokens of one forward pass; less takes less memory "
                                                                 "(default: %(default)s)")
    add("--query-every", type=count_or_none, default=QUERY_EVERY, metavar="N",
        help="keep the queries of every Nth position, counted back from each sequence's last; 0: none (default: "
             "%(default)s)")
    add("--key-basis", choices=("post_rope", "pre_rope"), default="post_rope",
        help="keys and queries after RoPE, as caches hold them, or before (default: %(default)s); scores are measured "
             "on post_rope only")
    add("--storage", choices=tuple(STORAGE), default="float16", help="type in the file (default: %(default)s)")
    add("--dtype", choices=("auto", *DTYPES), default="auto", help="type the model runs in (default: as its weights)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the model runs: cuda, cuda:1, cpu (default here: %(default)s)")
    add("--quantised-as", metavar="CONFIG",
        help="capture what a deployed cache makes of the model: every layer attends over keys and values that went "
             "through the codecs of an artefact (*.tq.h5), or of an INI file's [sweep] section with one value an axis "
             "(key-mode, key-bits, ...; recent-window, first-tokens). Needs PYTHONPATH=experiments/python")
    add("--dry-run", action="store_true", help="say what would be captured and how large it is; loads no weights")
    given = parser.parse_args(arguments)
    if given.out is None and given.tokens_out is None:
        parser.error("nothing to write: give --out FILE, --tokens-out FILE or both")
    return given


def window_of(given, config):
    longest = getattr(config, "max_position_embeddings", None) or WINDOW
    if given.window is not None and given.window > longest:
        raise Failure(USAGE, f"--window {given.window} is longer than the model's context of {longest} tokens")
    return given.window or min(WINDOW, longest)


def plan_of(given, model, shapes, config, texts, sequences, deployed):
    attributes = model_attributes(given.model, given.revision, model, config)
    attributes |= {"description": f"{len(sequences)} sequences of {', '.join(text.name for text in texts)}",
                   "key_basis": given.key_basis, "text_names": [text.name for text in texts],
                   "text_sha256": [text.sha256 for text in texts]}
    if deployed is not None:
        attributes["quantised_as"] = deployed.description
    return make_plan(shapes, [rope_theta(config, shape) for shape in shapes], sequences, given.query_every,
                     given.storage, attributes, weights_stamp(given.model))


def summary(plan):
    dims = sorted({layer.head_dim for layer in plan.layers})
    sliding = sum(layer.sliding_window is not None for layer in plan.layers)
    return (f"{plan.bytes / 1e6:.1f} MB: {len(plan.lengths)} sequences, {plan.tokens} tokens, {plan.queries} of them "
            f"with queries, {len(plan.layers)} layers ({sliding} sliding), {plan.layers[0].q_heads} query and "
            f"{plan.layers[0].kv_heads} KV heads, head_dim {', '.join(map(str, dims))}")


def say(message):
    print(f"capture_hf: {message}", file=sys.stderr)


def write_capture(given, config, texts):
    text_config = config.get_text_config(decoder=True)
    sequences = windows(texts, window_of(given, text_config))
    if given.dry_run:
        model = model_without_weights(config)
    else:
        model = load_model(given.model, given.revision, given.dtype, given.device)
    shapes = layer_shapes(model)
    deployed = deployed_cache(given.quantised_as, shapes) if given.quantised_as else None
    plan = plan_of(given, model, shapes, text_config, texts, sequences, deployed)
    if given.dry_run:
        print(summary(plan))
        return
    say(summary(plan))
    file = CaptureFile(given.out, plan)
    if file.done:
        say(f"goes on after {file.done} sequences that {file.partial} holds")
    # disable=None: on a terminal only.
    bar = tqdm(desc="capturing", total=plan.tokens, initial=plan.first_rows(file.done)[0], unit=" tokens", leave=False,
               delay=0.5, disable=None)
    try:
        capture(model, sequences, plan, file, given.chunk, given.key_basis, deployed,
                lambda done: bar.update(done - bar.n))
        file.finish()
    except Failure as failure:
        if failure.code == BAD_INPUT:
            file.discard()
        raise
    finally:
        file.close()
        bar.close()


def run(given):
    config = load_config(given.model, given.revision)
    vocabulary = config.get_text_config(decoder=True).vocab_size
    tokenize = tokenizer_of(given.model, given.revision, vocabulary)
    texts = [read_text(path, tokenize, vocabulary, given.max_tokens) for path in given.text]
    if given.tokens_out is not None and not given.dry_run:
        write_tokens(given.tokens_out, texts)
    if given.out is not None:
        write_capture(given, config, texts)


def main():
    given = parse(sys.argv[1:])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        run(given)
    except Failure as failure:
        say(failure)
        return failure.code
    except (OSError, torch.OutOfMemoryError) as error:
        say(" ".join(str(error).split()))
        return MACHINE
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
