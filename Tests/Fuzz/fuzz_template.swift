// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// libFuzzer's target for templates: a program, a NUL, and its variables as JSON. What it writes must be well-formed, say truly where it came
// from, and be the same once more.

import MartletFormats
import MartletTemplates

/// Small, so that an input costs milliseconds and little memory.
private let limits = TemplateLimits(
  maximumSourceByteCount: 1 << 16, maximumSteps: 10_000, stepsPerInputByte: 1, maximumOutputByteCount: 1 << 16, outputBytesPerInputByte: 1,
  maximumRangeCount: 10_000)

/// One input, which libFuzzer puts in memory of exactly its size.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTemplate(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = UnsafeRawBufferPointer(start: data, count: count)
  let end = bytes.firstIndex(of: 0) ?? count
  let source = String(decoding: bytes[..<end], as: UTF8.self)
  let template: Template
  do throws(TemplateError) { template = try Template(source, limits: limits) } catch {
    precondition(!error.message.isEmpty, "an error without words")
    return 0
  }
  var values = JSON.Object()
  if end < count, let parsed = try? JSONValue(parsing: Array(bytes[(end + 1)...])) {
    values = JSON(parsed).object ?? values
  }
  let first = outcome(template, values)
  precondition(first == outcome(template, values), "the same program wrote something else: \(source)")
  if case .success(let output) = first { check(output, source) }
  return 0
}

private func outcome(_ template: Template, _ values: JSON.Object) -> Result<TemplateOutput, TemplateError> {
  do throws(TemplateError) { return .success(try template.render(values)) } catch { return .failure(error) }
}

private func check(_ output: TemplateOutput, _ source: String) {
  let bytes = Array(output.text.utf8)
  func isBoundary(_ place: Int) -> Bool { place == bytes.count || place < bytes.count && bytes[place] & 0xC0 != 0x80 }
  var end = -1
  for range in output.contents {
    precondition(range.lowerBound > end && !range.isEmpty, "contents overlap or touch: \(output.contents) of \(source)")
    precondition(isBoundary(range.lowerBound) && isBoundary(range.upperBound), "contents cut a character: \(output.contents) of \(source)")
    end = range.upperBound
  }
}
