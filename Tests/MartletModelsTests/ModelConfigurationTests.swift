// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// A model's sizes as they are kept and sent: the text here is written by hand.
@Suite("A model's configuration as JSON")
struct ModelConfigurationTests {
  @Test("is its sizes, and comes back")
  func roundTrip() throws {
    var configuration = try ModelConfiguration(TinyModel(.llama, seed: 1).file())
    configuration.architecture = "llama"
    configuration.name = "Tiny"
    configuration.contextLength = 512
    configuration.vocabularySize = 300
    configuration.numLayers = 2
    configuration.hiddenSize = 64
    configuration.feedForwardSize = 96
    configuration.numHeads = 4
    configuration.numKVHeads = 2
    configuration.headDim = 16
    configuration.valueHeadDim = 8
    configuration.normEpsilon = 0.5
    let written =
      #"{"architecture":"llama","context_length":512,"feed_forward_size":96,"head_dim":16,"heads":4,"hidden_size":64,"kv_heads":2,"#
      + #""layers":2,"name":"Tiny","norm_epsilon":0.5,"value_head_dim":8,"vocabulary_size":300}"#
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    #expect(String(decoding: try encoder.encode(configuration), as: UTF8.self) == written)
    #expect(try JSONDecoder().decode(ModelConfiguration.self, from: Data(written.utf8)) == configuration)
  }
}
