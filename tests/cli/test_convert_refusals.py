"""runnel convert: what is refused, with one line that names it, and what else ends it; never half a file."""
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

from hf_folders import (Gguf, Shape, bpe_tokenizer, make_config, make_folder, make_tensors, message, split_steps, spm_json, spm_model, varint,
                        write_json, write_raw_safetensors, write_safetensors)
from terminal import Terminal
from test_convert import convert, converted, refusal, spm_folder

SHAPE = Shape("qwen2", layers=1)


def says(runnel, tmp_path, *words):
    line = refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert all(word in line for word in words), line
    assert str(tmp_path / "folder") in line or "out.gguf" in line


# The folder --------------------------------------------------------------------------------------------------------


def test_usage(runnel, tmp_path):
    for arguments in ([], [tmp_path], [tmp_path, "a", "b"], [tmp_path, "a", "--type", "Q4_K"]):
        done = subprocess.run([runnel, "convert", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == "", done
    assert "--type: expected F16|BF16|F32|Q8_0" in done.stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "folder", "fifo", "link"])
def test_files_that_are_none(runnel, tmp_path, name, how):
    folder = tmp_path / "folder"
    make_folder(folder, SHAPE)
    path = folder / name
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "link":
        path.symlink_to("nowhere")
    says(runnel, tmp_path, name)


def test_folders_that_are_none(runnel, tmp_path):
    says(runnel, tmp_path, "No such file")
    assert refusal(runnel, "", tmp_path / "out.gguf") == "runnel: DIR: expected the name of a folder, found an empty one\n"
    (tmp_path / "folder").write_text("a file")
    says(runnel, tmp_path, "expected a folder")
    (tmp_path / "folder").unlink()
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "folder" / "model.safetensors").unlink()
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(b"\x80")
    says(runnel, tmp_path, "model.safetensors", "pytorch_model.bin")


def test_outputs_that_are_none(runnel, tmp_path):
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "out.gguf").mkdir()
    for out, words in ((tmp_path / "out.gguf", "found a folder"), ("/dev/null", "found a folder or a device"),
                       (tmp_path / "nowhere" / "out.gguf", "cannot create"), ("/dev/full/x", "cannot create")):
        done = convert(runnel, tmp_path / "folder", out)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"runnel: {out}: "), done.stderr
    assert not list(tmp_path.glob("*.part"))


# JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content, words", [
    (b"{", "not valid JSON"), (b"[]", "expected a JSON object"), (b"\xff", "not valid JSON"), (b'{"a": 1, "a": 2}', "duplicate"),
    (b"{} {}", "not valid JSON"), ((b'{"a":', b"[", 100_000), "levels of brackets"), ((b'{"a": [1,', b"1,", 9_000_000), "values"),
    (b'{"a": NaM}', "not valid JSON"), (b'{"a": 1NaN}', "not valid JSON"), (b'{"a": NaN5}', "not valid JSON"),
    (b'{"a": "\\ud800"}', "not valid JSON"), (b'{"a": 1e30, "b": 99999999999999999999, "b": 1}', "duplicate")])
def test_bad_json(runnel, tmp_path, name, content, words):
    make_folder(tmp_path / "folder", SHAPE)
    if isinstance(content, tuple):  # a beginning, and what comes so many times
        content = content[0] + content[1] * content[2]
    if len(content) > 4 << 20 and name in ("config.json", "generation_config.json"):
        words = "bytes, at most"
    (tmp_path / "folder" / name).write_bytes(content)
    says(runnel, tmp_path, name, words)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
def test_numbers_that_json_has_not(runnel, tmp_path, number):
    """Python writes them. They do harm only where they are read, and there the field is named."""
    make_folder(tmp_path / "folder", SHAPE)
    path = tmp_path / "folder" / "config.json"
    text = path.read_text()
    path.write_text(text.replace("{", '{"unread": ' + number + ', "words": "NaN \\" Infinity", ', 1))
    converted(runnel, tmp_path / "folder", tmp_path / "fine.gguf")
    for key in ("rms_norm_eps", "hidden_size"):
        path.write_text(json.dumps({**json.loads(text), key: "HERE"}).replace('"HERE"', number))
        says(runnel, tmp_path, "config.json: ", key, "found NaN or another number that 64 bits do not hold")


@pytest.mark.parametrize("content, at", [(b"\xff\xfe{\0", "zero byte"), (b"\xff\xfe{}", "byte 0"), (b"{{ 'a' }}\xc3", "byte 9")])
def test_chat_templates_that_are_no_text(runnel, tmp_path, content, at):
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "folder" / "chat_template.jinja").write_bytes(content)
    says(runnel, tmp_path, "chat_template.jinja: ", at)


def test_bad_index(runnel, tmp_path):
    folder = tmp_path / "folder"
    make_folder(folder, Shape("qwen2", layers=2), n_files=3)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = next(iter(index["weight_map"]))

    def with_map(change):
        changed = json.loads(json.dumps(index))
        change(changed["weight_map"])
        write_json(path, changed)

    for content, word in ((b"{", "not valid JSON"), (b"{}", "weight_map"), (b'{"weight_map": []}', "an array")):
        path.write_bytes(content)
        says(runnel, tmp_path, "model.safetensors.index.json", word)
    for value in ("../model.safetensors", "/etc/passwd", "", 5, ".."):
        with_map(lambda of_map: of_map.update({first: value}))
        says(runnel, tmp_path, first, "of this folder")
    with_map(lambda of_map: of_map.update({first: "model-00009-of-00003.safetensors"}))
    says(runnel, tmp_path, "model-00009-of-00003.safetensors", "No such file")
    with_map(lambda of_map: of_map.update({first: "model-00003-of-00003.safetensors"}))
    says(runnel, tmp_path, first, "is not in model-00003-of-00003.safetensors")
    with_map(lambda of_map: of_map.update({"more.weight": "model-00003-of-00003.safetensors"}))
    says(runnel, tmp_path, "more.weight")
    with_map(lambda of_map: of_map.pop(first))
    says(runnel, tmp_path, first, "is not in model.safetensors.index.json")
    path.unlink()
    shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "copy.safetensors")
    says(runnel, tmp_path, "copy.safetensors", "model-00001-of-00003.safetensors", "tensor")


# safetensors -------------------------------------------------------------------------------------------------------


def entry(begin=0, end=8, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("header, words", [
    (b"{", ("not valid JSON",)), (b"[]", ("expected a JSON object",)), (b"{}", ("8 bytes at the end",)),
    (b'{"a": {}, "a": {}}', ("duplicate",)),
    ({"a": 5}, ("tensor a", "dtype")), ({"a": {"dtype": "F32"}}, ("tensor a", "shape")),
    ({"a": {"dtype": "F32", "shape": [2]}}, ("tensor a", "data_offsets")),
    ({"a": entry(dtype="F4")}, ("tensor a", '"F4"', "not known")), ({"a": entry(dtype=7)}, ("tensor a", "dtype")),
    ({"a": entry(shape=[-1])}, ("tensor a", "dimension 0")), ({"a": entry(shape=[1.5])}, ("tensor a", "dimension 0")),
    ({"a": entry(shape=["2"])}, ("tensor a", "dimension 0")), ({"a": entry(shape=[1] * 9)}, ("tensor a", "at most 8")),
    ({"a": entry(shape=[2 ** 40, 2 ** 40])}, ("tensor a", "overflows")), ({"a": entry(shape=[3])}, ("tensor a", "its shape has 12")),
    ({"a": entry(8, 0)}, ("tensor a", "ascending")), ({"a": entry(-8, 0)}, ("tensor a", "ascending")),
    ({"a": {**entry(), "data_offsets": [0]}}, ("tensor a", "two")), ({"a": {**entry(), "data_offsets": "0"}}, ("tensor a", "two")),
    ({"a": entry(0, 16, shape=[4])}, ("tensor a", "truncated")), ({"a": entry(2 ** 62, 2 ** 62 + 8)}, ("tensor a", "truncated")),
    ({"a": entry(0, 4, shape=[1]), "b": entry(0, 8)}, ("a and b share bytes",)),
    ({"a": entry(0, 8), "b": entry(4, 8, shape=[1])}, ("a and b share bytes",)),
    ({"a": entry(4, 8, shape=[1])}, ("tensor a", "4 bytes before")), ({"a": entry(0, 4, shape=[1])}, ("4 bytes at the end",)),
    ({"": entry()}, ("name of 0 bytes",)), ({"n" * 300: entry()}, ("name of 300 bytes",)),
])
def test_bad_headers(runnel, tmp_path, header, words):
    make_folder(tmp_path / "folder", SHAPE)
    write_raw_safetensors(tmp_path / "folder" / "model.safetensors", header, bytes(8))
    says(runnel, tmp_path, "model.safetensors", *words)


@pytest.mark.parametrize("content, words", [
    (b"", "found 0 bytes"), (b"\x10\0\0", "found 3 bytes"), (struct.pack("<Q", 100) + b"{}", "truncated"),
    (struct.pack("<Q", 0) + b"{}", "2 to 8388608 bytes, found 0"), (struct.pack("<Q", 1 << 33), "2 to 8388608 bytes"),
    (struct.pack("<Q", 2 ** 63), "found 9223372036854775808"), (struct.pack("<Q", 2 ** 64 - 1), "2 to 8388608 bytes"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull")])
def test_bad_files(runnel, tmp_path, content, words):
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "folder" / "model.safetensors").write_bytes(content)
    says(runnel, tmp_path, "model.safetensors", words)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json",
                                  "chat_template.jinja"])
def test_files_that_were_not_fetched(runnel, tmp_path, name):
    """Llama 3's and Gemma 3's tokenizer.json are in Git LFS, too; a template would have been taken as it is."""
    make_folder(tmp_path / "folder", SHAPE)
    if name == "tokenizer.model":
        (tmp_path / "folder" / "tokenizer.json").unlink()
    (tmp_path / "folder" / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    says(runnel, tmp_path, f"{name}: ", "Git LFS", "`git lfs pull`")


def test_a_header_of_gigabytes(runnel, tmp_path):
    """A file that has it, without taking room: nothing is read of it."""
    make_folder(tmp_path / "folder", SHAPE)
    path = tmp_path / "folder" / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 3 << 30))
    os.truncate(path, 4 << 30)
    says(runnel, tmp_path, "model.safetensors", "3221225472")


def test_cut_anywhere(runnel, tmp_path):
    make_folder(tmp_path / "folder", SHAPE)
    path = tmp_path / "folder" / "model.safetensors"
    whole = path.read_bytes()
    for n in [*range(0, 16), 100, 1000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:n])
        says(runnel, tmp_path, "model.safetensors")


def change_tensors(tmp_path, change, shape=SHAPE, dtype="F32"):
    tensors = {name: (values, dtype) for name, values in make_tensors(shape).items()}
    make_folder(tmp_path / "folder", shape)
    change(tensors)
    write_safetensors(tmp_path / "folder" / "model.safetensors", tensors)


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop(Q), (Q, "not in the folder")),
    (lambda t: t.pop("model.embed_tokens.weight"), ("model.embed_tokens.weight", "not in the folder")),
    (lambda t: t.pop("lm_head.weight"), ("lm_head.weight", "does not tie it")),
    (lambda t: t.update({Q: (np.ones((64, 63)), "F32")}), (Q, "shape [64, 63], expected [64, 64]")),
    (lambda t: t.update({Q: (np.ones((64, 64, 1)), "F32")}), (Q, "shape [64, 64, 1]")),
    (lambda t: t.update({"model.norm.weight": (np.ones((1, 64)), "F32")}), ("model.norm.weight", "shape [1, 64], expected [64]")),
    (lambda t: t.update({"lm_head.weight": (np.ones((287, 64)), "F32")}), ("lm_head.weight", "shape [287, 64], expected [288, 64]")),
    (lambda t: t.update({Q: (np.ones((64, 64)), "I64")}), (Q, "dtype I64", "F32, F16 or BF16")),
    (lambda t: t.update({"model.layers.1.mlp.up_proj.weight": (np.ones((2, 2)), "F32")}),
    ("model.layers.1.mlp.up_proj.weight", "1 layers")),
    (lambda t: t.update({"model.layers.0.mlp.up_proj.bias": (np.ones(96), "F32")}), ("mlp.up_proj.bias", "not part of a qwen2 model")),
    (lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": (np.ones(16), "F32")}), ("q_norm.weight", "not part of a qwen2 model")),
])
def test_other_tensors(runnel, tmp_path, change, words):
    change_tensors(tmp_path, change)
    says(runnel, tmp_path, *words)


@pytest.mark.parametrize("value, of_type, words", [
    (np.nan, "F32", "nan"), (np.inf, "F16", "inf"), (-np.inf, "BF16", "inf"), (7e4, "F16", "70000"), (1e38, "Q8_0", "1e+38")])
def test_values_that_do_not_fit(runnel, tmp_path, value, of_type, words):
    def change(tensors):
        tensors["model.layers.0.mlp.down_proj.weight"][0][3, 5] = value

    change_tensors(tmp_path, change)
    line = refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf", "--type", of_type)
    assert "blk.0.ffn_down.weight" in line and words in line and of_type in line
    assert f"{tmp_path}/folder/model.safetensors: tensor model.layers.0.mlp.down_proj.weight: row 3, value 5 is" in line


@pytest.mark.parametrize("place", ["self_attn.q_proj.weight", "self_attn.k_proj.bias"])
def test_a_value_is_told_by_its_place_in_the_folder(runnel, tmp_path, place):
    """llama's rows of q and k have another order in the file."""
    shape = Shape("llama", layers=1, config={"attention_bias": True})
    tensors = make_tensors(shape)
    values = tensors[f"model.layers.0.{place}"]
    values[(3, 5) if values.ndim == 2 else 3] = np.nan
    make_folder(tmp_path / "folder", shape, tensors=tensors)
    says(runnel, tmp_path, f"tensor model.layers.0.{place}: row {'3, value 5' if values.ndim == 2 else '0, value 3'} is nan")


# config.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, words", [
    ({"architectures": ["MixtralForCausalLM"]}, ("MixtralForCausalLM", "Qwen2ForCausalLM")),
    ({"architectures": ["Qwen2ForSequenceClassification"]}, ("Qwen2ForSequenceClassification",)),
    ({"architectures": None, "model_type": "mamba"}, ("mamba",)), ({"architectures": None, "model_type": None}, ("architectures",)),
    ({"architectures": "Qwen2ForCausalLM"}, ("architectures", "an array")),
    ({"num_hidden_layers": None}, ("num_hidden_layers", "not there")), ({"num_hidden_layers": 0}, ("num_hidden_layers", "found 0")),
    ({"num_hidden_layers": 2000}, ("num_hidden_layers", "1024")), ({"num_hidden_layers": "2"}, ("num_hidden_layers", "a text")),
    ({"hidden_size": 1.5}, ("hidden_size", "1.5")), ({"hidden_size": -64}, ("hidden_size", "-64")),
    ({"hidden_size": True}, ("hidden_size", "true")),
    ({"intermediate_size": 1e300}, ("intermediate_size",)), ({"vocab_size": None}, ("vocab_size", "not there")),
    ({"num_attention_heads": 3}, ("num_attention_heads", "3")),
    ({"num_attention_heads": 6, "num_key_value_heads": 6}, ("hidden_size", "6")),
    ({"head_dim": 15}, ("15", "even")), ({"head_dim": 5000}, ("head_dim", "1024")), ({"rms_norm_eps": 0}, ("rms_norm_eps", "found 0")),
    ({"rms_norm_eps": "1e-5"}, ("rms_norm_eps", "a text")), ({"rope_theta": -1}, ("rope_theta",)),
    ({"max_position_embeddings": 0}, ("max_position",)),
    ({"tie_word_embeddings": "no"}, ("tie_word_embeddings", "true or false")), ({"hidden_act": "gelu"}, ("hidden_act", "gelu", "silu")),
    ({"mlp_bias": True}, ("mlp_bias",)), ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor", "0.5")),
    ({"final_logit_softcapping": 30.0}, ("final_logit_softcapping",)),
    ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}, ("use_sliding_window",)),
    ({"layer_types": ["sliding_attention"]}, ("layer_types", "sliding_attention", "layer 0")),
    ({"layer_types": []}, ("layer_types", "0 entries")),
    ({"rope_scaling": []}, ("rope_scaling", "an array")), ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ("rope_scaling", "dynamic")),
    ({"rope_scaling": {"type": "longrope"}}, ("longrope", "default, linear, yarn or llama3")),
    ({"rope_scaling": {"type": "yarn"}}, ("factor", "not there")),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, ("factor",)), ({"rope_scaling": {"type": 5}}, ("type", "a number")),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                       "original_max_position_embeddings": 64}}, ("llama3", "qwen2")),
    ({"rope_scaling": {"type": "yarn", "factor": 4, "truncate": False}}, ("truncate",)),
    ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, ("factor", "0.5", "1 or more")),
    ({"rope_scaling": {"type": "yarn", "factor": 1e30, "mscale": 3e38, "mscale_all_dim": 1e-37}}, ("mscale", "too large")),
    ({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 1e-50}}, ("beta_fast", "1e-50")),
    ({"rope_scaling": {"type": "linear", "factor": 1e-50}}, ("factor", "1e-50")), ({"rope_theta": 1e-50}, ("rope_theta", "1e-50")),
    ({"rms_norm_eps": 1e-50}, ("rms_norm_eps", "1e-50")),
    ({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}, ("mrope_section",)),
    ({"rope_parameters": {"rope_type": "proportional"}}, ("rope_parameters", "proportional")),
    ({"rope_parameters": {"full_attention": 5}}, ("full_attention", "a number")),
])
def test_other_configs(runnel, tmp_path, config, words):
    make_folder(tmp_path / "folder", SHAPE)
    write_json(tmp_path / "folder" / "config.json", make_config(SHAPE) | config)
    says(runnel, tmp_path, "config.json", *words)


@pytest.mark.parametrize("config, words", [
    ({"sliding_window": None}, ("sliding_window", "not there")), ({"sliding_window_pattern": 4}, ("sliding_window_pattern", "4")),
    ({"layer_types": ["full_attention", "full_attention"]}, ("layer_types", "layer 0")),
    ({"use_bidirectional_attention": True}, ("bidirectional",)),
    ({"hidden_activation": "gelu"}, ("hidden_activation", "gelu_pytorch_tanh")), ({"query_pre_attn_scalar": 0}, ("query_pre_attn_scalar",)),
    ({"attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 8}}, ("yarn", "linear")),
    ({"rope_parameters": {"full_attention": {},
    "sliding_attention": {"rope_type": "linear", "factor": 2}}}, ("sliding_attention", "scaling")),
])
def test_other_configs_of_gemma(runnel, tmp_path, config, words):
    shape = Shape("gemma3", tied=True)
    make_folder(tmp_path / "folder", shape)
    write_json(tmp_path / "folder" / "config.json", make_config(shape) | config)
    says(runnel, tmp_path, "config.json", *words)


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("original_max_position_embeddings"), ("original_max_position_embeddings",)), (lambda s: s.pop("low_freq_factor"),
    ("low_freq_factor",)),
    (lambda s: s.update(high_freq_factor=1), ("high_freq_factor", "more than low_freq_factor"))])
def test_other_rotations_of_llama(runnel, tmp_path, change, words):
    scaling = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
    change(scaling)
    make_folder(tmp_path / "folder", Shape("llama", config={"rope_scaling": scaling}))
    says(runnel, tmp_path, "config.json", *words)


@pytest.mark.parametrize("config", [
    {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 0}, {"use_sliding_window": True, "sliding_window": 64,
    "max_window_layers": 1},
    {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 0}, {"layer_types": ["full_attention"],
    "use_sliding_window": True}])
def test_windows_that_are_none(runnel, tmp_path, config):
    """Switched off, for no layer, or as long as the context."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1, config=config))
    assert convert(runnel, tmp_path / "folder", tmp_path / "out.gguf").returncode == 0


# Tokenizers --------------------------------------------------------------------------------------------------------


def change_model(**changes):
    def change(tokenizer):
        for key, value in changes.items():
            tokenizer["model"][key] = value
    return change


def change_vocab(change):
    return lambda tokenizer: change(tokenizer["model"]["vocab"])


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop("model"), ("model", "not there")), (lambda t: t.update(model=[]), ("model", "not there")),
    (change_model(type="Unigram"), ("Unigram", "expected BPE")), (change_model(type="WordPiece"), ("WordPiece",)),
    (change_model(vocab={}), ("vocab", "empty")), (change_model(vocab=[]), ("vocab", "an array")), (change_model(merges=[]),
    ("merges", "empty")),
    (change_model(merges={}), ("merges", "an object")), (change_model(merges=["he"]), ("merge 0", "two parts")),
    (change_model(merges=[["h", "e", "l"]]), ("merge 0", "two parts")), (change_model(merges=[5]), ("merge 0",)),
    (change_model(merges=[["h", 5]]), ("merge 0",)),
    (change_model(merges=["h e", "q z"]), ("merge 1", '"q" and "z"')), (change_model(merges=[["", "e"]]), ("merge 0",)),
    (change_model(merges=[["h" * 600, "e" * 600]]), ("merge 0", "1024")),
    (change_model(continuing_subword_prefix="##"), ("continuing_subword_prefix", "##")), (change_model(end_of_word_suffix="</w>"),
    ("end_of_word_suffix",)),
    (change_model(ignore_merges=True), ("ignore_merges", "qwen2")), (change_model(ignore_merges=1), ("ignore_merges", "true or false")),
    (change_vocab(lambda v: v.update({"zz": 288})), ('"zz"', "0 to 287")), (change_vocab(lambda v: v.update({"zz": -1})), ('"zz"',)),
    (change_vocab(lambda v: v.update({"zz": "5"})), ('"zz"',)), (change_vocab(lambda v: v.update({"zz": 5})), ("id 5",)),
    (change_vocab(lambda v: v.update({"z" * 2000: 280})), ("2000 bytes",)), (change_vocab(lambda v: v.update({"": 280})), ("0 bytes",)),
    (lambda t: t.update(normalizer={"type": "Lowercase"}), ("normalizer", "Lowercase")),
    (lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]}), ("normalizer", "Sequence")),
    (lambda t: t.update(pre_tokenizer=None), ("pre_tokenizer", "not there")), (lambda t: t.update(pre_tokenizer={}), ("pre_tokenizer",)),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), ("pre_tokenizer", "Whitespace")),
    (lambda t: t.update(pre_tokenizer=split_steps(r"\w+")), ("pre_tokenizer", r"\w+", "llama-bpe")),
    (lambda t: t.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}), ("add_prefix_space",)),
    (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}), ("pre_tokenizer", "Split")),
    (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": " "}, "behavior": "MergedWithNext"}), ("Split",)),
    (lambda t: t.update(pre_tokenizer={"type": "Digits", "individual_digits": False}), ("pre_tokenizer", "not known")),
    (lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False}] * 9}),
    ("9 steps",)),
    (lambda t: t.update(added_tokens=5), ("added_tokens", "a number")), (lambda t: t.update(added_tokens=[5]), ("added_tokens",)),
    (lambda t: t.update(added_tokens=[{"id": -1, "content": "a"}]), ("added_tokens",)), (lambda t: t.update(added_tokens=[{"id": 1}]),
    ("added_tokens",)),
    (lambda t: t.update(added_tokens=[{"id": 270, "content": ""}]), ("added_tokens",)),
    (lambda t: t.update(added_tokens=[{"id": 270, "content": "a", "special": "yes"}]), ("added_tokens", "special")),
])
def test_other_tokenizers(runnel, tmp_path, change, words):
    tokenizer = bpe_tokenizer()
    change(tokenizer)
    make_folder(tmp_path / "folder", SHAPE, tokenizer)
    says(runnel, tmp_path, "tokenizer.json", *words)


def piece(text=b"x", score=0.0, kind=1):
    return message(1, message(1, text) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind))


@pytest.mark.parametrize("content, words", [
    (b"", "no pieces"), (b"\xff" * 20, "broken"), (b"\x0a\xff", "broken"), (b"\x0a\x05abc", "broken"), (b"\x0b\x00", "broken"),
    (b"\x00\x00", "broken"),
    (b"AGFi 0\nIHRo 1\n", "not a SentencePiece model"), (piece(b""), "piece 0"), (piece(b"x" * 2000), "piece 0"),
    (piece() + piece(kind=9), "piece 1"),
    (piece(score=float("nan")), "piece 0"), (message(1, b"\x0a\x09x"), "broken"), (piece() + message(2, b"\x18"), "broken"),
    (spm_model(kind=1), "unigram"), (spm_model(kind=None), "unigram"), (spm_model(kind=3), "kind 3"), (spm_model()[:-3], "broken")])
def test_other_sentencepieces(runnel, tmp_path, content, words):
    spm_folder(tmp_path / "folder", b"x")
    (tmp_path / "folder" / "tokenizer.model").write_bytes(content)
    says(runnel, tmp_path, "tokenizer.model", words)


@pytest.mark.parametrize("place, step, words", [
    ("normalizer", {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}, ("normalizer", "Replace", "spaces")),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}, ("normalizer", "Replace", "spaces")),
    ("normalizer", {"type": "Replace", "content": "▁"}, ("Replace", "spaces")),
    ("normalizer", {"type": "Prepend", "prepend": "_"}, ("Prepend", "spaces")),
    ("normalizer", {"type": "Lowercase"}, ("normalizer", "Lowercase")),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "_"}, ("pre_tokenizer", "Metaspace", "spaces")),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": "Isolated"}, ("pre_tokenizer", "Split", "spaces")),
    ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}, ("pre_tokenizer", "Digits")),
])
def test_other_steps_of_sentencepiece(runnel, tmp_path, place, step, words):
    spm_folder(tmp_path / "folder", tokenizer={**spm_json(), place: step})
    says(runnel, tmp_path, "tokenizer.json", *words)


@pytest.mark.parametrize("name, content, words", [
    ("tokenizer_config.json", {"add_bos_token": "yes"}, "add_bos_token"), ("tokenizer_config.json", {"chat_template": 5}, "chat_template"),
    ("tokenizer_config.json", {"chat_template": [{"name": "tool_use", "template": "x"}]}, "default"),
    ("chat_template.jinja", "a\0b", "zero byte"), ("chat_template.jinja", ("x", 5 << 20), "at most"),
    ("config.json", {**make_config(SHAPE), "bos_token_id": 288}, "bos_token_id"),
    ("config.json", {**make_config(SHAPE), "pad_token_id": "x"}, "pad_token_id")])
def test_other_values(runnel, tmp_path, name, content, words):
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "folder" / "tokenizer_config.json").unlink()
    if isinstance(content, tuple):
        content = content[0] * content[1]
    if isinstance(content, str):
        (tmp_path / "folder" / name).write_text(content)
    else:
        write_json(tmp_path / "folder" / name, content)
    says(runnel, tmp_path, name, words)


def test_names_do_not_steer_the_terminal(runnel, tmp_path):
    change_tensors(tmp_path, lambda tensors: tensors.update({"evil\033[2J": (np.ones(2), "F32")}))
    says(runnel, tmp_path, "evil?[2J")


# What else ends it -------------------------------------------------------------------------------------------------


def make_large(tmp_path, n_vocab):
    """An embedding of zeros that takes no room on the disk: n_vocab rows of 256 values of 4 bytes."""
    folder, shape = tmp_path / "folder", Shape("qwen2", layers=1, hidden=256, head_dim=64, ffn=256, tied=True, vocab=n_vocab)
    make_folder(folder, Shape(**{**shape.__dict__, "vocab": 288}))
    write_json(folder / "config.json", make_config(shape))
    tensors = make_tensors(Shape(**{**shape.__dict__, "vocab": 1}))
    del tensors["model.embed_tokens.weight"]
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    header["model.embed_tokens.weight"] = {"dtype": "F32", "shape": [n_vocab, 256], "data_offsets": [at, at + n_vocab * 1024]}
    path = folder / "model.safetensors"
    write_raw_safetensors(path, header, b"".join(values.tobytes() for values in tensors.values()))
    os.truncate(path, path.stat().st_size + n_vocab * 1024)
    return folder


def start(runnel, folder, out, **options):
    return subprocess.Popen([runnel, "convert", folder, out], stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(runnel, tmp_path, number):
    """In the middle, which is certain: the file that is written is a FIFO that nobody reads on."""
    folder, part = make_large(tmp_path, 100_000), tmp_path / "out.gguf.part"
    (tmp_path / "out.gguf").write_bytes(b"the one before")
    os.mkfifo(part)
    process = start(runnel, folder, tmp_path / "out.gguf")
    with open(part, "rb") as pipe:
        assert pipe.read(4) == b"GGUF"
        process.send_signal(number)
        while pipe.read(1 << 16):
            pass
    assert process.wait(60) == 130 and process.stderr.read() == "Stopped: nothing was written.\n"
    assert not part.exists() and (tmp_path / "out.gguf").read_bytes() == b"the one before"


def test_the_bar(runnel, tmp_path):
    """On a terminal; Ctrl-C there takes it away, and the file that was begun."""
    folder, part = make_large(tmp_path, 100_000), tmp_path / "out.gguf.part"
    os.mkfifo(part)
    terminal = Terminal([runnel, "convert", folder, tmp_path / "out.gguf"])
    try:
        with open(part, "rb") as pipe:
            assert pipe.read(8 << 20)[:4] == b"GGUF"
            terminal.wait_for("writing [", " of 10")
            terminal.type("\x03")
            while pipe.read(1 << 16):
                pass
        assert terminal.wait_for("Stopped: nothing was written.").endswith("\r\033[K") and terminal.wait() == 130
    finally:
        terminal.close()
    assert not part.exists() and not (tmp_path / "out.gguf").exists()


PEAK = """import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)"""


def peak_bytes(*command):
    """Of a program; started by a Python of its own, since a child inherits the peak of whoever forks it."""
    done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


def test_memory(runnel, tmp_path):
    """100 MB of one tensor are converted with less than 40 MB more than a hundredth of it."""
    small = peak_bytes(runnel, "convert", make_large(tmp_path, 1000), tmp_path / "out.gguf")
    large = peak_bytes(runnel, "convert", make_large(tmp_path, 100_000), tmp_path / "out.gguf")
    assert large - small < 40_000_000, (small, large)
    (tmp_path / "out.gguf").unlink()


def test_a_full_disk(runnel, tmp_path):
    """A limit on the size of files stands for it."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=4))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = convert(runnel, tmp_path / "folder", tmp_path / "out.gguf", preexec_fn=limit)
    assert done.returncode == 1 and "cannot write" in done.stderr and "out.gguf" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out.gguf*"))


def test_a_folder_that_shrinks(runnel, tmp_path):
    """While it is read: an error, and no signal."""
    folder, part = make_large(tmp_path, 100_000), tmp_path / "out.gguf.part"
    os.mkfifo(part)
    process = start(runnel, folder, tmp_path / "out.gguf")
    with open(part, "rb") as pipe:
        assert pipe.read(4) == b"GGUF"
        os.truncate(folder / "model.safetensors", 1 << 20)
        while pipe.read(1 << 16):
            pass
    line = process.stderr.read()
    assert process.wait(60) == 1 and "token_embd.weight" in line and "the file shrank" in line, line
    assert not part.exists() and not (tmp_path / "out.gguf").exists()


def test_an_older_file_is_replaced(runnel, tmp_path):
    make_folder(tmp_path / "folder", SHAPE)
    (tmp_path / "out.gguf").write_bytes(b"the one before")
    assert convert(runnel, tmp_path / "folder", tmp_path / "out.gguf").returncode == 0
    assert Gguf(tmp_path / "out.gguf").keys["general.architecture"] == "qwen2"
