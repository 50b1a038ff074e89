// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

extension AttentionMetadata {
  /// Device memory that layers use one after another within a step.
  public enum Workspace: Int, CaseIterable, Sendable {
    /// Finished queries.
    case queries
    /// Keys and values that the host has finished: a row for each new key/value token.
    case keys, values
    /// Float32 output that the host is to round to e4m3.
    case output
  }

  /// A float32 tensor `[numTokens, columns]` (keys and values: `[numNewKVTokens, columns]`) whose contents last until the next layer.
  ///
  /// Allocated on first use at the step's greatest size and the widest layer's width; of a graph metadata, at init.
  /// - Throws: `DeviceError` where the memory is not available.
  public final func workspace(_ use: Workspace, columns: Int) throws(DeviceError) -> Tensor {
    let rows = use == .keys || use == .values ? numNewKVTokens : numTokens
    let tensor: Tensor
    if let existing = workspaces[use.rawValue] {
      tensor = existing
    } else {
      tensor = try allocate(use)
      workspaces[use.rawValue] = tensor
    }
    return tensor.prefix(rows * columns).reshaped(Shape(rows, columns))
  }

  final func allocateWorkspaces() throws(DeviceError) {
    for use in Workspace.allCases { workspaces[use.rawValue] = try allocate(use) }
  }

  private final func allocate(_ use: Workspace) throws(DeviceError) -> Tensor {
    let rows = use == .keys || use == .values ? maxNumKVTokens : maxNumTokens
    let widths: [Int] = setup.layers.map { layer in
      switch use {
      case .queries: layer.queryWidth
      case .keys: layer.keyWidth
      case .values: layer.valueWidth
      case .output: layer.outputWidth
      }
    }
    return try setup.context.device.makeTensor(Shape(rows * max(widths.max() ?? 1, 1)), .f32)
  }
}
