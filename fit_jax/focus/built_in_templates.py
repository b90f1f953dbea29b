"""Chat templates of models whose tokenizers ship none though they were trained on one."""

# By a part of the model's name. Vicuna 1.1 and later, as its makers' FastChat writes a conversation.
_BY_NAME = {
    "vicuna": "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}"
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.{% endif %} "
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% elif message['role'] == 'assistant' %}ASSISTANT: {{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}


def built_in_template(name: str) -> str | None:
    """The chat template of a model by its hub id or folder; None where this module knows none."""
    model = name.rstrip("/").rpartition("/")[2].lower()
    return next((template for part, template in _BY_NAME.items() if part in model), None)
