// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Cuts text into pieces where a pattern matches.
struct TextSplitter: Sendable, Hashable {
  /// What becomes of the matches (the names are those of `tokenizer.json`).
  enum Behaviour: Sendable, Hashable {
    case isolated, removed, mergedWithPrevious, mergedWithNext, contiguous
  }

  enum Pattern: Sendable, Hashable {
    case words(WordPattern)
    /// Wherever these bytes stand; not empty.
    case text([UInt8])

    /// Calls `body` with the matches in `text[range]` and with the runs between, in order; together they cover it.
    func forEachPart(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
      switch self {
      case .words(let pattern): pattern.forEachPart(in: text, range, body)
      case .text(let searched):
        var position = range.lowerBound
        var start = position
        while position < range.upperBound {
          guard text[position] == searched[0], position + searched.count <= range.upperBound,
            text[position..<position + searched.count].elementsEqual(searched)
          else {
            position += 1
            continue
          }
          if start < position { body(start..<position, false) }
          body(position..<position + searched.count, true)
          position += searched.count
          start = position
        }
        if start < position { body(start..<position, false) }
      }
    }
  }

  var pattern: Pattern
  var behaviour = Behaviour.isolated
  /// What matches and what does not change places.
  var isInverted = false

  /// Calls `body` with every piece of `text[range]`, in order.
  func forEachPiece(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>) -> Void) {
    switch behaviour {
    case .isolated: pattern.forEachPart(in: text, range) { part, _ in body(part) }
    case .removed:
      pattern.forEachPart(in: text, range) { part, isMatch in
        if isMatch == isInverted { body(part) }
      }
    case .mergedWithPrevious:
      // A match ends the piece that it follows; one that follows a match is a piece of its own.
      var open: Int?
      pattern.forEachPart(in: text, range) { part, isMatch in
        if isMatch != isInverted {
          body((open ?? part.lowerBound)..<part.upperBound)
          open = nil
        } else {
          if let start = open { body(start..<part.lowerBound) }
          open = part.lowerBound
        }
      }
      if let open { body(open..<range.upperBound) }
    case .mergedWithNext:
      // A match begins the piece that follows it; one that another match follows is a piece of its own.
      var match: Int?
      pattern.forEachPart(in: text, range) { part, isMatch in
        if isMatch != isInverted {
          if let start = match { body(start..<part.lowerBound) }
          match = part.lowerBound
        } else {
          body((match ?? part.lowerBound)..<part.upperBound)
          match = nil
        }
      }
      if let match { body(match..<range.upperBound) }
    case .contiguous:
      var open: (start: Int, isMatch: Bool)?
      pattern.forEachPart(in: text, range) { part, isMatch in
        if let current = open {
          if current.isMatch == isMatch { return }
          body(current.start..<part.lowerBound)
        }
        open = (part.lowerBound, isMatch)
      }
      if let open { body(open.start..<range.upperBound) }
    }
  }
}

/// Cuts text into the words that byte-level BPE merges within, as the pre-tokenizer of that name in GGUF files does.
///
/// The names and what stands behind them are llama.cpp's, which gave them. A pre-tokenizer is one published pattern, or a few: each cuts the
/// pieces that the one before it left.
package struct PreTokenizer: Sendable {
  private let splitters: [TextSplitter]
  /// A word that is a token is that token, whatever the merges say.
  let prefersWholeWords: Bool
  /// What a file that does not say whether it wants BOS means.
  let addsBOS: Bool

  private init(_ patterns: [String], prefersWholeWords: Bool = false, addsBOS: Bool = false) {
    var splitters: [TextSplitter] = []
    for pattern in patterns {
      do {
        splitters.append(TextSplitter(pattern: .words(try WordPattern(pattern))))
      } catch {
        fatalError("the pattern \"\(error.alternative)\" of this build's own has no known shape")
      }
    }
    self.splitters = splitters
    self.prefersWholeWords = prefersWholeWords
    self.addsBOS = addsBOS
  }

  /// Calls `body` with every word of `text[range]`, in order. Together they cover it; what lies outside does not count.
  /// - Precondition: `text[range]` is valid UTF-8.
  package func forEachWord(in text: [UInt8], _ range: Range<Int>, _ body: (Range<Int>) -> Void) {
    forEachWord(in: text, range, splitters[...], body)
  }

  private func forEachWord(in text: [UInt8], _ range: Range<Int>, _ rest: ArraySlice<TextSplitter>, _ body: (Range<Int>) -> Void) {
    guard let first = rest.first else { return body(range) }
    if rest.count == 1 {
      first.forEachPiece(in: text, range, body)
    } else {
      first.forEachPiece(in: text, range) { forEachWord(in: text, $0, rest.dropFirst(), body) }
    }
  }

  /// By the names of `tokenizer.ggml.pre`.
  package static let named: [String: PreTokenizer] = {
    var named: [String: PreTokenizer] = [:]
    for (names, preTokenizer) in table {
      for name in names.split(separator: " ") { named[String(name)] = preTokenizer }
    }
    return named
  }()
}

extension PreTokenizer {
  private static let contractions = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
  private static let spaces = #"\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let gpt2 = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  /// GPT-4's pattern and its descendants, which differ in how many digits go together.
  private static func llama3(digits: String) -> String {
    contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|"# + digits + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|"# + spaces
  }
  /// Words that begin a new one where small letters meet a capital.
  private static func cased(suffix: String, digits: String) -> String {
    casedWords(suffix: suffix) + "|" + digits + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"# + spaces
  }
  private static func casedWords(suffix: String, without excluded: String = "") -> String {
    let large = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"# + excluded + "]"
    let small = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}"# + excluded + "]"
    let first = #"[^\r\n\p{L}\p{N}]?"#
    return first + large + "*" + small + "+" + suffix + "|" + first + large + "+" + small + "*" + suffix
  }
  private static let qwenWithoutContractions = #"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"# + spaces
  private static let deepSeek3 = [
    #"\p{N}{1,3}"#, "[一-龥\u{3040}-ゟ゠-ヿ]+",
    asciiMarks + #"| ?[\p{P}\p{S}]+[\r\n]*|"# + spaces,
  ]
  /// Punctuation of ASCII before letters of ASCII, then words of letters and marks.
  private static let asciiMarks = ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##
  private static let threes = #"\d{1,3}(?=(?:\d{3})*\b)"#
  /// Letters of two cases in the basic plane and a few above, as DeepSeek's first tokenizer lists them.
  private static let casedLetters =
    "A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}"
    + "\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}"
    + "\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}"
    + "\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}"
    + "\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}"
    + "\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}"
    + "\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-"
    + "\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}"
    + "\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}"
    + "\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-"
    + "\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}"
  /// Scripts of which AFMoE's words are runs, as llama.cpp lists them: from U+8C48, where U+F900 (which normalises to it) will have been meant.
  private static let separateScripts =
    "\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{8C48}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}"
    + "\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}"
    + "\u{1100}-\u{11FF}"
  private static let bloom = #" ?[^(\s|.,!?…。，、।۔،)]+"#

  /// The names that mean one thing, separated by spaces, and what they mean.
  private static var table: [(names: String, PreTokenizer)] {
    [
      (
        "gpt-2 gpt2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert jina-es jina-de jina-v2-es jina-v2-de "
          + "jina-v1-en jina-v2-code roberta-bpe",
        PreTokenizer([gpt2])
      ),
      ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", PreTokenizer([#"\p{N}"#, gpt2])),
      ("default", PreTokenizer([#"[\p{P}\$\+<=>\^~\|]+"#, gpt2, #"\p{N}+"#, "[0-9][0-9][0-9]"])),
      ("falcon", PreTokenizer([#"[\p{P}\$\+<=>\^~\|`]+"#, gpt2, "[0-9][0-9][0-9]"])),
      (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        PreTokenizer([llama3(digits: #"\p{N}{1,3}"#)], prefersWholeWords: true, addsBOS: true)
      ),
      ("dbrx smaug-bpe chatglm-bpe glm4", PreTokenizer([llama3(digits: #"\p{N}{1,3}"#)])),
      ("minicpm5", PreTokenizer([#"\p{N}{1,3}"#, llama3(digits: #"\p{N}+"#)], prefersWholeWords: true)),
      (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2",
        PreTokenizer([llama3(digits: #"\p{N}"#)])
      ),
      (
        "qwen35",
        PreTokenizer([
          contractions + #"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"# + spaces
        ])
      ),
      (
        "bailingmoe bailingmoe2 llada-moe",
        PreTokenizer([
          contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#
        ])
      ),
      (
        "seed-coder",
        PreTokenizer([contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|"# + spaces])
      ),
      ("tekken", PreTokenizer([cased(suffix: "", digits: #"\p{N}"#)], prefersWholeWords: true, addsBOS: true)),
      ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer([cased(suffix: contractions + "?", digits: #"\p{N}{1,3}"#)])),
      ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer(deepSeek3)),
      (
        "deepseek-llm",
        PreTokenizer([
          #"[\r\n]"#, #"\s?["# + casedLetters + "]+", #"\s?[!-/:-~！-／：-～‘-‟\#u{3000}-。]+"#, #"\s+$"#, "[一-龥ࠀ-一가-\u{D7FF}]+", #"\p{N}+"#,
        ])
      ),
      ("deepseek-coder", PreTokenizer([#"[\r\n]"#, #"\s?\p{L}+"#, #"\s?\p{P}+"#, "[一-龥ࠀ-一가-\u{D7FF}]+", #"\p{N}"#])),
      (
        "youtu",
        PreTokenizer(
          [
            "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+", cased(suffix: contractions + "?", digits: #"\p{N}"#),
          ], prefersWholeWords: true)
      ),
      ("tiny_aya cohere2moe", PreTokenizer([threes, cased(suffix: contractions + "?", digits: #"\p{N}{1,3}"#)])),
      (
        "granite-embed-multi-97m", PreTokenizer([cased(suffix: contractions + "?", digits: #"\p{N}{1,3}"#)], prefersWholeWords: true)
      ),
      ("ufakzeka", PreTokenizer([qwenWithoutContractions])),
      ("laguna", PreTokenizer([#"[^\n]+|[\n]+"#, contractions + "|" + qwenWithoutContractions])),
      (
        "spark2_5",
        PreTokenizer([
          #"\p{N}{1,3}"#, "[一-龥\u{3040}-ゟ゠-ヿ]+", asciiMarks + #"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"#, #"\p{N}"#,
        ])
      ),
      (
        "jais-2",
        PreTokenizer([
          contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)"#
            + #"|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"#
        ])
      ),
      (
        "exaone-moe",
        PreTokenizer([
          contractions + #"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"#
        ])
      ),
      (
        "kimi-k2",
        PreTokenizer([
          #"[\p{Han}]+|"# + casedWords(suffix: "(?i:'s|'t|'re|'ve|'m|'ll|'d)?", without: #"&&[^\p{Han}]"#)
            + #"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"# + spaces
        ])
      ),
      (
        "afmoe",
        PreTokenizer([
          #"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"#, "[" + separateScripts + "]+", asciiMarks + #"| ?[\p{P}\p{S}]+[\r\n]*|"# + spaces,
        ])
      ),
      ("bloom poro-chat gpt3-finnish", PreTokenizer([bloom])),
      ("viking", PreTokenizer([bloom, #"\p{N}"#])),
    ]
  }
}
