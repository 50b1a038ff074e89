#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Checks that every module keeps to its floor: who may import whom, and what a floor may not do.

    Scripts/check-layering.py [ROOT]

Reads the sources under ROOT (default: the package this script lies in) line by line; it does not compile them. Prints one line per
violation, `file:line: rule`, and exits with 1 if there is any. ALLOWED is the table: a new module is one more row.
"""

import pathlib
import re
import sys

# module: the modules of this package that it may import
ALLOWED = {
    "CMartletKernels": [],
    "CMartletCUDAKernels": [],
    "CMartletLibc": [],
    "CMartletPage": [],
    "MartletCore": [],
    "MartletCPU": ["MartletCore", "CMartletKernels", "CMartletLibc"],
    "MartletCUDA": ["MartletCore", "CMartletCUDAKernels", "CMartletLibc"],
    "MartletFormats": ["MartletCore", "CMartletLibc"],
    "MartletTemplates": ["CMartletLibc"],
    "MartletTokenizers": ["MartletCore", "MartletFormats", "MartletTemplates"],
    "MartletGrammar": ["MartletFormats"],
    "MartletAnswers": ["MartletTemplates"],
    "MartletKVCache": ["MartletCore"],
    "MartletAttention": ["MartletCore", "MartletKVCache", "CMartletLibc"],
    "MartletAttentionTestKit": ["MartletCore", "MartletKVCache", "MartletAttention", "CMartletLibc"],
    "MartletModels": ["MartletCore", "MartletFormats", "MartletAttention", "MartletKVCache", "CMartletLibc"],
    "Martlet": [
        "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "MartletGrammar", "MartletKVCache",
        "MartletAttention", "MartletModels", "MartletCPU", "CMartletLibc",
    ],
    "MartletServer": [
        "Martlet", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers", "CMartletLibc", "CMartletPage",
    ],
    "MartletCLI": [
        "Martlet", "MartletServer", "MartletCore", "MartletFormats", "MartletTemplates", "MartletTokenizers", "MartletAnswers",
        "MartletKVCache", "MartletAttention", "MartletModels", "MartletCPU", "MartletCUDA", "MartletAttentionTestKit", "CMartletLibc",
    ],
}

# What every module may import from the system.
SYSTEM = ["Swift", "Synchronization"]

# What the C library is called, on one platform each. CMartletLibc has one name for it.
C_LIBRARIES = ["Glibc", "Musl", "Android", "Bionic", "Darwin"]

# module: what else it may import from outside; a module that has no row may import nothing else
OUTSIDE = {
    "Martlet": ["Foundation", "FoundationEssentials", "Logging", "Metrics", "DequeModule"],
    "MartletServer": [
        "Hummingbird", "HummingbirdCore", "HummingbirdTLS", "ServiceLifecycle", "AsyncAlgorithms", "Tracing", "HTTPTypes", "NIOCore", "NIOPosix",
        "NIOHTTPTypes", "NIOSSL", "Logging", "Metrics",
    ],
    "MartletCLI": [
        "Foundation", "FoundationEssentials", "Dispatch", "Logging", "ArgumentParser", "Hummingbird", "ServiceLifecycle",
        "NIOCore", "NIOPosix", "NIOHTTP1",
    ],
}

# The top floors: they may keep time, log, and hold their own clocks.
TOP = ["Martlet", "MartletServer", "MartletCLI"]

# The files of Martlet that name a device: where the default of EngineConfiguration.device is made, and where it is exported.
DEVICE_FILES = ["EmbeddingParts.swift", "EngineParts.swift", "Exports.swift"]

IMPORT = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?"
    r"import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?(\w+)"
)
CLOCK = re.compile(r"\b(?:ContinuousClock|SuspendingClock|DispatchTime|Date\s*\(|clock_gettime|gettimeofday|Task\.sleep|nanosleep|usleep)")
# Even with a clock that is handed in.
TIMING = re.compile(r"\bClock<|\.measure\b")
ENVIRONMENT = re.compile(r"\b(?:getenv|secure_getenv|ProcessInfo\.processInfo\.environment)\b")
ALLOCATION = re.compile(r"\b(?:malloc|calloc|realloc|aligned_alloc|posix_memalign|alloca|free)\s*\(")
TYPE = re.compile(r"\b(?:class|struct|enum|actor|protocol|typealias)\s+(\w+)")
# A test may name the flag; the manifest and the sources may not use it.
UNSAFE_FLAGS = re.compile(r"\bunsafeFlags\b")


def code_of(line):
    """The line without its trailing comment: good enough for rules about names, which do not occur in strings."""
    return re.sub(r"//.*$", "", line)


def check_swift(module, file, number, line):
    if found := IMPORT.match(line):
        name = found.group(1)
        if name in ALLOWED:
            if name == "CMartletKernels" and module != "MartletCPU":
                yield "only MartletCPU imports CMartletKernels: ask the device for the kernel"
            elif name != module and name not in ALLOWED[module]:
                yield f"{module} may not import {name} (it may: {', '.join(ALLOWED[module]) or 'no module of this package'})"
            elif module == "Martlet" and name == "MartletCPU" and file.name not in DEVICE_FILES:
                yield f"Martlet names the CPU only in {', '.join(DEVICE_FILES)}, as the default device"
        elif name in C_LIBRARIES:
            yield f"{name} is one platform's name of the C library: import CMartletLibc, or Foundation where it is allowed"
        elif name not in SYSTEM and name not in OUTSIDE.get(module, []):
            yield f"{module} may not import {name}"
        return
    code = code_of(line)
    if module not in TOP and CLOCK.search(code):
        yield f"{module} lies below Martlet and keeps no time"
    if module == "MartletAttentionTestKit" and TIMING.search(code):
        yield "the test kit times nothing: benchmarks are the command line's"
    if module != "MartletCLI" and ENVIRONMENT.search(code):
        yield "only the command line reads the environment: pass what you need"
    if "Bundle.module" in code:
        yield "Bundle.module binds the binary to its build folder: embed the resource"
    if (found := TYPE.search(code)) and found.group(1) in ALLOWED:
        yield f"no type is named like a module ({found.group(1)})"


def check_c(module, file, number, line):
    code = code_of(line)
    if ALLOCATION.search(code):
        yield "kernels do not allocate: memory is handed in"
    if CLOCK.search(code):
        yield f"{module} lies below Martlet and keeps no time"
    if ENVIRONMENT.search(code):
        yield "only the command line reads the environment: pass what you need"


def check_file(module, file):
    check = check_swift if file.suffix == ".swift" else check_c
    in_text = False  # inside a multi-line string
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if file.suffix == ".swift" and line.count('"""') % 2:
            in_text = not in_text
        if in_text:
            continue
        for rule in check(module, file, number, line):
            yield number, rule
        if UNSAFE_FLAGS.search(code_of(line)):
            yield number, "unsafeFlags make a package that nobody can depend on"


def check_tree(root):
    """Yields (file, line number, rule)."""
    sources = root / "Sources"
    for folder in sorted(path for path in sources.iterdir() if path.is_dir()):
        if folder.name not in ALLOWED:
            yield folder, 1, f"module {folder.name} has no row in the table of {pathlib.Path(__file__).name}"
            continue
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".swift", ".c", ".h"):
                for number, rule in check_file(folder.name, file):
                    yield file, number, rule
    for manifest in sorted(root.glob("Package*.swift")):
        for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
            if UNSAFE_FLAGS.search(code_of(line)):
                yield manifest, number, "unsafeFlags make a package that nobody can depend on"


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    violations = list(check_tree(root))
    for file, number, rule in violations:
        print(f"{file.relative_to(root)}:{number}: {rule}")
    if violations:
        sys.exit(1)
    print(f"layering: {len(ALLOWED)} modules keep to their floors")


if __name__ == "__main__":
    main()
