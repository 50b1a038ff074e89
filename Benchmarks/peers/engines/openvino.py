# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""OpenVINO's PagedAttentionExtension: a model of this one operation, with its own paged cache. A run appends the new tokens and attends.

The operation is internal to OpenVINO and its inputs change; this is the form of 2026.4, with 28 of them.
"""

import importlib.metadata

import numpy

import workload as workloads

NAME = "OpenVINO PagedAttention"


def _has_bf16():
    """Whether OpenVINO computes in bf16 on this processor; without AVX-512 it does not, nor does it then read a cache of bf16."""
    try:
        import openvino
    except ImportError:
        return True
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


HAS_BF16 = _has_bf16()
DTYPES = ("bf16", "f32", "int8") if HAS_BF16 else ("f32", "int8")

# Tokens in a block of the CPU plugin.
BLOCK = 32
# Blocks that one call fills before the timing starts.
FILLED_AT_ONCE = 256

# The inputs in their order: name, element type, rank; None for what depends on the workload.
INPUTS = [
    ("query", None, 2), ("key", None, 2), ("value", None, 2), ("key_cache.0", None, 4), ("value_cache.0", None, 4),
    ("past_lens", "i32", 1), ("subsequence_begins", "i32", 1), ("block_indices", "i32", 1), ("block_indices_begins", "i32", 1),
    ("scale", "f32", 0), ("sliding_window", "i32", 0), ("alibi_slopes", "f32", 1), ("max_context_len", "i32", 0),
    ("score_aggregation_window", "i32", 1), ("rotated_block_indices", "i32", 1), ("rotation_deltas", "i32", 1),
    ("rotation_trig_lut", "f32", 1), ("xattention_threshold", "f32", 1), ("xattention_block_size", "i32", 0),
    ("xattention_stride", "i32", 0), ("sinks", "f32", 1), ("adaptive_rkv_start_size", "i32", 0),
    ("adaptive_rkv_evictable_sizes", "i32", 1), ("adaptive_rkv_diversity_block_set_indices", "i32", 1),
    ("adaptive_rkv_diversity_block_set_indices_begins", "i32", 1), ("token_type_ids", "i32", 1), ("qq_bias", "u8", 1),
    ("qq_bias_begins", "i32", 1),
]
NUMBERS = {"f32": numpy.float32, "i32": numpy.int32, "u8": numpy.uint8}
FROM_THE_CALL = {"past_lens", "subsequence_begins", "block_indices", "block_indices_begins", "max_context_len"}


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


def supports(workload, dtype):
    """Prompts, continued prompts and generation."""
    return dtype in DTYPES


def _computes_in_f32(dtype):
    return dtype == "f32" or not HAS_BF16


def _model(workload, dtype):
    """The one-operation model. Where it computes in bf16, queries, keys and values come in as bf16, so that no conversion is timed."""
    import openvino
    from openvino import opset13
    from openvino.op import _PagedAttentionExtension

    number = openvino.Type.f32 if _computes_in_f32(dtype) else openvino.Type.bf16
    width = workload.kv_heads * workload.dims
    shapes = {"query": [-1, workload.query_heads * workload.dims], "key": [-1, width], "value": [-1, width]}
    parameters, arguments = [], []
    for name, element, rank in INPUTS:
        if name in shapes or name in FROM_THE_CALL or "cache" in name:
            shape = shapes.get(name, [-1] * rank)
            kind = openvino.Type.dynamic if "cache" in name else number if name in shapes else getattr(openvino.Type, element)
            node = opset13.parameter(openvino.PartialShape(shape), kind, name=name)
            node.get_output_tensor(0).set_names({name})
            parameters.append(node)
        else:
            value = 1 / workload.dims**0.5 if name == "scale" else 0
            # An empty vector is a feature that is off.
            node = openvino.op.Constant(numpy.full([0] * rank, value, NUMBERS[element]))
        arguments.append(node.output(0))
    attention = _PagedAttentionExtension(arguments)
    for key, value in {"num_k_heads": workload.kv_heads, "k_head_size": workload.dims, "num_v_heads": workload.kv_heads,
                       "v_head_size": workload.dims}.items():
        attention.get_rt_info()[key] = value
    return openvino.Model([attention.output(0)], parameters, "attention")


def _compile(workload, dtype, threads):
    import openvino

    return openvino.Core().compile_model(_model(workload, dtype), "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32" if _computes_in_f32(dtype) else "bf16",
        "KV_CACHE_PRECISION": {"f32": "f32", "bf16": "bf16", "int8": "u8"}[dtype],
    })


def _numbers(x, dtype):
    """float32 [tokens, heads, dims] as the model takes it: [tokens, heads · dims], float32, or bf16 in uint16."""
    x = numpy.ascontiguousarray(x.reshape(x.shape[0], -1))
    return x if _computes_in_f32(dtype) else workloads.bfloat16_bits(x)


def _empty_cache(port, blocks):
    """A cache of zeros in the shape and type that the compiled model asks for; NumPy's memory, which asks for huge pages."""
    shape = [blocks] + [dimension.get_length() for dimension in list(port.partial_shape)[1:]]
    return numpy.zeros(shape, {1: numpy.uint8, 2: numpy.uint16, 4: numpy.float32}[port.element_type.size])


def prepare(workload, dtype, threads):
    """Compiles the model and fills the cache with the cached tokens, by the operation itself."""
    import openvino

    request = _compile(workload, dtype, threads).create_infer_request()
    ports = {port.any_name: port for port in request.model_inputs}
    memory = {}  # A tensor does not keep the array alive whose memory it is.

    def share(name, array):
        request.set_tensor(name, openvino.Tensor(array, openvino.Shape(array.shape), ports[name].element_type))
        memory[name] = array

    per_request = -(-workload.tokens // BLOCK)
    for name in ("key_cache.0", "value_cache.0"):
        share(name, _empty_cache(ports[name], per_request * workload.requests))

    def step(q, k, v, past, begins, blocks, block_begins):
        """Sets one call's tokens and where they go."""
        for name, x in (("query", q), ("key", k), ("value", v)):
            share(name, _numbers(x, dtype))
        longest = max(p + e - b for p, b, e in zip(past, begins, begins[1:]))
        numbers = {"past_lens": past, "subsequence_begins": begins, "block_indices": blocks, "block_indices_begins": block_begins,
                   "max_context_len": longest}
        for name, value in numbers.items():
            share(name, numpy.array(value, numpy.int32))

    def fill(keys, values, first_block):
        """Caches [tokens, kv_heads, dims]: every block as a short prompt of its own, so that the time grows with the tokens only."""
        for start in range(0, len(keys), BLOCK * FILLED_AT_ONCE):
            k, v = keys[start:start + BLOCK * FILLED_AT_ONCE], values[start:start + BLOCK * FILLED_AT_ONCE]
            count = -(-len(k) // BLOCK)
            begins = [min(i * BLOCK, len(k)) for i in range(count + 1)]
            q = numpy.zeros((len(k), workload.query_heads, workload.dims), numpy.float32)
            block = first_block + start // BLOCK
            step(q, k, v, [0] * count, begins, range(block, block + count), range(count + 1))
            request.infer()

    new_keys, new_values = [], []
    for index in range(workload.requests):
        keys, values = workloads.keys_and_values(workload, index)
        fill(keys[:workload.cached], values[:workload.cached], index * per_request)
        new_keys.append(keys[workload.cached:])
        new_values.append(values[workload.cached:])
    counts = range(workload.requests + 1)
    step(numpy.concatenate(workloads.queries(workload)), numpy.concatenate(new_keys), numpy.concatenate(new_values),
         [workload.cached] * workload.requests, [workload.new * i for i in counts], range(per_request * workload.requests),
         [per_request * i for i in counts])
    shape = (workload.requests, workload.new, workload.query_heads, workload.dims)

    def output():
        tensor = request.get_output_tensor(0)
        if tensor.element_type == openvino.Type.bf16:
            return workloads.bfloat16_values(tensor.data.view(numpy.uint16)).reshape(shape)
        return tensor.data.astype(numpy.float32).reshape(shape)

    def run(alive=memory):  # holds the arrays for as long as the model reads them
        request.infer()
        return output

    return run
