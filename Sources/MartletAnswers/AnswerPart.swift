// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A piece of an answer, as soon as it is certain. Pieces of the same kind that follow one another belong together.
public enum AnswerPart: Sendable, Hashable {
  /// What the model thinks before it answers.
  case reasoning(String)
  /// What it says.
  case content(String)
  /// A call of a tool that was offered begins; calls are numbered from 0 in the order in which they begin.
  case callBegan(index: Int, name: String)
  /// A piece of the JSON text of the call's arguments. The pieces joined are one JSON object, unless the call breaks.
  case callArguments(index: Int, String)
  /// The call is whole.
  case callEnded(index: Int)
  /// The call is not whole and never will be, in place of ``callEnded(index:)``: the answer ended inside of its arguments, or they are no JSON. The
  /// pieces of its arguments are what the model wrote.
  case callBroke(index: Int)
}
