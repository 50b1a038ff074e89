// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// `import Martlet` names everything that its own interface speaks of: messages and tokenizers, data types and devices, the cache's settings,
// registries, files.

@_exported public import MartletAnswers
@_exported public import MartletAttention
@_exported public import MartletCPU
@_exported public import MartletCore
@_exported public import MartletFormats
@_exported public import MartletGrammar
@_exported public import MartletKVCache
@_exported public import MartletModels
@_exported public import MartletTemplates
@_exported public import MartletTokenizers
