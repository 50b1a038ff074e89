// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletCore
import Synchronization

/// A device whose kernels tell an observer of each call, and are otherwise those of the device inside.
///
/// Whoever wants no observer takes the device itself: to watch costs nothing where nobody does. A weight is described when it is prepared, because
/// later nobody knows its formats.
package final class ObservedDevice: Device {
  private let base: any Device
  private let observer: any KernelObserver
  private let book = Mutex(WeightBook())

  package init(_ base: any Device, observer: any KernelObserver) {
    self.base = base
    self.observer = observer
  }

  /// What was prepared, in the order in which it was; a ``KernelCall`` names a weight by its place here.
  package var weights: [WeightDescription] { book.withLock(\.weights) }

  package var name: String { base.name }
  package var summary: String { base.summary }
  package var availableByteCount: Int { base.availableByteCount }
  package var workerCount: Int { base.workerCount }
  package var activations: [Activations] { base.activations }
  package var tensorKernels: any TensorKernels { ObservedTensorKernels(base: base.tensorKernels, observer: observer, device: self) }
  package var attentionKernels: any AttentionKernels { ObservedAttentionKernels(base: base.attentionKernels, observer: observer) }
  package func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer { try base.makeBuffer(byteCount: byteCount) }
  package func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    try base.makeHostBuffer(of: type, count: count)
  }
  package func makeQueue() -> any DeviceQueue { base.makeQueue() }
  package func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    base.preparedByteCount(format, rows: rows, columns: columns)
  }
  package func populate(_ tensor: Tensor) { base.populate(tensor) }
  package func reserve(productRows: Int) throws(DeviceError) { try base.reserve(productRows: productRows) }
  package func service<Service>(_ type: Service.Type) -> Service? { base.service(type) }

  package func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    let weight = try base.prepare(parts, activations: activations)
    let formats = parts.map(\.format).reduce(into: [WeightFormat]()) { if !$0.contains($1) { $0.append($1) } }
    let description = WeightDescription(rows: weight.rows, columns: weight.columns, formats: formats, byteCount: weight.byteCount)
    book.withLock { book in
      book.places[ObjectIdentifier(weight)] = book.weights.count
      book.weights.append(description)
    }
    return weight
  }

  /// Where a weight stands among ``weights``.
  fileprivate func place(of weight: any PreparedWeight) -> Int? { book.withLock { $0.places[ObjectIdentifier(weight)] } }

  private struct WeightBook {
    var weights: [WeightDescription] = []
    /// Of a weight that has gone, its successor at the same address.
    var places: [ObjectIdentifier: Int] = [:]
  }
}

/// Every kernel of a device, with the observer told before and after.
private struct ObservedTensorKernels: TensorKernels {
  let base: any TensorKernels
  let observer: any KernelObserver
  let device: ObservedDevice

  private func tell(
    _ kind: KernelCall.Kind, _ name: StaticString, rows: Int, weight: (any PreparedWeight)? = nil, operations: Double = 0,
    byteCount: Double = 0, _ body: () -> Void
  ) {
    observer.callBegins(
      KernelCall(
        kind, name, rows: rows, weight: weight.flatMap { device.place(of: $0) }, operations: operations, byteCount: byteCount))
    body()
    observer.callEnds()
  }

  func embed(tokens: Tensor, weight: any PreparedWeight, scale: Float, output: Tensor, on queue: any DeviceQueue) {
    // The rows that are read, not the whole table.
    tell(.gather, "embed", rows: tokens.count, byteCount: Double(weight.byteCount) / Double(weight.rows) * Double(tokens.count)) {
      base.embed(tokens: tokens, weight: weight, scale: scale, output: output, on: queue)
    }
  }

  func rmsNorm(_ input: Tensor, weight: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue) {
    tell(.norm, "rmsNorm", rows: input.shape[0]) { base.rmsNorm(input, weight: weight, epsilon: epsilon, output: output, on: queue) }
  }

  func layerNorm(_ input: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, output: Tensor, on queue: any DeviceQueue) {
    tell(.norm, "layerNorm", rows: input.shape[0]) {
      base.layerNorm(input, weight: weight, bias: bias, epsilon: epsilon, output: output, on: queue)
    }
  }

  func product(_ input: ProductInput, _ weight: any PreparedWeight, output: ProductOutput, on queue: any DeviceQueue) {
    tell(
      .product, "product", rows: input.rowCount, weight: weight, operations: operations(weight, rows: input.rowCount),
      byteCount: input.rowCount > 0 ? Double(weight.byteCount) : 0
    ) { base.product(input, weight, output: output, on: queue) }
  }

  func add(_ addend: Tensor, scaledBy scale: Float, to accumulator: Tensor, on queue: any DeviceQueue) {
    tell(.addition, "add", rows: addend.shape[0]) { base.add(addend, scaledBy: scale, to: accumulator, on: queue) }
  }

  func addRow(_ row: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    tell(.addition, "addRow", rows: accumulator.shape[0]) { base.addRow(row, to: accumulator, on: queue) }
  }

  func addExpertRows(_ rows: Tensor, plan: ExpertPlan, to accumulator: Tensor, on queue: any DeviceQueue) {
    tell(.addition, "addExpertRows", rows: accumulator.shape[0]) { base.addExpertRows(rows, plan: plan, to: accumulator, on: queue) }
  }

  func scale(_ values: Tensor, by scale: Float, softCap: Float?, on queue: any DeviceQueue) {
    tell(.scaling, "scale", rows: values.shape[0]) { base.scale(values, by: scale, softCap: softCap, on: queue) }
  }

  func scaleRows(_ values: Tensor, columns: Int, by factors: Tensor, rows: Tensor, on queue: any DeviceQueue) {
    tell(.scaling, "scaleRows", rows: values.shape[0]) { base.scaleRows(values, columns: columns, by: factors, rows: rows, on: queue) }
  }

  func gatedActivation(_ activation: GatedActivation, gateUp: Tensor, output: Tensor, on queue: any DeviceQueue) {
    tell(.activation, "gatedActivation", rows: output.shape[0]) {
      base.gatedActivation(activation, gateUp: gateUp, output: output, on: queue)
    }
  }

  func gelu(_ values: Tensor, bias: Tensor?, on queue: any DeviceQueue) {
    tell(.activation, "gelu", rows: values.shape[0]) { base.gelu(values, bias: bias, on: queue) }
  }

  func addChosenRows(of table: Tensor, rows: Tensor, to accumulator: Tensor, on queue: any DeviceQueue) {
    tell(.addition, "addChosenRows", rows: accumulator.shape[0]) { base.addChosenRows(of: table, rows: rows, to: accumulator, on: queue) }
  }

  func poolRows(_ method: RowPooling, _ input: Tensor, starts: Tensor, output: Tensor, on queue: any DeviceQueue) {
    tell(.pooling, "poolRows", rows: input.shape[0]) { base.poolRows(method, input, starts: starts, output: output, on: queue) }
  }

  func unitRows(_ values: Tensor, on queue: any DeviceQueue) {
    tell(.norm, "unitRows", rows: values.shape[0]) { base.unitRows(values, on: queue) }
  }

  func gatherRows(_ input: Tensor, rows: Tensor, output: Tensor, on queue: any DeviceQueue) {
    tell(.gather, "gatherRows", rows: output.shape[0]) { base.gatherRows(input, rows: rows, output: output, on: queue) }
  }

  func copyHeads(_ input: HeadPlace, to output: HeadPlace, rows: Int, heads: Int, width: Int, on queue: any DeviceQueue) {
    tell(.gather, "copyHeads", rows: rows) { base.copyHeads(input, to: output, rows: rows, heads: heads, width: width, on: queue) }
  }

  func headProduct(_ input: Tensor, _ weights: [any PreparedWeight], output: Tensor, on queue: any DeviceQueue) {
    let rows = input.shape[0] / max(weights.count, 1)
    tell(
      .product, "headProduct", rows: rows, weight: weights.first,
      operations: weights.reduce(0) { $0 + operations($1, rows: rows) },
      byteCount: rows > 0 ? weights.reduce(0) { $0 + Double($1.byteCount) } : 0
    ) { base.headProduct(input, weights, output: output, on: queue) }
  }

  func route(_ outputs: Tensor, bias: Tensor?, routing: ExpertRouting, plan: ExpertPlan, load: Tensor?, on queue: any DeviceQueue) {
    tell(.routing, "route", rows: outputs.shape[0]) { base.route(outputs, bias: bias, routing: routing, plan: plan, load: load, on: queue) }
  }

  func expertProduct(
    _ input: Tensor, isSorted: Bool, _ weights: [any PreparedWeight], plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue
  ) {
    let offsets = plan.offsets.unsafeHostPointer(to: Int32.self)
    // Of experts that nobody chose nothing is read.
    let used = weights.indices.filter { expert in offsets.map { $0[expert + 1] > $0[expert] } ?? true }
    tell(
      .product, "expertProduct", rows: output.shape[0], weight: weights.first,
      operations: weights.first.map { operations($0, rows: output.shape[0]) } ?? 0,
      byteCount: used.reduce(0) { $0 + Double(weights[$1].byteCount) }
    ) { base.expertProduct(input, isSorted: isSorted, weights, plan: plan, output: output, on: queue) }
  }

  func combineExperts(_ input: Tensor, plan: ExpertPlan, output: Tensor, on queue: any DeviceQueue) {
    tell(.addition, "combineExperts", rows: output.shape[0]) { base.combineExperts(input, plan: plan, output: output, on: queue) }
  }

  private func operations(_ weight: any PreparedWeight, rows: Int) -> Double {
    2 * Double(rows) * Double(weight.rows) * Double(weight.columns)
  }
}

private struct ObservedAttentionKernels: AttentionKernels {
  let base: any AttentionKernels
  let observer: any KernelObserver

  func obstacles(layout: KVLayout, numHeads: Int) -> [String] { base.obstacles(layout: layout, numHeads: numHeads) }

  func append(_ arguments: AppendArguments, on queue: any DeviceQueue) {
    observer.callBegins(KernelCall(.append, "append", rows: arguments.ragged.numTokens))
    base.append(arguments, on: queue)
    observer.callEnds()
  }

  func attend(_ arguments: AttendArguments, on queue: any DeviceQueue) {
    let (operations, bytes) = Self.work(arguments)
    observer.callBegins(KernelCall(.attend, "attend", rows: arguments.ragged.numTokens, operations: operations, byteCount: bytes))
    base.attend(arguments, on: queue)
    observer.callEnds()
  }

  func gather(_ arguments: GatherArguments, on queue: any DeviceQueue) {
    observer.callBegins(KernelCall(.gather, "gather", rows: arguments.positions.count))
    base.gather(arguments, on: queue)
    observer.callEnds()
  }

  /// 2 · dims of a key and of a value, for each head, query and key that it sees; keys and values of the cache as stored, each once for all of its
  /// request's queries. 0 where the host cannot read the lengths, and of a request that no task names, whose attention is computed otherwise.
  private static func work(_ arguments: AttendArguments) -> (operations: Double, byteCount: Double) {
    let ragged = arguments.ragged, layout = arguments.cache.layout
    guard let starts = ragged.queryIndptr.unsafeHostPointer(to: Int32.self), let lengths = ragged.kvLens.unsafeHostPointer(to: Int32.self)
    else { return (0, 0) }
    let named = requests(of: arguments.work)
    var pairs = 0, keys = 0
    for request in 0..<ragged.numRequests where lengths[request] > 0 && named.contains(Int32(request)) {
      let queries = Int(starts[request + 1] - starts[request])
      pairs += arguments.mask.visiblePairs(queries: queries, keys: Int(lengths[request]))
      keys += arguments.mask.visibleKeys(queries: queries, keys: Int(lengths[request]))
    }
    let stored = layout.headDim + (layout.valuesAreKeys ? 0 : layout.valueHeadDim)
    // Of int8 a float32 scale for each key and each value.
    let scaleBytes = layout.scales == nil ? 0 : layout.valuesAreKeys ? 4 : 8
    return (
      2 * Double(arguments.numHeads * (layout.headDim + layout.valueHeadDim)) * Double(pairs),
      Double(layout.numKVHeads * (stored * layout.dataType.byteCount + scaleBytes)) * Double(keys)
    )
  }

  /// The requests whose rows the tasks compute.
  private static func requests(of work: AttentionWork) -> Set<Int32> {
    var requests: Set<Int32> = []
    // Tasks and segments of tasks are rows of eight numbers, the request first.
    for (table, count) in [(work.tasks, work.numTasks), (work.segments, work.numSegments)] where count > 0 {
      guard let numbers = table.unsafeHostPointer(to: Int32.self) else { continue }
      for row in 0..<count { requests.insert(numbers[8 * row]) }
    }
    return requests
  }
}
