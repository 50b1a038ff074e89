#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Compiles every CUDA kernel for every kind of device, without one: NVRTC and the disassembler come as Python packages.

    Scripts/check-cuda-kernels.py [--update] [--source NAME] [--architecture NAME] [--tools FOLDER]

Compares registers, spilled bytes and the instructions that a kernel's speed hangs on with the table beside this script (cuda-kernels.txt), which --update
writes anew. A kernel that is marked hot and spills registers is an error whatever the table says. --source compiles the kernels of one file only,
--architecture for one kind of device only, and compares those. --tools is a folder to which the packages were installed, or will be; without it they are installed to a temporary one.
"""

import argparse
import concurrent.futures
import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv

VERSION = "13.5.37"
PACKAGES = [f"nvidia-cuda-{part}=={VERSION}" for part in ("nvrtc", "nvdisasm", "cuobjdump")]
ARCHITECTURES = ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120"]
# Instructions that are counted: tensor cores, loads of their tiles, asynchronous copies, loads and stores of spilled registers, conversions.
INSTRUCTIONS = ["HMMA", "QMMA", "LDSM", "LDGSTS", "LDL", "STL", "F2FP"]
ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = pathlib.Path(__file__).with_name("cuda-kernels.txt")


class Source(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("text", ctypes.c_char_p), ("count", ctypes.c_size_t)]


class Kernel(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("source", ctypes.c_char_p), ("definition", ctypes.c_char_p), ("threads", ctypes.c_int32),
                ("argument_bytes", ctypes.c_int32), ("is_hot", ctypes.c_bool)]


def clang():
    found = shutil.which("clang")
    if not found and (swift := shutil.which("swift")):
        found = pathlib.Path(swift).resolve().with_name("clang")
    if not found or not os.access(found, os.X_OK):
        sys.exit("clang is not on the PATH, nor beside swift; a Swift toolchain has it (https://www.swift.org/install)")
    return str(found)


def load_kernels(folder):
    """What the package has embedded: sources, options and kernels."""
    library = folder / "kernels.so"
    target = ROOT / "Sources/CMartletCUDAKernels"
    subprocess.run([clang(), "-std=gnu17", "-shared", "-fPIC", "-I", target / "include", target / "CMartletCUDAKernels.c", "-o", library], check=True)
    c = ctypes.CDLL(str(library))
    c.martlet_cuda_source_count.restype = c.martlet_cuda_option_count.restype = ctypes.c_size_t
    c.martlet_cuda_source_at.restype, c.martlet_cuda_source_at.argtypes = Source, [ctypes.c_size_t]
    c.martlet_cuda_option_at.restype, c.martlet_cuda_option_at.argtypes = ctypes.c_char_p, [ctypes.c_size_t]
    c.martlet_cuda_kernel_at.restype, c.martlet_cuda_kernel_at.argtypes = Kernel, [ctypes.c_int32]
    sources = {}
    for i in range(c.martlet_cuda_source_count()):
        source = c.martlet_cuda_source_at(i)
        sources[source.name] = source.text
    options = [c.martlet_cuda_option_at(i) for i in range(c.martlet_cuda_option_count())]
    # An enumeration is in no library: a program of one line says how many kernels there are.
    program = '#include <stdio.h>\n#include "martlet_cuda_kernels.h"\nint main(void) { printf("%d", martlet_cuda_kernel_count); }'
    subprocess.run([clang(), "-std=gnu17", "-x", "c", "-", "-I", target / "include", "-o", folder / "count"], input=program, text=True, check=True)
    number = int(subprocess.run([folder / "count"], capture_output=True, text=True, check=True).stdout)
    kernels = []
    for i in range(number):
        kernel = c.martlet_cuda_kernel_at(i)
        kernels.append((kernel.name.decode(), kernel.source, kernel.definition, kernel.is_hot))
    return sources, options, kernels


def install(folder):
    """The folder of the packages' libraries and programs."""
    if not list(folder.glob("lib/python*/site-packages/nvidia/cu13/lib/libnvrtc.so.13")):
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
    return next(folder.glob("lib/python*/site-packages/nvidia/cu13"))


def compile_program(tools, sources, options, program, architecture):
    """The cubin of one (source, definition), and the assembler's remarks."""
    nvrtc = ctypes.CDLL(str(tools / "lib/libnvrtc.so.13"))
    source, definition = program
    headers = [(name, text) for name, text in sources.items() if not name.endswith(b".cu")]
    handle = ctypes.c_void_p()
    code = nvrtc.nvrtcCreateProgram(
        ctypes.byref(handle), sources[source], source, len(headers), (ctypes.c_char_p * len(headers))(*(text for _, text in headers)),
        (ctypes.c_char_p * len(headers))(*(name for name, _ in headers)))
    if code:
        sys.exit(f"nvrtcCreateProgram: error {code}")
    arguments = [*options, b"--gpu-architecture=" + architecture.encode(), b"--ptxas-options=-v"]
    if definition:
        arguments.append(b"-D" + definition)
    code = nvrtc.nvrtcCompileProgram(handle, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(handle, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(handle, log)
    remarks = log.value.decode()
    if code:
        sys.exit(f"{source.decode()} {definition.decode()} for {architecture} does not compile:\n{remarks}")
    if warnings := [line for line in remarks.splitlines() if "warning" in line]:
        sys.exit(f"{source.decode()} {definition.decode()} for {architecture}:\n" + "\n".join(warnings))
    nvrtc.nvrtcGetCUBINSize(handle, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(handle, cubin)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))
    return cubin.raw, remarks


def registers_of(remarks):
    """kernel: (registers, spilled bytes) of the assembler's remarks."""
    found = {}
    name = spills = None
    for line in remarks.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name = match[1]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spills = int(match[2]) + int(match[3])
        elif (match := re.search(r"Used (\d+) registers", line)) and name:
            found[name] = (int(match[1]), spills)
    return found


def instructions_of(tools, cubin, folder):
    """kernel: {instruction: how often it is in the code}."""
    file = tempfile.NamedTemporaryFile(dir=folder, suffix=".cubin", delete=False)
    file.write(cubin)
    file.close()
    text = subprocess.run([tools / "bin/nvdisasm", "-c", file.name], capture_output=True, text=True, check=True).stdout
    os.unlink(file.name)
    counts, name = {}, None
    for line in text.splitlines():
        if match := re.match(r"\.section\s+\.text\.(\w+)", line.strip()):
            name = match[1]
            counts[name] = dict.fromkeys(INSTRUCTIONS, 0)
        elif name and (match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z0-9]+)", line)):
            if match[1] in counts[name]:
                counts[name][match[1]] += 1
    return counts


def check(tools, folder, sources, options, kernels, architectures):
    """Lines of the table, and errors."""
    programs = sorted({(source, definition) for _, source, definition, _ in kernels})
    jobs = [(program, architecture) for program in programs for architecture in architectures]
    lines, errors = [], []

    def job(program, architecture):
        cubin, remarks = compile_program(tools, sources, options, program, architecture)
        return registers_of(remarks), instructions_of(tools, cubin, folder)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(jobs, pool.map(lambda one: job(*one), jobs)))
    for name, source, definition, is_hot in kernels:
        for architecture in architectures:
            registers, counts = results[(source, definition), architecture]
            if name not in registers:
                errors.append(f"{source.decode()} has no kernel {name}")
                break
            used, spilled = registers[name]
            if is_hot and spilled:
                errors.append(f"{name} for {architecture} spills {spilled} bytes")
            words = [f"{instruction} {count}" for instruction, count in counts[name].items() if count]
            lines.append(" ".join([f"{name:32} {architecture:8} {used:4} registers {spilled:5} spilled", *words]).rstrip())
    return lines, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--source")
    parser.add_argument("--architecture", choices=ARCHITECTURES)
    parser.add_argument("--tools", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tools = install(arguments.tools or folder / "tools")
        sources, options, kernels = load_kernels(folder)
        if arguments.source:
            kernels = [kernel for kernel in kernels if kernel[1].decode() == arguments.source]
            if not kernels:
                sys.exit(f"no kernel is in {arguments.source}")
        architectures = [arguments.architecture] if arguments.architecture else ARCHITECTURES
        lines, errors = check(tools, folder, sources, options, kernels, architectures)
    compiled = {(kernel[0], architecture) for kernel in kernels for architecture in architectures}
    is_whole = not arguments.source and not arguments.architecture
    old = TABLE.read_text().splitlines() if TABLE.exists() else []
    if arguments.update:
        kept = [line for line in old if not is_whole and tuple(line.split()[:2]) not in compiled]
        TABLE.write_text("\n".join(sorted(kept + lines)) + "\n")
    else:
        expected = [line for line in old if is_whole or tuple(line.split()[:2]) in compiled]
        for line in sorted(set(expected) - set(lines)):
            errors.append(f"is no longer so: {line}")
        for line in sorted(set(lines) - set(expected)):
            errors.append(f"is new:          {line}")
    if errors:
        print("\n".join(errors))
        sys.exit(f"{len(errors)} differences; --update writes {TABLE.name} anew where they are meant")
    print(f"{len(kernels)} kernels compile for {', '.join(architectures)}; registers and instructions are as the table has them")


if __name__ == "__main__":
    main()
