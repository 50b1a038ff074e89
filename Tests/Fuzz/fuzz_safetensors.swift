// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// libFuzzer's target for safetensors: the header, and the bytes and values of every tensor.

import MartletCore
import MartletFormats

/// One input. `SafetensorsFile` copies it to memory of exactly its size, so that the address sanitizer sees a read one byte past the end.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSafetensors(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do throws(CheckpointError) {
    let file = try SafetensorsFile(bytes: Array(UnsafeBufferPointer(start: data, count: count)))
    for tensor in file.tensors {
      do throws(CheckpointError) {
        _ = (tensor.count, tensor.weightFormat, file.tensor(tensor.name)?.shape)
        _ = try file.floats(tensor.name)
        _ = try file.weight(tensor.name).bytes.reduce(0 as UInt8, &+)
      } catch {
        _ = String(describing: error)
      }
    }
  } catch {
    _ = String(describing: error)
  }
  return 0
}
