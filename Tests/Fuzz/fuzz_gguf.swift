// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// libFuzzer's target for GGUF: whatever the bytes are, everything that a file leads to either works or throws. Not only opening: metadata,
// the bytes of every tensor, weights prepared and dequantised, the vocabulary and texts through it, the chat template, and the whole model.

import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTokenizers

/// One input. `GGUFFile` copies it to memory of exactly its size, so that the address sanitizer sees a read one byte past the end.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzGGUF(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do throws(GGUFError) {
    let file = try GGUFFile(bytes: Array(UnsafeBufferPointer(start: data, count: count)))
    readMetadata(of: file)
    readTensors(of: file)
    useTokenizer(of: file)
    loadModel(of: file)
  } catch {
    _ = error.description
  }
  return 0
}

/// What is thrown is for people: it must have a description.
private func attempt(_ body: () throws -> Void) {
  do { try body() } catch { _ = String(describing: error) }
}

private func readMetadata(of file: GGUFFile) {
  func read(_ array: GGUFArray) {
    for index in 0..<array.count {
      if case .array(let inner) = array[index] { read(inner) }
    }
    if array.elementType == .string { array.forEachString { _, bytes in _ = bytes.count } }
    _ = (array.integers(), array.floats(), array.bools(), array.strings())
  }
  for key in file.metadataKeys {
    attempt { _ = try file.string(key) }
    attempt { _ = try file.integer(key) }
    attempt { _ = try file.float(key) }
    attempt { _ = try file.bool(key) }
    attempt { read(try file.array(key)) }
  }
}

private func readTensors(of file: GGUFFile) {
  for tensor in file.tensors {
    _ = (tensor.type.name, tensor.shape, tensor.count)
    attempt { _ = try file.floats(tensor.name) }
    attempt {
      let weight = try file.weight(tensor.name)
      _ = weight.bytes.reduce(0 as UInt8, &+)
      try withExtendedLifetime(file) { try dequantiseFirstBlock(of: weight) }
    }
  }
}

private let device = try! CPUDevice(threads: 1)

/// The first block of the first row, or its first values where a block is one, as the device reads them.
private func dequantiseFirstBlock(of weight: Weight) throws {
  let format = weight.format
  let values = format.blockSize == 1 ? min(weight.columns, 32) : format.blockSize
  let bytes = UnsafeRawBufferPointer(rebasing: weight.bytes.prefix(values / format.blockSize * format.blockByteCount))
  let first = Weight(name: weight.name, format: format, rows: 1, columns: values, bytes: bytes, owner: nil)
  let tokens = try device.makeTensor(Shape(1), .i32)
  tokens.unsafeHostPointer(to: Int32.self)![0] = 0
  let output = try device.makeTensor(Shape(1, values), .f32)
  let queue = device.makeQueue()
  device.tensorKernels.embed(tokens: tokens, weight: try device.prepare([first]), scale: 1, output: output, on: queue)
  queue.wait()
}

private func useTokenizer(of file: GGUFFile) {
  attempt {
    let tokenizer = try makeTokenizer(from: file)
    for text in ["", "Hello, world", "<|im_start|>user\n 12 ü 漢字 🙂<s></s>", " \u{0}\r\n\t"] {
      for parsesSpecialTokens in [false, true] {
        _ = tokenizer.decode(tokenizer.encode(text, parsesSpecialTokens: parsesSpecialTokens))
      }
    }
    for token in 0..<Int32(tokenizer.vocabularySize) { _ = tokenizer.bytes(of: token, showsControlTokens: true) }
    _ = (tokenizer.bosToken, tokenizer.eosToken, tokenizer.endTokens.count, tokenizer.addsBOS)
    let template = try ChatTemplate(from: file, tokenizer: tokenizer)
    _ = tokenizer.promptTokens(of: try template.render([ChatMessage(role: "user", content: "Hi")]))
  }
}

private func loadModel(of file: GGUFFile) {
  attempt {
    let configuration = try ModelConfiguration(file)
    // Sizes below the limits are a model's own affair, and so is the memory that it takes.
    guard configuration.contextLength <= 1024, configuration.hiddenSize <= 1024, configuration.feedForwardSize <= 1024 else { return }
    let cache = KVCacheConfig(dataType: .f32, pageSize: .tokens(16))
    let context = AttentionContext(
      device: device, kvCache: cache, maxNumRequests: 1, maxNumTokens: 16, maxSequenceLength: 64, workerCount: 1)
    _ = try ModelRegistry.builtIn.architecture(of: file).load(
      file,
      in: ModelContext(attention: context, attentionBackend: AttentionBackendRegistry.builtIn.backend(named: "TRTLLM"), maxLogitRows: 1))
  }
}
