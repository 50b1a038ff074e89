// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The custom mask bits of a step on the device, in memory for the greatest step.
///
/// That is `maxNumTokens` rows of ⌈maxSequenceLength / 64⌉ · 8 bytes, on the host and on the device: 1 MiB for 2048 tokens and sequences of
/// 4096. Only metadata whose setup names the custom mask has it.
struct StepMaskBits {
  private let words: StepTable
  private let offsets: StepTable

  init(_ setup: AttentionMetadata.Setup) throws {
    let perRow = CustomAttentionMask.wordsPerRow(keyLength: setup.context.maxSequenceLength) * 2
    words = try StepTable(count: setup.maxNumTokens * perRow, on: setup.context.device)
    offsets = try StepTable(count: setup.maxNumRequests, on: setup.context.device)
  }

  /// Where each request's words begin, −1 for a request without bits: valid after ``upload(_:numRequests:on:)``.
  var offsetsOnHost: HostBuffer<Int32> { offsets.host }

  /// Copies the bits of a step's requests.
  func upload(_ masks: [CustomAttentionMask?], numRequests: Int, on queue: any DeviceQueue) -> MaskBits {
    var count = 0
    let storage = words.host.unsafeStorage
    for request in 0..<numRequests {
      guard !masks.isEmpty, let mask = masks[request] else {
        offsets.host[request] = -1
        continue
      }
      offsets.host[request] = Int32(count)
      for word in mask.words {
        storage[count] = Int32(truncatingIfNeeded: word)
        storage[count + 1] = Int32(truncatingIfNeeded: word >> 32)
        count += 2
      }
    }
    return MaskBits(words: words.upload(count, on: queue), offsets: offsets.upload(numRequests, on: queue))
  }
}
