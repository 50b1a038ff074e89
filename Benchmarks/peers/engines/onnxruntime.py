# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""ONNX Runtime's GroupQueryAttention: a model of this one node, float32. A run appends the new tokens and attends.

Past and present are one buffer of [requests, kv_heads, tokens, dims], so that nothing is copied but the new tokens.
"""

import importlib.metadata

import numpy

import workload as workloads

NAME = "onnxruntime GQA"
DTYPES = ("f32",)


def available():
    """The version, or None."""
    try:
        importlib.metadata.version("onnx")  # writes the model
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        return None


def supports(workload, dtype):
    """Prompts from the first token, and generation of one token."""
    return dtype in DTYPES and (workload.new == 1 or workload.cached == 0)


def _model(workload):
    """The one-node model, as bytes."""
    from onnx import TensorProto, helper

    number, integer = TensorProto.FLOAT, TensorProto.INT32
    inputs = {
        "query": (number, [None, None, workload.query_heads * workload.dims]),
        "key": (number, [None, None, workload.kv_heads * workload.dims]),
        "value": (number, [None, None, workload.kv_heads * workload.dims]),
        "past_key": (number, [None, workload.kv_heads, None, workload.dims]),
        "past_value": (number, [None, workload.kv_heads, None, workload.dims]),
        "seqlens_k": (integer, [None]),
        "total_sequence_length": (integer, [1]),
    }
    outputs = {
        "output": inputs["query"],
        "present_key": inputs["past_key"],
        "present_value": inputs["past_value"],
    }
    node = helper.make_node("GroupQueryAttention", list(inputs), list(outputs), domain="com.microsoft",
                            num_heads=workload.query_heads, kv_num_heads=workload.kv_heads)
    infos = [[helper.make_tensor_value_info(name, *kind) for name, kind in names.items()] for names in (inputs, outputs)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([node], "attention", *infos), opset_imports=opsets, ir_version=8).SerializeToString()


def _tensors(workload):
    """The model's inputs; past_key and past_value have room for the new tokens, which are there only as key and value."""
    shape = (workload.requests, workload.kv_heads, workload.tokens, workload.dims)
    past_keys, past_values = numpy.zeros(shape, numpy.float32), numpy.zeros(shape, numpy.float32)
    new_keys, new_values = [], []
    for request in range(workload.requests):
        keys, values = workloads.keys_and_values(workload, request)
        past_keys[request, :, :workload.cached] = keys[:workload.cached].transpose(1, 0, 2)
        past_values[request, :, :workload.cached] = values[:workload.cached].transpose(1, 0, 2)
        new_keys.append(keys[workload.cached:])
        new_values.append(values[workload.cached:])
    flat = (workload.requests, workload.new, -1)
    return {
        "query": workloads.queries(workload).reshape(flat),
        "key": numpy.stack(new_keys).reshape(flat),
        "value": numpy.stack(new_values).reshape(flat),
        "past_key": past_keys,
        "past_value": past_values,
        "seqlens_k": numpy.full(workload.requests, workload.tokens - 1, numpy.int32),
        "total_sequence_length": numpy.array([workload.tokens], numpy.int32),
    }


def prepare(workload, dtype, threads):
    """Makes the session and binds its inputs and outputs to memory that stays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(_model(workload), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x) for name, x in _tensors(workload).items()}
    values["output"] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(values["query"].shape(), numpy.float32, "cpu")
    values["present_key"], values["present_value"] = values["past_key"], values["past_value"]
    for argument in session.get_inputs():
        binding.bind_ortvalue_input(argument.name, values[argument.name])
    for result in session.get_outputs():
        binding.bind_ortvalue_output(result.name, values[result.name])
    shape = (workload.requests, workload.new, workload.query_heads, workload.dims)

    def run():
        session.run_with_iobinding(binding)
        return lambda: values["output"].numpy().reshape(shape)

    return run
