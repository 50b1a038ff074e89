// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCLI
import MartletCPU
import MartletCore
import Testing

@Suite("Workloads of attention")
struct AttentionWorkloadTests {
  @Test("read as they are written")
  func reading() throws {
    let mixed = try #require(AttentionWorkload("32,8,128:1*512@2048,31*1@2047"))
    #expect(mixed.numHeads == 32 && mixed.numKVHeads == 8 && mixed.headDim == 128)
    #expect(mixed.steps.count == 1 && mixed.steps[0].count == 32)
    #expect(mixed.steps[0][0] == .init(newTokens: 512, cachedTokens: 2048) && mixed.steps[0][31] == .init(newTokens: 1, cachedTokens: 2047))
    #expect("\(mixed)" == "32,8,128:1*512@2048,31*1@2047")
    let chunks = try #require(AttentionWorkload("4,1,256:1000@24/512"))
    #expect(chunks.steps == [[.init(newTokens: 512, cachedTokens: 24)], [.init(newTokens: 488, cachedTokens: 536)]])
  }

  @Test(
    "that are none are refused",
    arguments: [
      "", "32,8,128", "32,8:1@0", "32,7,128:1@0", "0,0,0:1@0", "32,8,128:", "32,8,128:0@5", "32,8,128:1@-1", "32,8,128:1", "32,8,128:0*1@1",
      "32,8,128:8@0/0", "32,8,128:8@0/4,1@1", "32,8,128:2*8@0/4", "32,8,128:x@1", "32,8,64+64:1@0", "32,mla,64:1@0", "32,mla,64+0:1@0",
      "32,mla,8+8+8:1@0",
    ])
  func refusal(text: String) { #expect(AttentionWorkload(text) == nil) }

  @Test("count the operations of a causal mask, and the bytes of each type")
  func counts() throws {
    // Query i of a prompt of 3 sees i + 1 keys: 6 pairs; one after 9 sees 10.
    let work = try #require(AttentionWorkload("4,2,64:3@0,1@9"))
    #expect(work.operations == Double(4 * 4 * 64 * 16))
    #expect(work.cacheByteCount(.bf16) == Double(13 * 2 * 2 * 64 * 2))
    // int8: a float32 scale for each token's key and value of each head.
    #expect(work.cacheByteCount(.i8) == Double(13 * 2 * 2 * (64 + 4)))
    // A prompt in chunks does the same work as in one piece and reads its first part twice.
    let whole = try #require(AttentionWorkload("4,2,64:64@0")), chunked = try #require(AttentionWorkload("4,2,64:64@0/32"))
    #expect(whole.operations == chunked.operations)
    #expect(chunked.cacheByteCount(.f32) == 1.5 * whole.cacheByteCount(.f32))
    // One latent serves all heads, and its first dims are the values.
    let latent = try #require(AttentionWorkload("128,mla,512+64:1@4095"))
    #expect("\(latent)" == "128,mla,512+64:1@4095")
    #expect(latent.operations == Double(2 * 128 * (576 + 512) * 4096))
    #expect(latent.cacheByteCount(.bf16) == Double(4096 * 576 * 2) && latent.cacheByteCount(.i8) == Double(4096 * (576 + 4)))
  }

  @Test("are run by every backend and type of cache", arguments: AttentionBackendRegistry.builtIn.names)
  func running(backend: String) throws {
    let device = try CPUDevice(threads: 2)
    for text in ["4,2,32:1*20@30,3*1@40", "4,2,32:70@0/32", "8,mla,48+16:1*20@30,3*1@40"] {
      let work = try #require(AttentionWorkload(text))
      for type in [DataType.f32, .bf16, .f8e4m3, .i8] {
        var options = AttentionTimer.Options(clock: ContinuousClock())
        options.dataType = type
        options.pageSize = 16
        let timer = try AttentionTimer(AttentionBackendRegistry.builtIn.backend(named: backend), work, options, on: device)
        let sample = try timer.run()
        #expect(sample.forward > 0 && sample.prepare > 0, "\(text) \(type)")
        #expect(try timer.runWithoutAppend().forward > 0)
      }
    }
  }

  @Test("of latent attention are run with the products of their heads, in both forms", arguments: AttentionBackendRegistry.builtIn.names)
  func latentHeads(backend: String) throws {
    let device = try CPUDevice(threads: 2)
    for text in ["8,mla,48+16:1*20@30,3*1@40", "8,mla,48+16:70@0/32"] {
      for form in [LatentPrompts.absorbed, .expanded(leastTokens: 2)] {
        var options = AttentionTimer.Options(clock: ContinuousClock())
        options.pageSize = 16
        options.heads = AttentionTimer.Heads(nopeDim: 24, valueDim: 20, latentPrompts: form)
        let work = try #require(AttentionWorkload(text))
        let timer = try AttentionTimer(AttentionBackendRegistry.builtIn.backend(named: backend), work, options, on: device)
        #expect(try timer.run().forward > 0, "\(text) \(form)")
      }
    }
  }
}
