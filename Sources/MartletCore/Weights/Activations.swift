// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// How products round the rows that they multiply with weights: an arithmetic, chosen once for a model.
///
/// Whichever it is, the law of one arithmetic holds in it: what a row gets depends on the row alone, not on its neighbours, chunks, pages or threads,
/// bit for bit. Between two of them answers differ by rounding. A device says which it has (``Device/activations``).
public enum Activations: String, Sendable, Hashable, CaseIterable {
  /// Rows become integers of 16 bits, as weights are integers of the file; floats stay floats where the weight is floats.
  case exact
  /// Rows and weights are rounded to bfloat16 and multiplied by tiles: faster for prompts, encoders and many requests at once, slower for a few,
  /// for which weights are unpacked and rounded all the same.
  case bf16
  /// Rows become integers of 8 bits, the widest of each 256 of 15, where a weight is integers; where it is floats they stay floats, as in `exact`.
  case int8
}
