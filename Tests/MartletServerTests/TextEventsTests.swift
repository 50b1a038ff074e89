// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import MartletServer
import MartletTemplates
import NIOCore
import Testing

/// What stands in an event is what JSON has for it, also where it is written in a hurry.
@Suite struct TextEventsTests {
  @Test(arguments: [
    ("Once upon", #""Once upon""#), ("", #""""#), ("\"a\\b\"\n\t", #""\"a\\b\"\n\t""#), ("\u{1}\u{7F}", "\"\\u0001\u{7F}\""),
    ("dash — \u{2028}\u{2029}\u{85}", #""dash — \u2028\u2029\u0085""#), ("é©😀日本", #""é©😀日本""#),
  ])
  func `a text stands in its event as JSON has it, on one line`(_ text: String, _ json: String) {
    let events = TextEvents { ["id": "x", "choices": [["index": 0, "text": .string($0), "logprobs": .null]]] }
    var buffer = ByteBuffer()
    events.write(text, to: &buffer)
    #expect(
      String(buffer: buffer) == "data: {\"id\": \"x\", \"choices\": [{\"index\": 0, \"text\": \(json), \"logprobs\": null}]}\n\n")
  }
}
#endif
