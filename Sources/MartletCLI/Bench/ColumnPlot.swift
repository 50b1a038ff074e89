// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// Tokens a second of models as columns in SVG: a panel for prompts, one for generation and one for several requests, each with its own scale, and a
/// column for every model and workload, under its number.
///
/// The background is the page's, and lines and words are as dark or as light as it wants.
struct ColumnPlot {
  private struct Panel {
    var title: String
    /// In the order in which they were measured.
    var workloads: [String]
    /// [model][workload]; nil where a model did not run it.
    var values: [[Double?]]
  }

  private let title: String
  private let models: [String]
  private let panels: [Panel]
  private static let colours = ["#3b7dd8", "#d9822b", "#2f9e6e", "#b5549c", "#8a7f2b", "#5f6b7a"]
  private static let parts: [(part: ModelBenchPlan.Part, title: String)] = [
    (.prompt, "prompts"), (.generation, "generation, one request"), (.concurrency, "several requests"),
  ]
  private let columnWidth = 46.0, gap = 22.0, panelGap = 36.0, panelHeight = 200.0, left = 16.0, top = 64.0, bottom = 44.0

  init(_ report: ModelBenchReport) {
    title = "tokens/s, \(report.device), activations \(report.activations)"
    models = report.models.map(\.model)
    panels = Self.parts.compactMap { part, title in
      let results = report.models.map { $0.results.filter { $0.part == part } }
      let workloads = results.joined().map(\.workload).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
      guard !workloads.isEmpty else { return nil }
      return Panel(
        title: title, workloads: workloads,
        values: results.map { own in workloads.map { name in own.first { $0.workload == name }?.tokensPerSecond } })
    }
  }

  private func columnsWidth(_ panel: Panel) -> Double {
    Double(panel.workloads.count) * (Double(models.count) * columnWidth + gap)
  }

  var svg: String {
    let columns = panels.reduce(0) { $0 + columnsWidth($1) } + panelGap * Double(max(panels.count - 1, 0))
    // Words are about 6.5 wide a letter.
    let width = left * 2 + max(columns, 6.5 * Double(title.count), 6.5 * Double(models.reduce(0) { $0 + $1.count + 6 }))
    let base = top + panelHeight
    var text = """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(SVG.number(width)) \(SVG.number(base + bottom))" font-family="sans-serif" font-size="12">
      <style>text{fill:#333}line{stroke:#888}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>

      """
    text += SVG.label(left, 18, title)
    var x = left
    for (index, model) in models.enumerated() {
      text +=
        "<rect x=\"\(SVG.number(x))\" y=\"28\" width=\"10\" height=\"10\" fill=\"\(colour(index))\"/>\n" + SVG.label(x + 15, 37, model)
      x += 6.5 * Double(model.count) + 36
    }
    x = left
    for panel in panels {
      text += draw(panel, x, base)
      x += columnsWidth(panel) + panelGap
    }
    return text + "</svg>\n"
  }

  private func draw(_ panel: Panel, _ left: Double, _ base: Double) -> String {
    let most = max(panel.values.joined().compactMap(\.self).max() ?? 0, 1e-9)
    // Room for the number over the highest column.
    let scale = (panelHeight - 16) / most
    var text = SVG.label(left + columnsWidth(panel) / 2, base + 34, panel.title, "middle")
    for (place, workload) in panel.workloads.enumerated() {
      let first = left + Double(place) * (Double(models.count) * columnWidth + gap) + gap / 2
      for (index, values) in panel.values.enumerated() {
        guard let value = values[place] else { continue }
        let x = first + Double(index) * columnWidth, height = value * scale
        text += "<rect x=\"\(SVG.number(x + 3))\" y=\"\(SVG.number(base - height))\" width=\"\(SVG.number(columnWidth - 6))\" "
        text += "height=\"\(SVG.number(height))\" fill=\"\(colour(index))\">"
        text += "<title>\(SVG.escaped("\(models[index]) \(workload): \(String(format: "%.1f", value)) tokens/s"))</title></rect>\n"
        let words = String(format: value < 100 ? "%.1f" : "%.0f", value)
        text += SVG.label(x + columnWidth / 2, base - height - 4, words, "middle")
      }
      text += SVG.label(first + Double(models.count) * columnWidth / 2, base + 16, workload, "middle")
    }
    return text + SVG.line(left, base, left + columnsWidth(panel), base)
  }

  private func colour(_ model: Int) -> String { Self.colours[model % Self.colours.count] }
}

/// The few elements that plots are made of.
enum SVG {
  /// - Parameter colour: nil leaves it to the style.
  static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ colour: String? = nil) -> String {
    "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\"\(colour.map { " stroke=\"\($0)\"" } ?? "")/>\n"
  }

  static func label(_ x: Double, _ y: Double, _ text: String, _ anchor: String = "start") -> String {
    "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\">\(escaped(text))</text>\n"
  }

  static func number(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e9 ? "\(Int(value))" : String(format: "%.1f", value)
  }

  static func escaped(_ text: String) -> String {
    text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
  }

  /// Writes a plot. Whoever asked for it has been told what was measured before.
  static func write(_ svg: String, to file: String) throws {
    do {
      try Data(svg.utf8).write(to: URL(fileURLWithPath: file))
    } catch {
      throw CommandError("the plot \"\(file)\" cannot be written: \(CommandError.reason(error))")
    }
  }
}
