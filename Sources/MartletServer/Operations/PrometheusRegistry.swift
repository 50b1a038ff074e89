// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
public import Metrics
import Synchronization

/// Keeps what a program counts and measures, and writes it as Prometheus reads it: a factory of swift-metrics that needs nothing else.
///
/// ```swift
/// let registry = PrometheusRegistry()
/// configuration.metricsFactory = registry
/// configuration.metricsText = { registry.text(names: .default, modelName: "smollm2-135m", statistics: $0) }
/// ```
///
/// Names and labels become what Prometheus allows: other characters than letters, digits and `_` become `_`, a counter's name ends in `_total`,
/// a timer's in `_seconds`. A set of labels is one series, in whichever order its labels were given; of labels with the same name the last
/// counts. Timers and recorders that aggregate are histograms; other recorders and meters are gauges. A name that is taken by another
/// kind gets its kind behind it, since Prometheus refuses a page on which a name has two.
///
/// Nothing is lost under threads. A counter and a gauge take an atomic operation, a histogram a lock that is held for a few nanoseconds.
public final class PrometheusRegistry: MetricsFactory, Sendable {
  enum Kind: String, Sendable { case counter, gauge, histogram }

  /// The series of one name, by the text of their labels.
  struct Family: Sendable {
    let name: String
    let kind: Kind
    let help: String
    let bounds: [Double]
    var series: [String: any PrometheusSeries] = [:]
  }

  private struct Book {
    var families: [String: Family] = [:]
    /// Every name that stands before a value.
    var taken: Set<String> = []
  }

  private let book = Mutex(Book())
  private let buckets: @Sendable (_ label: String) -> [Double]?

  /// - Parameter buckets: the upper bounds of a histogram's buckets, by the label that the program gave it, in seconds for timers; nil is Martlet's choice.
  ///   Bounds that are no numbers are left out.
  public init(buckets: @escaping @Sendable (_ label: String) -> [Double]? = { _ in nil }) { self.buckets = buckets }

  /// All families, by name.
  func families() -> [Family] { book.withLock { $0.families.values.sorted { $0.name < $1.name } } }

  // MARK: The factory

  public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    series(label, dimensions, .counter, suffix: "_total") { _ in CounterSeries() }
  }

  public func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
    series(label, dimensions, .counter, suffix: "_total") { _ in CounterSeries() }
  }

  public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
    series(label, dimensions, .gauge) { _ in GaugeSeries() }
  }

  public func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
    aggregate
      ? series(label, dimensions, .histogram) { HistogramSeries(bounds: $0) } as HistogramSeries
      : series(label, dimensions, .gauge) { _ in GaugeSeries() } as GaugeSeries
  }

  public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    series(label, dimensions, .histogram, suffix: "_seconds") { HistogramSeries(bounds: $0) }
  }

  public func destroyCounter(_ handler: any CounterHandler) { remove(handler) }
  public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) { remove(handler) }
  public func destroyMeter(_ handler: any MeterHandler) { remove(handler) }
  public func destroyRecorder(_ handler: any RecorderHandler) { remove(handler) }
  public func destroyTimer(_ handler: any TimerHandler) { remove(handler) }

  private func remove(_ handler: AnyObject) {
    book.withLock { book in
      for (name, family) in book.families {
        for (labels, series) in family.series where series === handler { book.families[name]?.series[labels] = nil }
      }
    }
  }

  /// The series of these labels, which is made the first time.
  private func series<Series: PrometheusSeries>(
    _ label: String, _ dimensions: [(String, String)], _ kind: Kind, suffix: String = "", _ make: ([Double]) -> Series
  ) -> Series {
    let labels = PrometheusText.labels(dimensions, of: kind)
    return book.withLock { book in
      let name = family(label, kind, suffix: suffix, in: &book)
      if let known = book.families[name]?.series[labels] as? Series { return known }
      let made = make(book.families[name]?.bounds ?? [])
      book.families[name]?.series[labels] = made
      return made
    }
  }

  /// The name of the family, which is made the first time.
  private func family(_ label: String, _ kind: Kind, suffix: String, in book: inout Book) -> String {
    var stem = PrometheusText.name(label)
    if stem.hasSuffix(suffix), stem.count > suffix.count { stem.removeLast(suffix.count) }
    while true {
      let name = stem + suffix
      if book.families[name]?.kind == kind { return name }
      let names = kind == .histogram ? ["", "_bucket", "_sum", "_count"].map { name + $0 } : [name]
      if book.taken.isDisjoint(with: names) {
        book.taken.formUnion(names)
        let bounds = kind == .histogram ? buckets(label) ?? PrometheusBuckets.bounds(name) : []
        book.families[name] = Family(
          name: name, kind: kind, help: PrometheusHelp.text(name, label: label), bounds: Set(bounds.filter(\.isFinite)).sorted())
        return name
      }
      stem += "_" + kind.rawValue
    }
  }
}

// MARK: - Series

/// The values of one set of labels.
protocol PrometheusSeries: AnyObject, Sendable {}

/// Counts up. What would count down, or is no number, is not counted.
final class CounterSeries: PrometheusSeries, CounterHandler, FloatingPointCounterHandler {
  private let whole = Atomic<Int64>(0)
  private let parts = AtomicNumber()

  var value: Double { Double(whole.load(ordering: .relaxed)) + parts.value }

  func increment(by amount: Int64) {
    if amount > 0 { whole.wrappingAdd(amount, ordering: .relaxed) }
  }

  func increment(by amount: Double) {
    if amount > 0 && amount.isFinite { parts.change { $0 + amount } }
  }

  func reset() {
    whole.store(0, ordering: .relaxed)
    parts.change { _ in 0 }
  }
}

/// The last value.
final class GaugeSeries: PrometheusSeries, RecorderHandler, MeterHandler {
  private let number = AtomicNumber()

  var value: Double { number.value }

  func record(_ value: Int64) { set(Double(value)) }
  func record(_ value: Double) { set(value) }
  func set(_ value: Int64) { set(Double(value)) }
  func set(_ value: Double) { number.change { _ in value } }
  func increment(by amount: Double) { number.change { $0 + amount } }
  func decrement(by amount: Double) { number.change { $0 - amount } }
}

/// How many values there were up to each bound.
final class HistogramSeries: PrometheusSeries, RecorderHandler, TimerHandler {
  /// What was recorded so far.
  struct Values: Sendable {
    var bounds: [Double]
    /// Of each bucket alone, the one above all bounds last.
    var counts: [Int]
    var sum = 0.0
    var count: Int { counts.reduce(0, +) }
  }

  private let book: Mutex<Values>

  init(bounds: [Double]) { book = Mutex(Values(bounds: bounds, counts: Array(repeating: 0, count: bounds.count + 1))) }

  var values: Values { book.withLock { $0 } }

  func record(_ value: Int64) { record(Double(value)) }

  /// What is no number is not recorded: one would spoil the sum for ever.
  func record(_ value: Double) {
    if !value.isFinite { return }
    book.withLock { book in
      var bucket = 0
      while bucket < book.bounds.count && value > book.bounds[bucket] { bucket += 1 }
      book.counts[bucket] += 1
      book.sum += value
    }
  }

  /// A time before its beginning is none, and swift-metrics hands on the largest number for what is none.
  func recordNanoseconds(_ duration: Int64) {
    if duration >= 0 && duration < .max { record(Double(duration) / 1e9) }
  }
}

/// A floating-point number that threads change at the same time.
private final class AtomicNumber: Sendable {
  private let bits = Atomic<UInt64>(0)

  var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

  func change(_ change: (Double) -> Double) {
    var old = bits.load(ordering: .relaxed)
    while true {
      let (done, now) = bits.weakCompareExchange(expected: old, desired: change(Double(bitPattern: old)).bitPattern, ordering: .relaxed)
      if done { return }
      old = now
    }
  }
}
#endif
