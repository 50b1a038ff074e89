// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What is kept in files and sent to others must read the same tomorrow: the texts here are written by hand.

import Foundation
import MartletCPU
import MartletCore
import MartletKVCache
import Testing

@Suite("The key/value cache's values as JSON")
struct KVCacheCodableTests {
  private func text(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }
  private func value<Value: Decodable>(_ text: String, as type: Value.Type = Value.self) throws -> Value {
    try JSONDecoder().decode(type, from: Data(text.utf8))
  }

  @Test("a configuration is what it says, and comes back")
  func configuration() throws {
    let config = KVCacheConfig(
      dataType: .f8e4m3, pageSize: .tokens(64), budget: .bytes(1 << 20), reusesPrefixes: true, reusesPartialPages: false, retention: .high)
    let written =
      #"{"budget":{"bytes":1048576},"dtype":"f8e4m3","#
      + #""page_size":64,"retention":"high","reuses_partial_pages":false,"reuses_prefixes":true}"#
    #expect(try text(config) == written)
    #expect(try value(written) == config)

    let linear = KVCacheConfig(pageSize: .linear, budget: .fractionOfFreeMemory(0.25), reusesPrefixes: false, retention: .low)
    let writtenLinear =
      #"{"budget":{"fraction_of_free_memory":0.25},"dtype":"bf16","#
      + #""page_size":"linear","retention":"low","reuses_partial_pages":true,"reuses_prefixes":false}"#
    #expect(try text(linear) == writtenLinear)
    #expect(try value(writtenLinear) == linear)
  }

  @Test("what a configuration leaves out has its default")
  func defaults() throws {
    #expect(try value("{}") == KVCacheConfig())
    #expect(try value(#"{"budget":"automatic","dtype":"f16"}"#) == KVCacheConfig(dataType: .f16))
    #expect(throws: DecodingError.self) { try value(#"{"dtype":"f12"}"#, as: KVCacheConfig.self) }
  }

  @Test("a word that is none is an error", arguments: [#""huge""#, "{}", #"{"bytes":1,"fraction_of_free_memory":1}"#, "3", "null"])
  func wrongBudget(_ text: String) {
    #expect(throws: DecodingError.self) { try value(text, as: KVCacheConfig.Budget.self) }
  }

  @Test("a page size, a retention and a type that are none are errors")
  func wrongWords() {
    for text in [#""paged""#, "1.5", "[16]"] {
      #expect(throws: DecodingError.self) { try value(text, as: KVCacheConfig.PageSize.self) }
    }
    for text in [#""always""#, "1"] { #expect(throws: DecodingError.self) { try value(text, as: KVRetention.self) } }
    #expect(throws: DecodingError.self) { try value(#""f64""#, as: DataType.self) }
    #expect(throws: DecodingError.self) { try value(#""q4_1""#, as: WeightFormat.self) }
  }

  @Test("every type, format and level comes back from its name")
  func names() throws {
    #expect(try text(DataType.allCases) == #"["f32","f16","bf16","f8e4m3","i8","i32"]"#)
    #expect(try value(text(DataType.allCases)) == DataType.allCases)
    #expect(try text([WeightFormat.q4_1, .iq4_NL]) == #"["Q4_1","IQ4_NL"]"#)
    #expect(try value(text(WeightFormat.allCases)) == WeightFormat.allCases)
    #expect(try text(KVRetention.allCases) == #"["low","normal","high"]"#)
    #expect(try value(text(KVRetention.allCases)) == KVRetention.allCases)
  }

  @Test("statistics and demands come back")
  func reports() throws {
    let layer = KVLayerSpec(layout: .nhd(dataType: .f16, pageSize: 16, numKVHeads: 2, headDim: 8, valueHeadDim: 8), window: 32)
    let config = KVCacheConfig(pageSize: .tokens(16), budget: .bytes(4096))
    let statistics = try KVCacheManager(
      layers: [layer], config: config, maxSequenceLength: 64, maxSequences: 1, maxTokensPerStep: 16, on: CPUDevice(threads: 1)
    ).statistics
    let written =
      #"{"budget_bytes":4096,"budget_origin":"given in bytes","page_size":16,"pools":[{"bytes_per_page":1024,"cached_pages":0,"#
      + #""dtype":"f16","free_pages":4,"head_dim":8,"held_pages":0,"kv_heads":2,"layers":1,"pages":4,"value_head_dim":8,"window":32}],"#
      + #""prefixes":{"asked_tokens":0,"copied_tokens":0,"evicted_pages":0,"reused_tokens":0},"sequences":0}"#
    #expect(try text(statistics) == written)
    #expect(try value(written) == statistics)

    let demand = config.demand(of: [layer], maxSequenceLength: 64, maxTokensPerStep: 16)
    // A chunk of 16 and 31 tokens before it lie in at most 4 pages.
    #expect(try text(demand) == #"[{"bytes_per_page":1024,"layers":1,"pages":4,"window":32}]"#)
    #expect(try value(text(demand)) == demand)
  }

  @Test("an error's code is a word, and a word of somebody else's is a code")
  func codes() throws {
    #expect(try text([KVCacheError.Code.budgetTooSmall]) == #"["budgetTooSmall"]"#)
    #expect(try value(#"["budgetTooSmall"]"#) == [KVCacheError.Code.budgetTooSmall])
    let own = KVCacheError(.init(rawValue: "diskFull"), "key/value cache: the disk is full")
    #expect(own.code.rawValue == "diskFull" && "\(own)" == "key/value cache: the disk is full")
    #expect(own != KVCacheError(.integrity, own.description))
  }
}
