#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Plants one violation of each rule in a small tree and expects check-layering.py to name its file and line.

    python3 Scripts/test_check_layering.py
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("check-layering.py")

CLEAN = {
    "Package.swift": "let package = 1\n",
    "Sources/CMartletKernels/kernels.c": "#include <stdint.h>\nvoid martlet_add(float *x) { x[0] += 1; }\n",
    "Sources/MartletCore/Tensor.swift": "public struct Tensor {}\n",
    "Sources/MartletCPU/CPUDevice.swift": "import CMartletKernels\npublic import MartletCore\nimport Synchronization\n",
    "Sources/MartletModels/Llama.swift": "public import MartletAttention\nimport CMartletLibc\nimport MartletFormats\n",
    "Sources/Martlet/LLM.swift": "import Foundation\nimport Logging\npublic import MartletCore\nlet clock = ContinuousClock()\n",
    "Sources/Martlet/Script.swift": 'let script = """\n  import hashlib\n  """\n',
    "Sources/Martlet/Engine/EngineParts.swift": "internal import MartletCPU\n",
    "Sources/MartletCLI/Generate.swift": "import ArgumentParser\nlet home = getenv(\"HOME\")\n// unsafeFlags are named in a comment only\n",
}

# rule: (file, text of the file, line of the violation, words of the message)
VIOLATIONS = {
    "an arrow upwards": (
        "Sources/MartletCore/Up.swift", "// idea\n\nimport MartletKVCache\n", 3, "MartletCore may not import MartletKVCache"),
    "an arrow sideways": ("Sources/MartletFormats/Side.swift", "public import MartletTokenizers\n", 1, "may not import MartletTokenizers"),
    "an import of one symbol": (
        "Sources/MartletKVCache/Pool.swift", "import struct MartletAttention.AttentionMask\n", 1, "may not import MartletAttention"),
    "an import with attributes": (
        "Sources/MartletKVCache/Pool.swift", "@_spi(Kernels) @preconcurrency package import MartletModels\n", 1,
        "may not import MartletModels"),
    "a device above the device": ("Sources/MartletModels/Cpu.swift", "import MartletCPU\n", 1, "may not import MartletCPU"),
    "the CPU outside the default": ("Sources/Martlet/Runner.swift", "import MartletCPU\n", 1, "only in EmbeddingParts.swift"),
    "kernels outside the device": ("Sources/MartletCLI/Bench.swift", "\nimport CMartletKernels\n", 2, "only MartletCPU"),
    "a log below Martlet": ("Sources/MartletAttention/Log.swift", "import Logging\n", 1, "may not import Logging"),
    "an answer's reader that knows tokens": (
        "Sources/MartletAnswers/Parser.swift", "import MartletTokenizers\n", 1, "MartletAnswers may not import MartletTokenizers"),
    "Foundation below Martlet": ("Sources/MartletCore/Data.swift", "import Foundation\n", 1, "may not import Foundation"),
    "a platform's name of the C library": ("Sources/MartletCPU/Pool.swift", "import Glibc\n", 1, "import CMartletLibc"),
    "a platform's name under a condition": (
        "Sources/MartletFormats/Map.swift", "#if canImport(Musl)\n  import Musl\n#endif\n", 2, "import CMartletLibc"),
    "a clock below Martlet": (
        "Sources/MartletAttention/Time.swift", "let start = ContinuousClock.now\n", 1, "keeps no time"),
    "a clock in the test kit": (
        "Sources/MartletAttentionTestKit/Timer.swift", "public struct Timer { var clock: any Clock<Duration> }\n", 1, "times nothing"),
    "a clock in a kernel": ("Sources/CMartletKernels/time.c", "int f(void) { return clock_gettime(0, 0); }\n", 1, "keeps no time"),
    "an allocation in a kernel": ("Sources/CMartletKernels/memory.c", "\nvoid *f(void) { return malloc (4); }\n", 2, "do not allocate"),
    "the environment below the command line": (
        "Sources/Martlet/Home.swift", "let home = getenv(\"HOME\")\n", 1, "only the command line"),
    "an unknown outside module": ("Sources/Martlet/Net.swift", "import NIOCore\n", 1, "may not import NIOCore"),
    "a type named like a module": ("Sources/Martlet/Name.swift", "public enum Martlet {}\n", 1, "named like a module"),
    "a resource bundle": ("Sources/Martlet/Resource.swift", "let url = Bundle.module\n", 1, "Bundle.module"),
    "unsafe flags in the manifest": ("Package.swift", "let x = 1\nlet s = [.unsafeFlags([\"-O3\"])]\n", 2, "unsafeFlags"),
    "unsafe flags in a source": ("Sources/MartletCLI/Flags.swift", "let s = unsafeFlags\n", 1, "unsafeFlags"),
    "a module without a row": ("Sources/MartletNew/New.swift", "import MartletCore\n", 1, "no row"),
}


def run(extra):
    """Runs the check over the clean tree with `extra` files, returns (exit status, output)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (CLEAN | extra).items():
            file = pathlib.Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        done = subprocess.run([sys.executable, str(SCRIPT), folder], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


class Layering(unittest.TestCase):
    def test_a_clean_tree_passes(self):
        status, output = run({})
        self.assertEqual(status, 0, output)

    def test_every_rule_finds_its_violation_and_nothing_else(self):
        for name, (file, text, line, words) in VIOLATIONS.items():
            with self.subTest(name):
                status, output = run({file: text})
                place = file if name != "a module without a row" else "Sources/MartletNew"
                self.assertEqual(status, 1, output)
                self.assertEqual(len(output.splitlines()), 1, output)
                self.assertTrue(output.startswith(f"{place}:{line}: "), output)
                self.assertIn(words, output)


if __name__ == "__main__":
    unittest.main()
