"""The model card: a README.md that says what the weights are, how they came about, and what they are worth."""

import hashlib


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def nats(value):
    return "not measured" if value is None else f"{value:.4f}"


def evaluation_table(evaluation, baselines):
    return table(["predictor", "held-out nats a byte"],
                 [["this model, bfloat16 weights, float32 arithmetic", nats(evaluation["loss"])],
                  ["order-5 n-gram, interpolated, counts of all the training text", nats(baselines.get("ngram5"))],
                  ["`xz -9` of the held-out text", nats(baselines.get("xz"))],
                  ["`xz -9` of the same after 32 MiB of the training text", nats(baselines.get("xz_prefixed"))]])


def retrieval_table(retrieval):
    return table(["distance in bytes up to", "queries", "answered right"],
                 [[upto, queries, f"{right / queries:.3f}"] for upto, (queries, right) in retrieval.items()])


def render(run, corpus, files):
    """`run` is what train.py records, `corpus` a corpus.Corpus, `files` name -> bytes of the files beside the card."""
    config = run["config"]
    evaluation = run["evaluation"]
    return f"""# A small byte-level language model

A Llama decoder of {run["parameters"]:,} parameters whose tokens are bytes: no tokenizer, token i is byte i. It is there to
measure what a codec of the KV cache does to a model's loss, not to write with.

{table(["", ""], [
    ["layers", config["num_hidden_layers"]],
    ["hidden size", config["hidden_size"]],
    ["query heads, KV heads, head_dim", f'{config["num_attention_heads"]}, {config["num_key_value_heads"]}, '
                                        f'{config["head_dim"]}'],
    ["SwiGLU size", config["intermediate_size"]],
    ["context", config["max_position_embeddings"]],
    ["RoPE theta", config["rope_theta"]],
    ["embedding", "tied"]])}
`AutoModelForCausalLM.from_pretrained(FOLDER)` of Hugging Face transformers loads it.

## What it is worth

{evaluation_table(evaluation, run["baselines"])}
Each byte of the held-out text is predicted from at least {config["max_position_embeddings"] // 2} bytes before it, or from
all there are; the n-gram and xz have all of them.

Values copied from earlier in the context (`retrieval.jsonl`, described in `retrieval_text.py`):

{retrieval_table(evaluation["retrieval"])}
## How it was trained

{table(["", ""], [
    ["command", f'`{run["command"]}`'],
    ["revision", run["revision"]],
    ["machine", run["machine"]],
    ["software", run["software"]],
    ["date", run["date"]],
    ["steps", f'{run["steps"]} of {run["planned_steps"] or "an unknown number"}'],
    ["bytes a step", f'{run["rows"] * config["max_position_embeddings"]:,} ({run["rows"]} rows, '
                     f'{run["retrieval_rows"]} of them key-value documents)'],
    ["bytes in all", f'{run["steps"] * run["rows"] * config["max_position_embeddings"]:,}'],
    ["training", f'{run["seconds"]:.0f} s without the first step, which compiles'],
    ["optimiser", run["optimiser"]],
    ["started from", run["started_from"]]])}
Losses in nats a byte: of the last seconds' batches before the step, and of the held-out text.

{table(["step", "batches: text", "batches: key-value documents", "held-out", "values retrieved"],
       [[step, nats(text), nats(pairs), nats(heldout), f"{retrieved:.3f}"]
        for step, text, pairs, heldout, retrieved in run["curve"]])}
## Text

Training text: {len(corpus.training):,} bytes of source code and documentation (.py, .md, .rst, package descriptions) found
on the training machine, of packages under licences without copyleft; files of equal content once.

{table(["package", "version", "licence", "bytes"],
       [[name, version, licence, f"{size:,}"] for name, version, licence, size in corpus.training_sources])}
Held-out text (`heldout.txt`): {len(corpus.heldout):,} bytes. Nothing else of these packages was trained on either; their
licences are in `heldout_licences.txt`. {corpus.overlap:.1%} of the bytes are in lines of 30 bytes or more that occur in
the training text as well.

{table(["package", "version", "licence", "bytes", "files, in this order"],
       [[name, version, licence, f"{size:,}", " ".join(f"`{file}`" for file in names)]
        for name, version, licence, size, names in corpus.heldout_sources])}
## Files

{table(["file", "bytes", "SHA-256"],
       [[f"`{name}`", len(data), f"`{sha256(data)}`"] for name, data in sorted(files.items())])}"""
