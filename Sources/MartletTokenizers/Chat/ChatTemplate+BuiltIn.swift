// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Templates by name, for files without one: our own programs, which write what the family's published ones write of plain conversations.

extension ChatTemplate {
  /// The names of the built-in templates.
  public static let names = ["chatml", "llama2", "llama3", "gemma", "mistral", "qwen"]

  /// The built-in template of that name.
  /// - Throws: ``TokenizerError/Code/unknownChatTemplate``
  public init(named name: String, specialTokens: [String: String] = [:]) throws(TokenizerError) {
    guard let source = Self.builtIn[name] else { throw .unknownChatTemplate(name, known: Self.names) }
    try self.init(source: Self.beginning + source, specialTokens: specialTokens)
  }

  private static let builtIn = ["chatml": chatML, "llama2": llama2, "llama3": llama3, "gemma": gemma, "mistral": mistral, "qwen": qwen]

  /// How tools are described to a model is its makers' to say. Parts of a content are joined if they are texts.
  private static let beginning = """
    {%- macro words(message) -%}
      {%- if message.tool_calls -%}{{- raise_exception('this template writes no tool calls; use a model file with a template of its own') -}}{%- endif -%}
      {%- if message.content is string -%}
        {{- message.content -}}
      {%- else -%}
        {%- for part in message.content -%}
          {%- if part.type != 'text' -%}{{- raise_exception('this template writes text only, and a content has a part that is none') -}}{%- endif -%}
          {{- '' if loop.first else '\\n' -}}
          {{- part.text -}}
        {%- endfor -%}
      {%- endif -%}
    {%- endmacro -%}
    {%- if tools -%}{{- raise_exception('this template writes no tools; use a model file with a template of its own') -}}{%- endif -%}
    """

  private static let chatML = """
    {%- for message in messages -%}
      {{- '<|im_start|>' + message.role + '\\n' + words(message) + '<|im_end|>\\n' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
    """

  /// Thoughts of answers before the last question are left out, and those after it written as such.
  private static let qwen = """
    {%- set ns = namespace(question=messages|length - 1) -%}
    {%- for message in messages -%}
      {%- if message.role == 'user' -%}{%- set ns.question = loop.index0 -%}{%- endif -%}
    {%- endfor -%}
    {%- for message in messages -%}
      {%- set content = words(message) -%}
      {%- if message.role in ['system', 'user'] -%}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' -}}
      {%- elif message.role == 'assistant' -%}
        {%- set thought = message.reasoning_content if message.reasoning_content is string else '' -%}
        {%- if not thought and '</think>' in content -%}
          {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
          {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\\n' -}}
        {%- if loop.index0 > ns.question and (loop.last or thought) -%}
          {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
        {%- else -%}
          {{- content -}}
        {%- endif -%}
        {{- '<|im_end|>\\n' -}}
      {%- else -%}
        {{- raise_exception('it has no role "' + message.role + '" (has: system, user, assistant)') -}}
      {%- endif -%}
    {%- endfor -%}
    {%- if add_generation_prompt -%}
      {{- '<|im_start|>assistant\\n' -}}
      {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
    {%- endif -%}
    """

  private static let llama3 = """
    {{- bos_token if bos_token is defined else '<|begin_of_text|>' -}}
    {%- for message in messages -%}
      {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + words(message)|trim + '<|eot_id|>' -}}
    {%- endfor -%}
    {%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
    """

  /// Checks that turns alternate, and takes the system message out of them.
  private static let turns = """
    {%- set system = words(messages[0]) if messages[0].role == 'system' else none -%}
    {%- set turns = messages[1:] if system is not none else messages -%}
    {%- for turn in turns -%}
      {%- if turn.role not in ['user', 'assistant'] -%}
        {{- raise_exception('it has no role "' + turn.role + '" (has: system, user, assistant)') -}}
      {%- elif (turn.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('after an optional system message, user and assistant take turns, and the user begins') -}}
      {%- endif -%}
    {%- endfor -%}
    """

  /// The assistant is called "model", and the system speaks through the first question.
  private static let gemma =
    turns + """
      {{- bos_token if bos_token is defined else '<bos>' -}}
      {%- for turn in turns -%}
        {{- '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\\n' -}}
        {%- if loop.first and system is not none -%}{{- system + '\\n\\n' -}}{%- endif -%}
        {{- words(turn)|trim + '<end_of_turn>\\n' -}}
      {%- endfor -%}
      {%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
      """

  private static let llama2 =
    turns + """
      {%- set bos = bos_token if bos_token is defined else '<s>' -%}
      {%- set eos = eos_token if eos_token is defined else '</s>' -%}
      {%- for turn in turns -%}
        {%- if turn.role == 'user' -%}
          {%- set question = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + words(turn) if loop.first and system is not none else words(turn) -%}
          {{- bos + '[INST] ' + question|trim + ' [/INST]' -}}
        {%- else -%}
          {{- ' ' + words(turn)|trim + ' ' + eos -}}
        {%- endif -%}
      {%- endfor -%}
      """

  /// The system message stands before the last question.
  private static let mistral =
    turns + """
      {%- set eos = eos_token if eos_token is defined else '</s>' -%}
      {{- bos_token if bos_token is defined else '<s>' -}}
      {%- for turn in turns -%}
        {%- if turn.role == 'user' -%}
          {{- '[INST] ' + (system + '\\n\\n' if loop.last and system is not none else '') + words(turn) + '[/INST]' -}}
        {%- else -%}
          {{- ' ' + words(turn)|trim + eos -}}
        {%- endif -%}
      {%- endfor -%}
      """
}
