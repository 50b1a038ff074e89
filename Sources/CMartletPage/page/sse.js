// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Reads a stream of server-sent events from the body of a fetch. EventSource cannot send a key or a POST, so the few rules are here: lines end in
// CR, LF or both; a line that begins with a colon is a comment; `data` lines of one event are joined; a blank line ends the event.

/// Text in, events out. The pieces may be cut anywhere, also between CR and LF.
export class EventParser {
  #onData;
  #rest = "";
  #data = null;

  constructor(onData) {
    this.#onData = onData;
  }

  push(text) {
    this.#rest += text;
    let start = 0;
    while (true) {
      const end = nextLineEnd(this.#rest, start);
      if (end < 0) break;
      const isReturn = this.#rest[end] === "\r";
      // Whether a line feed follows is not known yet.
      if (isReturn && end === this.#rest.length - 1) break;
      this.#line(this.#rest.slice(start, end));
      start = end + (isReturn && this.#rest[end + 1] === "\n" ? 2 : 1);
    }
    this.#rest = this.#rest.slice(start);
  }

  /// The stream is over. An event that lacks only its blank line is worth having: it may be the last words of an answer.
  finish() {
    if (this.#rest) this.#line(this.#rest.replace(/\r$/, ""));
    this.#rest = "";
    this.#line("");
  }

  #line(line) {
    if (line === "") {
      const data = this.#data;
      this.#data = null;
      if (data !== null) this.#onData(data);
    } else if (line.startsWith("data:")) {
      const value = line.slice(line[5] === " " ? 6 : 5);
      this.#data = this.#data === null ? value : this.#data + "\n" + value;
    }
    // Comments, and the fields that this page has no use for: event, id, retry.
  }
}

function nextLineEnd(text, start) {
  const feed = text.indexOf("\n", start);
  const carriage = text.indexOf("\r", start);
  if (feed < 0) return carriage;
  return carriage < 0 ? feed : Math.min(feed, carriage);
}

/// Calls `onData` for every event of the body until the stream ends; a stream that breaks throws what fetch throws.
export async function readEvents(body, onData) {
  const parser = new EventParser(onData);
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) break;
      parser.push(decoder.decode(value, { stream: true }));
    }
    parser.push(decoder.decode());
    parser.finish();
  } finally {
    // Where the reader of events threw, nobody wants the rest.
    reader.cancel().catch(() => {});
  }
}
