"""From a Hugging Face folder to an answer: the commands of the README and of the quick start, in both languages, as they are written."""
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hf_folders import SMOLLM_STEPS, Gguf, Shape, make_folder, write_json, write_safetensors
from test_convert import LAYER_NAMES, MODEL_NAMES, interleaved

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "README.zh-CN.md", "docs/quickstart.md", "docs/quickstart.zh-CN.md"]


def commands_of(page):
    """Of the one block that begins with a clone: the folder that is cloned, and the commands after that."""
    blocks = [block for block in re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M) if block.startswith("git clone https://huggingface")]
    assert len(blocks) == 1, page
    clone, *commands = [shlex.split(line, comments=True) for line in blocks[0].splitlines()]
    assert clone[:2] == ["git", "clone"]
    assert [command[:2] for command in commands] == [["build/runnel", verb] for verb in ("convert", "quantize", "run")]
    return clone[2].rsplit("/", 1)[1], commands


def answer_of(runnel, folder, commands):
    """What the last command prints, of at most 48 tokens; the most likely ones, as a drawn answer may be about anything."""
    (folder / "build").symlink_to(Path(runnel).parent)
    for command in commands:
        if command[1] == "run":
            command = [*command, "-n", "48", "--temp", "0"]
        done = subprocess.run([folder / "build" / Path(runnel).name, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_text(runnel, tmp_path, page):
    name, commands = commands_of(page)
    make_folder(tmp_path / name, Shape("qwen2", hidden=256, heads=4, head_dim=64, ffn=512, dtype="BF16"))
    answer_of(runnel, tmp_path, commands)
    sizes = [(tmp_path / command[3]).stat().st_size for command in commands[:2]]
    assert 0.25 < sizes[1] / sizes[0] < 0.5, sizes


def folder_of_smollm2(model, folder):
    """The folder that a file of SmolLM2 could have been made of."""
    folder.mkdir()
    file = Gguf(model)
    keys = file.keys
    tokens = list(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]))
    write_json(folder / "tokenizer.json", {
        "added_tokens": [{"id": id, "content": text, "special": kind == 3} for id, (text, kind) in enumerate(tokens) if kind != 1],
        "normalizer": None, "pre_tokenizer": SMOLLM_STEPS,
        "model": {"type": "BPE", "vocab": {text: id for id, (text, kind) in enumerate(tokens) if kind == 1},
                  "merges": keys["tokenizer.ggml.merges"]}})
    write_json(folder / "tokenizer_config.json", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
                                                  "add_bos_token": False, "chat_template": keys["tokenizer.chat_template"]})
    n_heads, n_kv_heads = keys["llama.attention.head_count"], keys["llama.attention.head_count_kv"]
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "hidden_size": keys["llama.embedding_length"],
        "intermediate_size": keys["llama.feed_forward_length"], "num_hidden_layers": keys["llama.block_count"],
        "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads, "vocab_size": len(tokens), "max_position_embeddings": 8192,
        "rms_norm_eps": keys["llama.attention.layer_norm_rms_epsilon"], "rope_theta": keys["llama.rope.freq_base"],
        "tie_word_embeddings": True})
    sources = {name: source for source, name in [*LAYER_NAMES.items(), *MODEL_NAMES.items()]}
    tensors = {}
    for name, (_, values) in file.tensors.items():
        if "attn_q." in name or "attn_k." in name:
            order = interleaved(np.arange(len(values)), n_heads if "attn_q." in name else n_kv_heads)
            values = values[np.argsort(order)]
        _, layer, rest = name.split(".", 2) if name.startswith("blk.") else ("", "", name)
        tensors[f"model.layers.{layer}.{sources[rest]}" if layer else sources[rest]] = (values, "BF16")
    write_safetensors(folder / "model.safetensors", tensors)


def test_a_real_model(runnel, smollm2, tmp_path):
    name, commands = commands_of("README.md")
    folder_of_smollm2(Path(smollm2), tmp_path / name)
    answer = answer_of(runnel, tmp_path, commands)
    assert re.search("sky|blue|light", answer), answer
