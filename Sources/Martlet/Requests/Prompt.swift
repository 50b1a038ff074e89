// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTokenizers

/// What a request starts from.
public enum Prompt: Sendable, ExpressibleByStringInterpolation {
  /// Plain text. The beginning-of-text token is put before it where the model says so; special tokens in it are not interpreted.
  case text(String)
  /// Token ids, taken as they are: nothing is added.
  case tokenIDs([Int])
  /// A conversation, rendered with the model's own chat template.
  case chat([ChatMessage])

  public init(stringLiteral value: String) { self = .text(value) }
}
