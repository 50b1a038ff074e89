// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// A roofline as SVG: operations a second over operations for each byte of the cache, both logarithmic, with the ceilings of the first
/// report and a mark for every result of all of them.
struct RooflinePlot {
  private let reports: [AttentionBenchReport]
  private let width = 960.0, height = 600.0
  private let left = 70.0, right = 230.0, top = 30.0, bottom = 50.0
  private let intensities: ClosedRange<Double>
  private let speeds: ClosedRange<Double>
  private static let colours = ["#0b6e4f", "#c8553d", "#3d5a80", "#9a6324", "#7b2d8b", "#555555", "#d4a017"]

  init(_ reports: [AttentionBenchReport]) {
    self.reports = reports
    let results = reports.flatMap(\.results)
    let ceilings = reports.compactMap(\.ceilings).flatMap { [$0.f32, $0.bf16 ?? $0.f32, $0.i8 ?? $0.f32] }
    func decades(_ values: [Double], least: Double, most: Double) -> ClosedRange<Double> {
      let positive = values.filter { $0 > 0 && $0.isFinite }
      let low = pow(10, floor(log10(positive.min() ?? least))), high = pow(10, ceil(log10(positive.max() ?? most)))
      return low...max(high, low * 10)
    }
    intensities = decades(results.map(Self.intensity), least: 1, most: 1000)
    speeds = decades(results.map(\.gflops) + ceilings, least: 1, most: 1000)
  }

  private static func intensity(_ result: AttentionBenchReport.Result) -> Double { result.gflops / result.gigabytesPerSecond }

  private func x(_ intensity: Double) -> Double {
    left + (width - left - right) * log(intensity / intensities.lowerBound) / log(intensities.upperBound / intensities.lowerBound)
  }
  private func y(_ speed: Double) -> Double {
    height - bottom - (height - top - bottom) * log(speed / speeds.lowerBound) / log(speeds.upperBound / speeds.lowerBound)
  }

  var svg: String {
    var text = """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(SVG.number(width)) \(SVG.number(height))" font-family="sans-serif" font-size="12">
      <rect width="100%" height="100%" fill="white"/>

      """
    text += axes
    text += roofs
    let engines = reports.flatMap(\.results).map(name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    for result in reports.flatMap(\.results) where Self.intensity(result).isFinite && result.gflops > 0 {
      let colour = Self.colours[(engines.firstIndex(of: name(result)) ?? 0) % Self.colours.count]
      text +=
        "<circle cx=\"\(SVG.number(x(Self.intensity(result))))\" cy=\"\(SVG.number(y(result.gflops)))\" r=\"4\" fill=\"\(colour)\">"
        + "<title>\(SVG.escaped("\(name(result)) \(result.workload): \(Int(result.gflops)) GFLOP/s"))</title></circle>\n"
    }
    for (index, engine) in engines.enumerated() {
      let height = top + 18 * Double(index) + 10
      text += "<circle cx=\"\(SVG.number(width - right + 20))\" cy=\"\(SVG.number(height - 4))\" r=\"4\" "
      text += "fill=\"\(Self.colours[index % Self.colours.count])\"/>"
      text += SVG.label(width - right + 32, height, engine)
    }
    return text + "</svg>\n"
  }

  private func name(_ result: AttentionBenchReport.Result) -> String { "\(result.engine), \(result.dtype)" }

  private var axes: String {
    var text = ""
    var value = intensities.lowerBound
    while value <= intensities.upperBound * 1.001 {
      text +=
        SVG.line(x(value), top, x(value), height - bottom, "#dddddd")
        + SVG.label(x(value), height - bottom + 18, SVG.number(value), "middle")
      value *= 10
    }
    value = speeds.lowerBound
    while value <= speeds.upperBound * 1.001 {
      text += SVG.line(left, y(value), width - right, y(value), "#dddddd") + SVG.label(left - 8, y(value) + 4, SVG.number(value), "end")
      value *= 10
    }
    text += SVG.label((left + width - right) / 2, height - 12, "FLOP for each byte of keys and values", "middle")
    return text + SVG.label(left, top - 10, "GFLOP/s")
  }

  private var roofs: String {
    guard let ceilings = reports.first?.ceilings else { return "" }
    var text = ""
    let peaks = [("f32 peak", ceilings.f32), ("bf16 peak", ceilings.bf16 ?? 0), ("int8 peak", ceilings.i8 ?? 0)].filter { $0.1 > 0 }
    for (name, peak) in peaks {
      text += SVG.line(left, y(peak), width - right, y(peak), "#888888") + SVG.label(width - right + 4, y(peak) + 4, "\(name) \(Int(peak))")
    }
    // The bandwidths of the smallest and of the largest working set: a cache's and the memory's.
    let bandwidths = reports[0].results.compactMap(\.readGigabytesPerSecond)
    for bandwidth in Set([bandwidths.min(), bandwidths.max()].compactMap { $0 }).sorted() {
      let top = peaks.map(\.1).max() ?? 1
      let first = max(intensities.lowerBound, speeds.lowerBound / bandwidth), last = min(top / bandwidth, intensities.upperBound)
      text += SVG.line(x(first), y(first * bandwidth), x(last), y(last * bandwidth), "#888888")
      text += SVG.label(x(first) + 6, y(first * bandwidth) - 8, "\(Int(bandwidth)) GB/s")
    }
    return text
  }
}
