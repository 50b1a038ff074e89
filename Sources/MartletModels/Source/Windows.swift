// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension ModelSource {
  /// The sliding window of each layer; nil where a layer sees everything.
  ///
  /// `attention.sliding_window` is the window; `attention.sliding_window_pattern` a list that says which layers have it, or a number n: all but every
  /// n-th, and all where n is 0.
  /// - Parameter usualPattern: n where the source does not say; nil: all layers have the window.
  func windows(_ configuration: ModelConfiguration, usualPattern: Int? = nil) throws -> [Int?] {
    let count = configuration.numLayers
    let windowKey = "\(configuration.architecture).attention.sliding_window"
    let patternKey = "\(configuration.architecture).attention.sliding_window_pattern"
    // Some files write 0 for none.
    guard let window = try integer(ifPresent: windowKey), window != 0 else { return Array(repeating: nil, count: count) }
    guard window >= 1 else { throw invalid(windowKey, window, "it must be at least 1") }
    if isList(patternKey) {
      let slides = try boolList(ifPresent: patternKey)!
      guard slides.count == count else { throw invalid(patternKey, "a list of \(slides.count)", "there are \(count) layers") }
      return slides.map { $0 ? window : nil }
    }
    guard let pattern = try integer(ifPresent: patternKey) ?? usualPattern else { return Array(repeating: window, count: count) }
    guard pattern >= 0 else { throw invalid(patternKey, pattern, "it must be at least 0") }
    return (1...count).map { pattern > 0 && $0 % pattern == 0 ? nil : window }
  }
}
