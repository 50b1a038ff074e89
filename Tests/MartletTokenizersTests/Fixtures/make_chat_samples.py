# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what Jinja makes of conversations with the models' chat templates: chat-samples.json.

    pip install jinja2==3.1.6
    python make_chat_samples.py [PUBLISHED.json] > chat-samples.json

PROGRAMS say in few words what the models' public templates write for system, user and assistant; Jinja renders them as the `transformers`
package has it do. PUBLISHED.json maps a model's name to the `chat_template` of its tokenizer_config.json: with it, every program must render
every conversation as the published template does, refusals included. The recorded file was made so.
"""
import json
import sys

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set system_message = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}")
ALTERNATING = (
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}")


def opened(mark):
    return "{% if add_generation_prompt %}{{ '" + mark + "' }}{% endif %}"


def chatml(default=None, answer="{% set content = m.content %}", opening=""):
    first = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" + default + "<|im_end|>\\n' }}{% endif %}" if default else ""
    return (
        first + "{% for m in messages %}" + answer + "{{ '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{% endfor %}"
        + opened("<|im_start|>assistant\\n" + opening))


QWEN3 = (
    "{% set content = m.content %}{% set last_query_index = questions[-1] %}{% if m.role == 'assistant' %}{% set thought = '' %}"
    "{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{% if loop.index0 > last_query_index and (loop.last or thought) %}"
    "{% set content = '<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') %}{% endif %}{% endif %}")
QUESTIONS = (
    "{% set ns = namespace(list=[]) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.list = ns.list + [loop.index0] %}{% endif %}"
    "{% endfor %}{% set questions = ns.list or [messages | length - 1] %}")
QWQ = (
    "{% set content = m.content %}{% if m.role == 'assistant' and not loop.last %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}")


def llama2(begin, question, default):
    return (
        begin + "{% if messages[0].role == 'system' %}{% set system_message = messages[0].content %}{% set turns = messages[1:] %}{% elif "
        + default + " %}{% set turns = messages %}{% endif %}" + ALTERNATING
        + "{% set content = m.content %}{% if loop.first and system_message %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + content %}{% endif %}"
        "{% if m.role == 'user' %}{{ " + question + " + content.strip() + ' [/INST]' }}{% else %}"
        "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")


def llama3(begin, first=""):
    return (
        begin + first + "{% for m in turns %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}"
        "{% endfor %}" + opened("<|start_header_id|>assistant<|end_header_id|>\\n\\n"))


DATED = (
    "{% set date_string = '26 Jul 2024' %}{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{ 'Cutting Knowledge Date: December 2023\\n' }}"
    "{{ 'Today Date: ' + date_string + '\\n\\n' }}{{ system_message | default('') | trim }}{{ '<|eot_id|>' }}")


def gemma(system, first=""):
    return (
        "{{ bos_token }}" + system + ALTERNATING + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' }}" + first
        + "{{ m.content | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}" + opened("<start_of_turn>model\\n"))


def mistral(opening, closing, answer, place=None):
    question = "{{ '" + opening + "' + m.content + '" + closing + "' }}"
    if place:
        joined = "{{ '" + opening + "' + system_message + '\\n\\n' + m.content + '" + closing + "' }}"
        question = "{% if loop." + place + " and system_message is defined %}" + joined + "{% else %}" + question + "{% endif %}"
    return (
        "{{ bos_token }}" + (SYSTEM if place else "{% set turns = messages %}") + ALTERNATING + "{% if m.role == 'user' %}" + question
        + "{% else %}{{ " + answer + " + eos_token }}{% endif %}{% endfor %}")


# model: (family, program, beginning of text, end of text)
PROGRAMS = {
    "teknium/OpenHermes-2.5-Mistral-7B": ("chatml", chatml(), "<s>", "<|im_end|>"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "chatml", chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "<|im_start|>", "<|im_end|>"),
    "Qwen/Qwen2-7B-Instruct": ("chatml", chatml("You are a helpful assistant."), "", "<|im_end|>"),
    "Qwen/Qwen2.5-7B-Instruct": (
        "qwen", chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "", "<|im_end|>"),
    "Qwen/Qwen3-0.6B": ("qwen", QUESTIONS + chatml(answer=QWEN3), "", "<|im_end|>"),
    "Qwen/QwQ-32B": ("qwen", chatml(answer=QWQ, opening="<think>\\n"), "", "<|im_end|>"),
    "meta-llama/Llama-2-7b-chat-hf": (
        "llama2", llama2("", "bos_token + '[INST] '", "false == true %}{% set system_message = 'Never.' %}{% else"), "<s>", "</s>"),
    "bofenghuang/vigogne-2-70b-chat": (
        "llama2",
        llama2(
            "{{ bos_token }}", "'[INST] '",
            "true %}{% set system_message = 'Vous êtes Vigogne, un assistant IA créé par Zaion Lab. Vous suivez extrêmement bien les "
            "instructions. Aidez autant que vous le pouvez.'"), "<s>", "</s>"),
    "meta-llama/Meta-Llama-3-8B-Instruct": (
        "llama3", llama3("{{ bos_token }}{% set turns = messages %}"), "<|begin_of_text|>", "<|eot_id|>"),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama3", llama3("{{ bos_token }}" + SYSTEM, DATED), "<|begin_of_text|>", "<|eot_id|>"),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama3", llama3("{{ bos_token }}" + SYSTEM, DATED), "<|begin_of_text|>", "<|eot_id|>"),
    "google/gemma-2-2b-it": (
        "gemma",
        gemma("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% set turns = messages %}"),
        "<bos>", "<eos>"),
    "google/gemma-3-1b-it": (
        "gemma", gemma(SYSTEM, "{{ system_message + '\\n\\n' if loop.first and system_message is defined else '' }}"), "<bos>", "<eos>"),
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", mistral("[INST] ", " [/INST]", "m.content"), "<s>", "</s>"),
    "mistralai/Mistral-7B-Instruct-v0.2 v1": ("mistral", mistral(" [INST] ", " [/INST]", "' ' + m.content", "first"), "<s>", "</s>"),
    "mistralai/Mistral-Large-Instruct-2407": ("mistral", mistral("[INST] ", "[/INST]", "' ' + m.content | trim", "last"), "<s>", "</s>"),
    "mistralai/Mistral-Nemo-Instruct-2407": ("mistral", mistral("[INST]", "[/INST]", "m.content", "last"), "<s>", "</s>"),
    "mistralai/Mistral-Large-Instruct-2411": (
        "mistral",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}{% elif m.role == 'system' %}"
        "{{ '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        "<s>", "</s>"),
}

# roles' first letters and contents; whether the assistant's turn is opened at the end
CONVERSATIONS = [
    (True, [("u", "Hi")]),
    (True, [("u", " \n\tHow many\n\nlegs? \u2003\u0085"), ("a", "  Four.\u00a0\n"), ("u", "Ünd\u200b 日本 👩‍👧 <b> {{ x }} 'q' \"q\" \\n")]),
    (True, [("s", " Be brief.\n"), ("u", " Hi ")]),
    (True, [("s", "Be brief."), ("u", "One?"), ("a", "Two."), ("u", "Three?"), ("a", " Four. "), ("u", " Five? ")]),
    (False, [("u", "One?"), ("a", "Two.\n")]),
    (True, [("s", "S"), ("u", "One?"), ("a", "<think>\n\nHm.\n\n</think>\n\nTwo.\n"), ("u", "Three?"), ("a", "No </think> twice</think>\nFour.")]),
    (False, [("u", "One?"), ("a", "<think>\nHm.\n</think>\n\nTwo.")]),
    (True, [("u", ""), ("a", ""), ("u", " ")]),
    (True, [("u", "One?"), ("u", "Two?")]),
    (True, [("u", "One?"), ("a", "Two."), ("a", "Three.")]),
    (True, [("a", "One."), ("u", "Two?")]),
]
ROLES = {"s": "system", "u": "user", "a": "assistant"}


def refuse(message):
    raise TemplateError(message)


def render(program, messages, bos, eos, opens):
    """The text, or None where the template raises an error."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(program).render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=opens)
    except TemplateError:
        return None


def main():
    published = json.load(open(sys.argv[1], encoding="utf-8")) if len(sys.argv) > 1 else {}
    conversations = [
        {"opens_answer": opens, "messages": [{"role": ROLES[role], "content": content} for role, content in turns]} for opens, turns in CONVERSATIONS]
    samples = []
    for model, (family, program, bos, eos) in PROGRAMS.items():
        texts = []
        for conversation in conversations:
            arguments = (conversation["messages"], bos, eos, conversation["opens_answer"])
            texts.append(render(program, *arguments))
            if published:
                expected = render(published[model], *arguments)
                assert texts[-1] == expected, f"{model}, {conversation}:\n{texts[-1]!r}\nis published as\n{expected!r}"
        samples.append({"model": model, "family": family, "bos": bos, "eos": eos, "program": program, "texts": texts})
    json.dump({"conversations": conversations, "samples": samples}, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
