// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
public import Martlet

/// Prometheus's text format, version 0.0.4: of every family its help, its type and its series.
struct PrometheusText {
  private(set) var text = ""
  private var names: Set<String> = []

  /// Begins a family.
  /// - Returns: false where there is one of this name already, which readers would refuse.
  mutating func begin(_ name: String, _ kind: PrometheusRegistry.Kind, _ help: String) -> Bool {
    guard names.insert(name).inserted else { return false }
    text += "# HELP \(name) \(Self.escaped(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    return true
  }

  mutating func add(_ name: String, _ labels: String, _ value: Double) {
    text += labels.isEmpty ? "\(name) \(Self.number(value))\n" : "\(name){\(labels)} \(Self.number(value))\n"
  }

  mutating func add(_ name: String, _ labels: String, _ values: HistogramSeries.Values) {
    let separator = labels.isEmpty ? "" : ","
    var sum = 0
    for (count, bound) in zip(values.counts, values.bounds + [.infinity]) {
      sum += count
      // A bound is written as Prometheus's own clients do, with its point.
      let le = bound == .infinity ? "+Inf" : "\(bound)"
      add(name + "_bucket", labels + separator + "le=\"\(le)\"", Double(sum))
    }
    add(name + "_sum", labels, values.sum)
    add(name + "_count", labels, Double(sum))
  }

  mutating func add(_ family: PrometheusRegistry.Family) {
    if family.series.isEmpty || !begin(family.name, family.kind, family.help) { return }
    for (labels, series) in family.series.sorted(by: { $0.key < $1.key }) {
      switch series {
      case let counter as CounterSeries: add(family.name, labels, counter.value)
      case let gauge as GaugeSeries: add(family.name, labels, gauge.value)
      case let histogram as HistogramSeries: add(family.name, labels, histogram.values)
      default: break
      }
    }
  }

  /// As a parser of Go's floating-point numbers reads it; whole numbers without a point.
  static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
    return value == value.rounded() && value.magnitude < 0x1p53 ? "\(Int(value))" : "\(value)"
  }

  /// A name that Prometheus allows. Colons are allowed too, but they are for the rules of whoever runs Prometheus.
  static func name(_ label: String) -> String {
    let name = String(label.unicodeScalars.map { isLetter($0) || isDigit($0) ? Character($0) : "_" })
    guard let first = name.unicodeScalars.first else { return "_" }
    return isDigit(first) ? "_" + name : name
  }

  /// Labels as one text, sorted, each name once: `method="get",route="/"`.
  static func labels(_ dimensions: [(String, String)], of kind: PrometheusRegistry.Kind = .gauge) -> String {
    var values: [String: String] = [:]
    for (key, value) in dimensions {
      var name = name(key)
      // Kept for Prometheus itself: what begins with two strokes, and a histogram's bounds.
      while name.hasPrefix("__") { name.removeFirst() }
      if kind == .histogram && name == "le" { name = "exported_le" }
      values[name] = value
    }
    return values.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(escaped($0.value, quotes: true))\"" }.joined(separator: ",")
  }

  private static func escaped(_ text: String, quotes: Bool) -> String {
    text.unicodeScalars.reduce(into: "") { escaped, scalar in
      switch scalar {
      case "\\": escaped += #"\\"#
      case "\n": escaped += #"\n"#
      case "\"" where quotes: escaped += #"\""#
      default: escaped.unicodeScalars.append(scalar)
      }
    }
  }

  private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
    ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_"
  }

  private static func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }
}

extension PrometheusRegistry {
  /// All families, as `text/plain; version=0.0.4; charset=utf-8`.
  ///
  /// - Parameters:
  ///   - names: whose names there are for the engine's numbers.
  ///   - modelName: what the label `model_name` of vLLM's and TensorRT-LLM's names says.
  ///   - statistics: of the engine; nil while there is none, and then what is made of them is not there.
  public func text(names: PrometheusNames = .default, modelName: String, statistics: EngineStatistics?) -> String {
    let families = families()
    var text = PrometheusText()
    for family in families where names.contains(.martlet) || !family.name.hasPrefix("martlet_") { text.add(family) }
    func histogram(_ name: String) -> HistogramSeries.Values? {
      families.first { $0.name == name }?.series.values.lazy.compactMap { $0 as? HistogramSeries }.first?.values
    }
    for dialect in PrometheusNames.Dialect.allCases where names.contains(dialect) {
      for alias in PrometheusAlias.table[dialect] ?? [] {
        let labels = PrometheusText.labels(dialect.labels(modelName: modelName))
        let name = dialect.prefix + alias.name
        switch alias.value {
        case .histogram(let own):
          if let values = histogram(own), text.begin(name, .histogram, alias.help) { text.add(name, labels, values) }
        case .number(let value):
          if let statistics, let value = value(statistics, histogram), text.begin(name, alias.kind, alias.help) {
            text.add(name, labels, value)
          }
        case .ends:
          guard let statistics, text.begin(name, alias.kind, alias.help) else { continue }
          for (reason, ends) in PrometheusAlias.reasons {
            let labels = PrometheusText.labels(dialect.labels(modelName: modelName) + [("finished_reason", reason)])
            text.add(name, labels, Double(ends.reduce(0) { $0 + (statistics.ended[$1] ?? 0) }))
          }
        }
      }
    }
    return text.text
  }
}
#endif
