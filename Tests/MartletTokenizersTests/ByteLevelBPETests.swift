// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTestSupport
import MartletTokenizers
import Testing

@Suite struct ByteLevelBPETests {
  @Test func `words merge by the list, within words only`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), (" ", "w"), ("o", " ")]))
    #expect(tokenizer.pieces("hello world") == ["hello", " w", "o", "r", "l", "d"])
    #expect(tokenizer.pieces("hellhell") == ["hell", "hell"])
    // "o " never merges: a space belongs to the word that follows it.
    #expect(tokenizer.pieces("lo w") == ["l", "o", " w"])
    #expect(tokenizer.encode("", parsesSpecialTokens: true) == [])
  }

  @Test func `any text comes back from its tokens`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: [("t", "h"), ("th", "e"), (" ", "the"), ("a", "a"), ("aa", "aa")]))
    var generator = SeededGenerator(seed: 11)
    for _ in 0..<300 {
      let text = randomText(length: 60, using: &generator)
      #expect(tokenizer.decode(tokenizer.encode(text, parsesSpecialTokens: false)) == text)
      #expect(tokenizer.decode(tokenizer.encode(text, parsesSpecialTokens: true)) == text)
    }
  }

  @Test func `a byte without a token is left out and nothing merges over the gap`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: [("a", "b")], missing: [UInt8(ascii: "x")]))
    #expect(tokenizer.pieces("ab axb x") == ["ab", " ", "a", "b", " "])
  }

  @Test func `special tokens match longest first, control tokens only when asked for`() throws {
    let extra: [(String, Kind)] = [("<|a|>", .control), ("<|a|>b", .control), ("<tool>", .userDefined), ("\u{2581}x", .userDefined)]
    let tokenizer = try tokenizer(byteLevelFile(merges: [], extra: extra))
    #expect(tokenizer.encode("<|a|>b<|a|>", parsesSpecialTokens: true) == [257, 256])
    #expect(!tokenizer.encode("<|a|>b<|a|>", parsesSpecialTokens: false).contains { $0 >= 256 })
    #expect(tokenizer.encode("<tool>", parsesSpecialTokens: false) == [258])
    #expect(tokenizer.encode("\u{2581}x", parsesSpecialTokens: false) == [259])
    #expect(tokenizer.isControl(256) && !tokenizer.isControl(258) && !tokenizer.isControl(0))
    #expect(tokenizer.decode([256, 258]) == "<tool>")
    #expect(tokenizer.bytes(of: 256) == [] && tokenizer.bytes(of: 256, showsControlTokens: true) == Array("<|a|>".utf8))
  }

  @Test func `of nested and overlapping special tokens the leftmost longest is cut out`() throws {
    let texts = ["<", "<<", "<<>", "<>", "><", "<<<<a", ">b"]
    let tokenizer = try tokenizer(byteLevelFile(merges: [], extra: texts.map { ($0, .userDefined) }))
    var generator = SeededGenerator(seed: 12)
    for _ in 0..<500 {
      let text = String((0..<Int.random(in: 0...12, using: &generator)).map { _ in "<>ab".randomElement(using: &generator)! })
      var expected: [Int32] = []
      var rest = Substring(text)
      while let first = rest.first {
        if let longest = texts.indices.filter({ rest.hasPrefix(texts[$0]) }).max(by: { texts[$0].count < texts[$1].count }) {
          expected.append(Int32(256 + longest))
          rest = rest.dropFirst(texts[longest].count)
        } else {
          expected.append(Int32(first.asciiValue!))
          rest = rest.dropFirst()
        }
      }
      #expect(tokenizer.encode(text, parsesSpecialTokens: false) == expected, "\(text)")
    }
  }

  @Test func `Llama 3's words are tokens before merges are asked`() throws {
    let extra: [(String, Kind)] = [(printable(" abc"), .normal)]
    let whole = try tokenizer(byteLevelFile(merges: [("a", "b")], extra: extra, pre: "llama-bpe"))
    #expect(whole.pieces("x abc") == ["x", " abc"])
    let merged = try tokenizer(byteLevelFile(merges: [("a", "b")], extra: extra))
    #expect(merged.pieces("x abc") == ["x", " ", "ab", "c"])
  }

  @Test func `the file decides on BOS, and a default holds where it is silent`() throws {
    func addsBOS(_ pre: String, bos: UInt32?, flag: Bool?) throws -> Bool {
      try tokenizer(
        byteLevelFile(merges: [], extra: [("<s>", .control)], pre: pre) { writer in
          if let bos { writer.add("tokenizer.ggml.bos_token_id", .uint32(bos)) }
          if let flag { writer.add("tokenizer.ggml.add_bos_token", .bool(flag)) }
        }
      ).addsBOS
    }
    #expect(try !addsBOS("gpt-2", bos: 256, flag: nil))
    #expect(try addsBOS("gpt-2", bos: 256, flag: true))
    #expect(try addsBOS("llama-bpe", bos: 256, flag: nil))
    #expect(try !addsBOS("llama-bpe", bos: nil, flag: nil))
    #expect(try !addsBOS("llama-bpe", bos: 256, flag: false))
    #expect(
      throws: TokenizerError.malformed(
        field: "tokenizer.ggml.add_bos_token", problem: "is true, but there is no tokenizer.ggml.bos_token_id")
    ) { try addsBOS("gpt-2", bos: nil, flag: true) }
    #expect(throws: TokenizerError.malformed(field: "tokenizer.ggml.bos_token_id", problem: "is 257 of 257 tokens")) {
      try addsBOS("gpt-2", bos: 257, flag: nil)
    }
  }

  @Test func `the id −1 is no token`() throws {
    for none in [GGUFWriter.Value.uint32(.max), .int32(-1), .int64(-1), .uint64(UInt64(UInt32.max))] {
      let tokenizer = try tokenizer(
        byteLevelFile(merges: []) { writer in
          for role in ["bos", "eos", "eot", "eom", "unknown"] { writer.add("tokenizer.ggml.\(role)_token_id", none) }
        })
      #expect(tokenizer.bosToken == nil && tokenizer.eosToken == nil && tokenizer.endTokens.isEmpty && !tokenizer.addsBOS)
    }
  }

  @Test func `end tokens are those of the file's ids and those of known names, whatever their kind`() throws {
    let extra: [(String, Kind)] = [
      ("<|endoftext|>", .control), ("<|im_end|>", .userDefined), ("<|eot_id|>", .normal), ("<stop>", .control), ("</s>", .control),
      ("<other>", .control),
    ]
    let named = try tokenizer(
      byteLevelFile(merges: [], extra: extra) {
        $0.add("tokenizer.ggml.eos_token_id", .uint32(256))
        $0.add("tokenizer.ggml.eot_token_id", .uint32(259))
      })
    #expect(named.eosToken == 256 && named.bosToken == nil)
    #expect(named.endTokens == [256, 257, 258, 259, 260])
    #expect(try tokenizer(byteLevelFile(merges: [], extra: [("</s>", .userDefined)])).endTokens.isEmpty)
  }

  @Test func `names end answers where they are control tokens, and others show that they do`() throws {
    func ends(_ names: [String], kind: Kind = .control, eos: String? = nil) throws -> Set<String> {
      let fromGGUF = try tokenizer(
        byteLevelFile(merges: [], extra: names.map { ($0, kind) }) { writer in
          if let eos { writer.add("tokenizer.ggml.eos_token_id", .uint32(UInt32(256 + names.firstIndex(of: eos)!))) }
        })
      let added = names.enumerated().map { #"{"id":\#($0 + 1),"content":"\#($1)","special":\#(kind == .control)}"# }
      let json = Array(#"{"model":{"type":"BPE","vocab":{"?":0},"merges":[]},"added_tokens":[\#(added.joined(separator: ","))]}"#.utf8)
      let fromJSON = try makeTokenizer(tokenizerJSON: json.span.bytes)
      let result = Set(fromGGUF.endTokens.map { names[Int($0) - 256] })
      if eos == nil { #expect(Set(fromJSON.endTokens.map { names[Int($0) - 1] }) == result) }
      return result
    }
    let text = ["</s>", "<eos>", "[EOS]", "[EOT]", "[e~["]
    #expect(try ends(text) == Set(text))
    #expect(try ends(text, kind: .userDefined).isEmpty)
    let turns = ["<turn|>", "<|return|>", "<|call|>"]
    #expect(try ends(turns + ["<|turn>", "<|start|>", "<|message|>", "[BOS]", "]~b]"]) == Set(turns))
    #expect(try ends(turns, kind: .userDefined) == Set(turns))
    // gpt-oss and Solar end messages inside of an answer with what ends Phi's answers.
    #expect(try ends(["<|end|>"]) == ["<|end|>"])
    #expect(try ends(["<|end|>", "<|call|>"]) == ["<|end|>", "<|call|>"])
    #expect(try ends(["<|end|>", "<|return|>"]) == ["<|end|>", "<|return|>"])
    #expect(try ends(["<|end|>", "<|return|>", "<|call|>"], eos: "<|return|>") == ["<|return|>", "<|call|>"])
    #expect(try ends(["<|flush|>", "<|calls|>", "<|end|>"], eos: "<|end|>") == ["<|flush|>", "<|calls|>"])
    // Gemma 4's vocabulary has the tags of HTML.
    #expect(try ends(["</s>", "<eos>", "<|tool_response>", "<turn|>"], eos: "<eos>") == ["<eos>", "<|tool_response>", "<turn|>"])
  }

  @Test(arguments: [Kind.undefined, .normal, .control, .userDefined, .unused])
  func `a name that ends a turn is a control token, whatever kind a file gives it`(kind: Kind) throws {
    let extra: [(String, Kind)] = [("<|im_end|>", kind), ("<｜end▁of▁sentence｜>", kind)]
    let pieces: [(String, Float)] = (0x21...0x7E).map { (String(UnicodeScalar($0)!), -Float($0)) } + [("▁", -1)]
    let unigram = sentencePieceFile(pieces, extra: extra, model: "t5")
    for tokenizer in [
      try tokenizer(byteLevelFile(merges: [("e", "n"), ("en", "d")], extra: extra)), try tokenizer(sentencePieceFile(pieces, extra: extra)),
      try tokenizer(unigram),
    ] {
      for (index, name) in extra.map(\.0).enumerated() {
        let id = Int32(tokenizer.vocabularySize - 2 + index)
        #expect(tokenizer.isControl(id) && tokenizer.endTokens.contains(id))
        #expect(tokenizer.encode("a\(name)", parsesSpecialTokens: true).last == id)
        #expect(!tokenizer.encode("a\(name)", parsesSpecialTokens: false).contains(id))
        #expect(!tokenizer.encode(MarkedText("a\(name)", contents: [0..<1 + name.utf8.count])).contains(id))
      }
    }
  }

  @Test func `a merge that would make a name that ends a turn is left out`() throws {
    let tokenizer = try tokenizer(byteLevelFile(merges: [("<", "E"), ("<E", "O"), ("<EO", "T"), ("<EOT", ">")], pre: "bloom"))
    #expect(tokenizer.pieces("<EOT>") == ["<EOT", ">"])
    #expect(tokenizer.pieces("<EOT>", parsesSpecialTokens: true) == ["<EOT>"])
  }

  @Test func `what a file lacks or has wrong is named`() throws {
    let supported = PreTokenizer.named.keys.sorted()
    #expect(throws: TokenizerError.unsupportedPreTokenizer("superbpe", supported: supported)) {
      try tokenizer(byteLevelFile(merges: [], pre: "superbpe"))
    }
    #expect(throws: TokenizerError.unsupportedPreTokenizer(nil, supported: supported)) {
      try tokenizer(byteLevelFile(merges: [], pre: nil))
    }
    #expect(TokenizerError.unsupportedPreTokenizer("superbpe", supported: supported).description.contains("\"superbpe\""))
    for (merge, index) in [("a", 0), ("a  b", 1), ("ab c", 2), ("a €", 3), (" a", 4)] {
      var writer = GGUFWriter()
      writer.add("tokenizer.ggml.model", .string("gpt2"))
      writer.add("tokenizer.ggml.pre", .string("gpt-2"))
      writer.add("tokenizer.ggml.tokens", strings: ["a", "b", "c", "ab"])
      writer.add("tokenizer.ggml.merges", strings: [String](repeating: "a b", count: index) + [merge])
      let problem = "is \"\(merge)\", which does not join two tokens to a third"
      #expect(throws: TokenizerError.malformed(field: "tokenizer.ggml.merges[\(index)]", problem: problem)) {
        try tokenizer(writer.bytes())
      }
    }
    var writer = GGUFWriter()
    #expect(throws: TokenizerError.format(.missingKey("tokenizer.ggml.model"))) { try tokenizer(writer.bytes()) }
    writer.add("tokenizer.ggml.model", .string("rwkv"))
    #expect(throws: TokenizerError.unsupportedModel("rwkv", supported: ["gpt2", "llama", "t5", "bert"])) { try tokenizer(writer.bytes()) }
  }

  @Test func `no mutation of a vocabulary makes reading or using it trap`() throws {
    let files = [
      byteLevelFile(merges: [("a", "b"), ("ab", "c"), (" ", "a")], extra: [("<|im_end|>", .control), ("<t>", .userDefined)]) {
        $0.add("tokenizer.ggml.eos_token_id", .uint32(259))
      },
      sentencePieceFile([("▁", -3), ("a", -1), ("b", -2), ("ab", -4), ("▁ab", -5)], extra: [("\n\n", .userDefined)]),
    ]
    let seed: UInt64 = 13
    var generator = SeededGenerator(seed: seed)
    var accepted = 0
    for round in 0..<2000 {
      var bytes = files[round % 2]
      for _ in 0..<Int.random(in: 1...2, using: &generator) {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      guard let file = try? GGUFFile(bytes: bytes) else { continue }
      guard let tokenizer = try? makeTokenizer(from: file) else { continue }
      accepted += 1
      let text = "ab abc \n\n naïve <|im_end|> 😀<s> " + randomText(length: 20, using: &generator)
      let tokens = tokenizer.encode(text, parsesSpecialTokens: round % 3 == 0)
      #expect(tokens.allSatisfy { $0 >= 0 && $0 < tokenizer.vocabularySize }, "seed \(seed), round \(round)")
      _ = tokenizer.decode((0..<Int32(tokenizer.vocabularySize)))
    }
    #expect((100..<1990).contains(accepted), "seed \(seed): \(accepted) of 2000 accepted")
  }
}
