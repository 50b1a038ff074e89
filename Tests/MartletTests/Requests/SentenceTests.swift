// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCPU
import MartletFormats
import MartletTestSupport
import Testing

/// all-MiniLM-L6-v2 with its own weights, against what `make_sentences.py` recorded of sentence-transformers.
@Suite("Sentences in ten scripts")
struct SentenceTests {
  @Test("have the tokens and the vectors that sentence-transformers gives them")
  func truth() async throws {
    let url = try #require(Bundle.module.url(forResource: "sentences", withExtension: "json", subdirectory: "Fixtures"))
    let json = try JSONValue(path: url.path)
    let sentences = try #require(json["sentences"]).elements.map { $0.string! }
    let tokens = try #require(json["tokens"]).elements.map { $0.elements.map { $0.integer! } }
    let vectors = try #require(json["vectors"]).elements.map { text in
      try #require(Data(base64Encoded: text.string!)).withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map { Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))) }
      }
    }
    #expect(sentences.count == 10)
    let llm = try LLM(
      model: try await RealModelFile.path("all-minilm-l6-v2"), configuration: EngineConfiguration(device: try CPUDevice(threads: 2)))
    #expect(llm.embeddingSize == 384 && llm.maxSequenceLength == 512)
    #expect(try sentences.map { try llm.tokenIDs(of: .text($0)) } == tokens)
    for (found, expected) in zip(try await llm.embed(sentences.map { .text($0) }), vectors) {
      // Both compute in float32: six layers of sums of 1536 terms at most move a value of some 0.05 by less than 1e-6.
      let worst = zip(found.values, expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
      let cosine = zip(found.values, expected).reduce(0) { $0 + Double($1.0) * Double($1.1) }
      #expect(worst < 2e-6 && cosine > 0.99999, "off by \(worst), cosine \(cosine)")
    }
  }
}
