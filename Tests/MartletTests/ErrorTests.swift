// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTemplates
import MartletTokenizers
import Testing

@Suite("The errors of the library")
struct ErrorTests {
  /// The optimiser of Swift 6.3 crashes on an async function that calls another async one, inlined, that calls what throws a typed error returned
  /// in several registers: one of two to four words. A caller's program is not to meet that.
  @Test("are one word wide, or more than four")
  func sizes() {
    let words = MemoryLayout<Int>.size
    let sizes: [(String, Int)] = [
      ("AttentionError", MemoryLayout<AttentionError>.size), ("CheckpointError", MemoryLayout<CheckpointError>.size),
      ("DeviceError", MemoryLayout<DeviceError>.size), ("GGUFError", MemoryLayout<GGUFError>.size),
      ("GrammarError", MemoryLayout<GrammarError>.size), ("JSONError", MemoryLayout<JSONError>.size),
      ("KVCacheError", MemoryLayout<KVCacheError>.size),
      ("LLMError", MemoryLayout<LLMError>.size), ("ModelError", MemoryLayout<ModelError>.size),
      ("ModelStoreError", MemoryLayout<ModelStoreError>.size), ("TemplateError", MemoryLayout<TemplateError>.size),
      ("TokenizerError", MemoryLayout<TokenizerError>.size),
    ]
    for (name, size) in sizes { #expect(size <= words || size > 4 * words, "\(name) has \(size) bytes") }
  }

  @Test("call settings what whoever sets them calls them")
  func names() {
    let error = LLMError.overloaded(requests: 1, waitingRequests: 3, limit: 3)
    #expect(error.description.contains("(maxWaitingRequests);"))
    #expect(error.description.replacingNames(["maxWaitingRequests": "--max-queue", "max": "x"]).contains("(--max-queue);"))
    #expect("Lower A.b, not b.A or A.b.".replacingNames(["A.b": "c"]) == "Lower c, not b.A or c.")
    #expect("Ä\u{FFFD} .".replacingNames(["A": "b"]) == "Ä\u{FFFD} .")
  }
}
