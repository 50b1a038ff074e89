# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""llama.cpp's flash attention on the CPU: a graph of this one operation, through the ggml library in the wheel that llama-cpp-python builds.

Caches lie as llama.cpp keeps them, token after token, all heads of each. Nothing is appended in the timed part.
"""

import ctypes
import importlib.metadata
import importlib.util
import pathlib

import numpy

import workload as workloads

NAME = "llama.cpp flash attention"
# Its cache of 8 bits is Q8_0: 32 numbers share a scale. Of the others f32 is its fastest for prompts, and as fast as f16 for generation; with
# bf16 a prompt takes it nine times as long.
DTYPES = ("f32", "int8")
# ggml's numbers of types. Masks are f16.
TYPES = {"f32": 0, "f16": 1, "int8": 8}


class _Parameters(ctypes.Structure):
    """ggml_init_params: how much memory the descriptions of tensors take."""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def available():
    """The version, or None."""
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def supports(workload, dtype):
    """Prompts, continued prompts and generation; Q8_0 takes 32 numbers at a time."""
    return dtype in DTYPES and (dtype != "int8" or workload.dims % 32 == 0)


def _library():
    """The functions of ggml that are called here, with what they take and give."""
    folder = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib"
    base, cpu = (ctypes.CDLL(str(folder / f"lib{name}.so"), ctypes.RTLD_GLOBAL) for name in ("ggml-base", "ggml-cpu"))
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    for library, name, result, arguments in [
        (base, "ggml_init", pointer, [_Parameters]),
        (base, "ggml_free", None, [pointer]),
        (base, "ggml_new_tensor_4d", pointer, [pointer, ctypes.c_int] + [number] * 4),
        (base, "ggml_permute", pointer, [pointer, pointer] + [ctypes.c_int] * 4),
        (base, "ggml_flash_attn_ext", pointer, [pointer] * 5 + [ctypes.c_float] * 3),
        (base, "ggml_new_graph", pointer, [pointer]),
        (base, "ggml_build_forward_expand", None, [pointer, pointer]),
        (base, "ggml_quantize_chunk", size, [ctypes.c_int, pointer, pointer, number, number, number, pointer]),
        (base, "ggml_backend_alloc_ctx_tensors", pointer, [pointer, pointer]),
        (base, "ggml_backend_tensor_set", None, [pointer, pointer, size, size]),
        (base, "ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
        (base, "ggml_backend_graph_compute", ctypes.c_int, [pointer, pointer]),
        (base, "ggml_backend_buffer_free", None, [pointer]),
        (base, "ggml_backend_free", None, [pointer]),
        (cpu, "ggml_backend_cpu_init", pointer, []),
        (cpu, "ggml_backend_cpu_set_n_threads", None, [pointer, ctypes.c_int]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(base, name, function)
    return base


class _Graph:
    """One attention operation with its tensors; freed with the object."""

    def __init__(self, workload, dtype, threads):
        self.workload, self.ggml = workload, _library()
        self.backend = self.ggml.ggml_backend_cpu_init()
        self.ggml.ggml_backend_cpu_set_n_threads(self.backend, threads)
        self.context = self.ggml.ggml_init(_Parameters(1 << 20, None, True))
        self.q = self._tensor("f32", workload.dims, workload.new, workload.query_heads, workload.requests)
        self.keys, self.values = (
            self._tensor(dtype, workload.dims, workload.kv_heads, workload.tokens, workload.requests) for _ in range(2))
        # All requests see the same; some versions read a mask of whole 64 queries.
        self.mask = self._tensor("f16", workload.tokens, -(-workload.new // 64) * 64, 1, 1)
        k, v = (self.ggml.ggml_permute(self.context, x, 0, 2, 1, 3) for x in (self.keys, self.values))
        self.output = self.ggml.ggml_flash_attn_ext(self.context, self.q, k, v, self.mask, workload.dims**-0.5, 0, 0)
        self.graph = self.ggml.ggml_new_graph(self.context)
        self.ggml.ggml_build_forward_expand(self.graph, self.output)
        self.buffer = self.ggml.ggml_backend_alloc_ctx_tensors(self.context, self.backend)

    def _tensor(self, dtype, *shape):
        return self.ggml.ggml_new_tensor_4d(self.context, TYPES[dtype], *shape)

    def set(self, tensor, array, offset=0):
        """Copies an array to a tensor, from `offset` bytes on."""
        array = numpy.ascontiguousarray(array)
        self.ggml.ggml_backend_tensor_set(tensor, array.ctypes.data, offset, array.nbytes)

    def run(self):
        """Computes the operation."""
        if self.ggml.ggml_backend_graph_compute(self.backend, self.graph) != 0:
            raise RuntimeError("ggml_backend_graph_compute failed")

    def result(self):
        """float32 [requests, new, query_heads, dims]."""
        workload = self.workload
        x = numpy.empty((workload.requests, workload.new, workload.query_heads, workload.dims), numpy.float32)
        self.ggml.ggml_backend_tensor_get(self.output, x.ctypes.data, 0, x.nbytes)
        return x

    def __del__(self):
        if hasattr(self, "buffer"):
            self.ggml.ggml_backend_buffer_free(self.buffer)
            self.ggml.ggml_free(self.context)
            self.ggml.ggml_backend_free(self.backend)


def _numbers(ggml, x, dtype):
    """float32 [tokens, heads, dims] in the cache's type."""
    if dtype == "f32":
        return x
    x = numpy.ascontiguousarray(x)
    blocks = numpy.empty(x.size // 32 * 34, numpy.uint8)
    ggml.ggml_quantize_chunk(TYPES[dtype], x.ctypes.data, blocks.ctypes.data, 0, x.size // x.shape[-1], x.shape[-1], None)
    return blocks


def prepare(workload, dtype, threads):
    """Makes the graph and fills its tensors."""
    graph = _Graph(workload, dtype, threads)
    graph.set(graph.q, workloads.queries(workload).transpose(0, 2, 1, 3))
    for request in range(workload.requests):
        for tensor, x in zip((graph.keys, graph.values), workloads.keys_and_values(workload, request)):
            numbers = _numbers(graph.ggml, x, dtype)
            graph.set(tensor, numbers, request * numbers.nbytes)
    sees = numpy.arange(workload.tokens) <= workload.cached + numpy.arange(workload.new)[:, None]
    graph.set(graph.mask, numpy.where(sees, 0, -numpy.inf).astype(numpy.float16))

    def run():
        graph.run()
        return graph.result

    return run
