# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""llama.cpp's `llama_decode`, through the library that llama-cpp-python builds for this machine: a sequence for each request."""

import importlib.metadata

import numpy

NAME = "llama.cpp"

# The most tokens in a batch, as many as in a step of Martlet's engine.
BATCH = 512


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def load(path, threads, most):
    import llama_cpp

    requests, tokens = most
    batch_tokens = max(BATCH, requests)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path} cannot be read")
    settings = llama_cpp.llama_context_default_params()
    # A sequence's share of the context is rounded up to a whole number of its own.
    settings.n_ctx = requests * (-(-tokens // 256) * 256)
    settings.n_seq_max = requests
    settings.n_batch = settings.n_ubatch = batch_tokens
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise RuntimeError(f"no context for {requests} requests of {tokens} tokens")
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(batch_tokens, 0, 1)

    def decode(entries):
        """Runs (sequence, position, token, whether its logits are asked for), at most a batch; the most probable next tokens of those asked for."""
        for index, (sequence, position, token, wants) in enumerate(entries):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, wants
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        batch.n_tokens = len(entries)
        status = llama_cpp.llama_decode(context, batch)
        if status:
            raise RuntimeError(f"llama_decode gives {status}")
        rows = [(entry[0], index) for index, entry in enumerate(entries) if entry[3]]
        return {sequence: int(numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, index), (words,)).argmax())
                for sequence, index in rows}

    def run(prompts, count):
        llama_cpp.llama_memory_clear(memory, False)
        entries = [(sequence, position, token, position == len(prompt) - 1)
                   for sequence, prompt in enumerate(prompts) for position, token in enumerate(prompt)]
        answers = [[] for _ in prompts]
        for start in range(0, len(entries), batch_tokens):
            for sequence, token in decode(entries[start:start + batch_tokens]).items():
                answers[sequence].append(token)
        while len(answers[0]) < count:
            entries = [(sequence, len(prompts[sequence]) + len(answer) - 1, answer[-1], True) for sequence, answer in enumerate(answers)]
            for sequence, token in decode(entries).items():
                answers[sequence].append(token)
        return answers

    return run
