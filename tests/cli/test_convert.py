"""runnel convert: files made of folders, compared tensor by tensor with what numpy computes from the definitions, and what they answer."""
import json
import math
import shutil
import subprocess

import numpy as np
import pytest

from hf_folders import (DEEPSEEK_CODER_STEPS, DEEPSEEK_LLM_STEPS, FALCON_STEPS, LLAMA3, MERGES, QWEN35, SMOLLM_STEPS, SPM_WORDS,
                        TOKENIZER_CONFIG, Gguf, Shape, bpe_tokenizer, byte_alphabet, make_config, make_folder, make_tensors, split_steps,
                        spm_json, spm_model, spm_pieces, stored, write_json, write_safetensors)

LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.q_proj.bias": "attn_q.bias", "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias", "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight", "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight", "mlp.down_proj.weight": "ffn_down.weight"}
GEMMA_NAMES = {**LAYER_NAMES, "post_attention_layernorm.weight": "post_attention_norm.weight",
               "pre_feedforward_layernorm.weight": "ffn_norm.weight", "post_feedforward_layernorm.weight": "post_ffw_norm.weight"}
MODEL_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
               "lm_head.weight": "output.weight"}


def convert(runnel, folder, out, *more, **options):
    return subprocess.run([runnel, "convert", folder, out, *more], capture_output=True, text=True, timeout=120, **options)


def converted(runnel, folder, out, *more):
    done = convert(runnel, folder, out, *more)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert not list(out.parent.glob("*.part"))
    return Gguf(out)


def refusal(runnel, folder, out, *more):
    """The one line; nothing is left."""
    done = convert(runnel, folder, out, *more)
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("runnel: "), done.stderr
    assert not out.exists() and not list(out.parent.glob("*.part"))
    return done.stderr


def new_name(name, names):
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{names[rest]}"


def interleaved(values, n_heads):
    """Rows of each head from (i, i + size / 2) to neighbours."""
    size = len(values) // n_heads
    order = [head * size + half * (size // 2) + i for head in range(n_heads) for i in range(size // 2) for half in (0, 1)]
    return values[order]


def expected(shape, tensors):
    names = GEMMA_NAMES if shape.architecture == "gemma3" else LAYER_NAMES
    out = {}
    for name, values in tensors.items():
        name = new_name(name, names)
        values = np.asarray(values, np.float32)
        if shape.architecture == "llama" and ("attn_q." in name or "attn_k." in name):
            values = interleaved(values, shape.heads if "attn_q." in name else shape.kv_heads)
        if shape.architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + np.float32(1)
        out[name] = values
    return out


def check_tensors(found, wanted, of_type):
    assert sorted(found) == sorted(wanted)
    for name, values in wanted.items():
        kind, decoded = found[name]
        assert decoded.shape == values.shape, name
        if values.ndim == 1:
            assert kind == "F32", name
        else:
            assert kind == of_type, name
        if kind == "Q8_0":
            blocks = values.reshape(-1, 32).astype(np.float64)
            errors = np.abs(decoded.reshape(-1, 32) - blocks)
            step = np.abs(blocks).max(axis=1, keepdims=True) / 127
            nearest = np.rint(blocks / step) * step.astype(np.float16)
            # The encoder looks for steps that leave less than rounding to the nearest would; a single value may lose more by it.
            assert (errors ** 2).sum() < ((nearest - blocks) ** 2).sum() and np.all(errors <= step * 0.75), name
        else:
            assert np.array_equal(decoded, stored(values, kind)), name


SHAPES = {
    "qwen2": Shape("qwen2"),
    "qwen2-tied-odd": Shape("qwen2", layers=1, hidden=96, heads=6, kv_heads=1, head_dim=16, ffn=160, vocab=300, tied=True, dtype="BF16"),
    "qwen3": Shape("qwen3", head_dim=32, heads=3, kv_heads=3, hidden=64),
    "llama": Shape("llama", dtype="F16"),
    "llama-tied": Shape("llama", heads=8, kv_heads=2, head_dim=8, tied=True, dtype="BF16", layers=3),
    "llama-biases": Shape("llama", head_dim=24, heads=4, kv_heads=1, config={"attention_bias": True}),
    "gemma3": Shape("gemma3", layers=7, tied=True, dtype="BF16", config={"query_pre_attn_scalar": 16}),
}


@pytest.mark.parametrize("of_type", ["q8_0", "bF16"])
def test_types_in_small_letters(runnel, tmp_path, of_type):
    """As quantize takes them."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    for name, spelling in (("small.gguf", of_type), ("capital.gguf", of_type.upper())):
        converted(runnel, tmp_path / "folder", tmp_path / name, "--type", spelling)
    assert (tmp_path / "small.gguf").read_bytes() == (tmp_path / "capital.gguf").read_bytes()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("of_type", ["F32", "F16", "BF16", "Q8_0"])
def test_tensors(runnel, tmp_path, name, of_type):
    shape = SHAPES[name]
    tensors = make_folder(tmp_path / "folder", shape)
    gguf = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf", "--type", of_type)
    check_tensors(gguf.tensors, expected(shape, tensors), of_type)
    assert gguf.keys["general.file_type"] == {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}[of_type]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_type_of_the_folder(runnel, tmp_path, dtype):
    shape = Shape("llama", dtype=dtype)
    tensors = make_folder(tmp_path / "folder", shape)
    check_tensors(converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").tensors, expected(shape, tensors), dtype)


def test_rows_that_are_no_whole_blocks(runnel, tmp_path):
    """Q8_0 has blocks of 32: other rows become F16, and it is said."""
    shape = Shape("qwen2", hidden=40, heads=4, head_dim=10, ffn=64)
    tensors = make_folder(tmp_path / "folder", shape)
    done = convert(runnel, tmp_path / "folder", tmp_path / "out.gguf", "--type", "Q8_0")
    assert done.returncode == 0 and "token_embd.weight: rows of 40 values are no whole blocks of Q8_0: F16" in done.stderr
    found = Gguf(tmp_path / "out.gguf").tensors
    assert found["blk.0.ffn_down.weight"][0] == "Q8_0" and found["token_embd.weight"][0] == "F16"
    assert np.array_equal(found["token_embd.weight"][1], stored(tensors["model.embed_tokens.weight"], "F16"))


def test_keys(runnel, tmp_path):
    """What llama.cpp's converter writes of such a folder, but for what it guesses of the model's name."""
    make_folder(tmp_path / "Tiny-Qwen", Shape("qwen2", vocab=290))
    keys = converted(runnel, tmp_path / "Tiny-Qwen", tmp_path / "out.gguf").keys
    tokens, kinds = keys.pop("tokenizer.ggml.tokens"), keys.pop("tokenizer.ggml.token_type")
    assert keys.pop("tokenizer.ggml.merges") == [" ".join(pair) for pair in MERGES]
    assert keys.pop("tokenizer.chat_template") == TOKENIZER_CONFIG["chat_template"]
    whole = {key: value for key, value in keys.items() if not isinstance(value, float)}
    assert whole == {
        "general.architecture": "qwen2", "general.type": "model", "general.name": "Tiny-Qwen", "general.file_type": 0,
        "general.quantization_version": 2, "general.sampling.top_k": 20, "qwen2.block_count": 2, "qwen2.context_length": 512,
        "qwen2.embedding_length": 64, "qwen2.feed_forward_length": 96, "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": 268, "tokenizer.ggml.padding_token_id": 266, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False}
    reals = {key: value for key, value in keys.items() if isinstance(value, float)}
    assert reals == pytest.approx({"qwen2.attention.layer_norm_rms_epsilon": 1e-5, "qwen2.rope.freq_base": 10000.0,
                                   "general.sampling.temp": 0.6, "general.sampling.top_p": 0.95})
    assert len(tokens) == len(kinds) == 290
    assert tokens[:266] == [*(character for _, character in sorted(byte_alphabet().items())), *("".join(pair) for pair in MERGES)]
    assert tokens[266:272] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "[PAD270]", "[PAD271]"]
    assert kinds == [1] * 266 + [3, 3, 3, 4] + [5] * 20, "<|im_end|> is a control token though the folder does not say so"


ROPE = {
    "hub": {"rope_theta": 5e5, "rope_scaling": None},
    "5": {"rope_theta": KeyError, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "bfloat16",
          "layer_types": ["full_attention"] * 2, "sliding_window": None, "use_sliding_window": False},
    "hub-yarn": {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                                                     "attn_factor": 0.8782488562869419}},
    "5-yarn": {"rope_theta": KeyError, "rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0,
                                                           "beta_slow": 2, "original_max_position_embeddings": 128,
                                                           "attention_factor": 1.5}},
    "hub-linear": {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2}},
}


@pytest.mark.parametrize("form", ROPE)
def test_rotation_of_both_forms(runnel, tmp_path, form):
    make_folder(tmp_path / "folder", Shape("qwen3", head_dim=32, config=ROPE[form]))
    keys = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").keys
    found = {key[len("qwen3.rope."):]: value for key, value in keys.items() if key.startswith("qwen3.rope.")}
    wanted = {"freq_base": 5e5}
    if "yarn" in form:
        wanted |= {"scaling.type": "yarn", "scaling.factor": 4, "scaling.original_context_length": 128}
    if form == "hub-yarn":
        wanted["scaling.yarn_attn_factor"] = 0.8782488562869419
    if form == "5-yarn":  # transformers: all of the factor; readers of GGUF: beside 1 + 0.1 ln 4
        wanted |= {"scaling.yarn_beta_fast": 16, "scaling.yarn_beta_slow": 2, "scaling.attn_factor": 1.5 / (1 + 0.1 * math.log(4))}
    if form == "hub-linear":
        wanted |= {"scaling.type": "linear", "scaling.factor": 2}
    assert found.pop("scaling.type", None) == wanted.pop("scaling.type", None)
    assert found == pytest.approx(wanted)
    assert keys["qwen3.attention.key_length"] == keys["qwen3.attention.value_length"] == 32


def test_llama3_rotation(runnel, tmp_path):
    scaling = {**LLAMA3_SCALING, "original_max_position_embeddings": 8192}
    make_folder(tmp_path / "folder", Shape("llama", head_dim=64, hidden=64, heads=2, config={
        "rope_theta": 500000.0, "rope_scaling": scaling, "max_position_embeddings": 131072}),
        bpe_tokenizer(steps=split_steps(LLAMA3), added=("<|begin_of_text|>", "<|eot_id|>")))
    gguf = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    frequencies = 1 / 500000.0 ** (np.arange(0, 64, 2) / 64)
    wanted = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        smooth = (8192 / wavelength - 1) / 3
        wanted.append(1 if wavelength < 8192 / 4 else 8 if wavelength > 8192 else 1 / ((1 - smooth) / 8 + smooth))
    kind, values = gguf.tensors["rope_freqs.weight"]
    assert kind == "F32" and values.shape == (32,) and np.allclose(values, wanted, rtol=1e-6) and len(set(wanted)) > 3
    assert not [key for key in gguf.keys if "rope.scaling" in key]
    assert gguf.keys["llama.rope.dimension_count"] == 64 and gguf.keys["llama.vocab_size"] == 288
    assert gguf.keys["tokenizer.ggml.pre"] == "llama-bpe"


def test_gemma(runnel, tmp_path):
    """The query's scale goes into its norm, where no key says it."""
    shape = Shape("gemma3", layers=6, tied=True, config={"query_pre_attn_scalar": 64, "rope_scaling": {"rope_type": "linear", "factor": 8}})
    tensors = make_folder(tmp_path / "folder", shape)
    gguf = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    wanted = expected(shape, tensors)
    for layer in range(6):
        wanted[f"blk.{layer}.attn_q_norm.weight"] = wanted[f"blk.{layer}.attn_q_norm.weight"] * np.float32(0.5)
    check_tensors(gguf.tensors, wanted, "F32")
    keys = {key[7:]: value for key, value in gguf.keys.items() if key.startswith("gemma3.")}
    assert keys["rope.freq_base"] == 1e6 and keys["rope.freq_base_swa"] == 1e4 and keys["attention.sliding_window"] == 32
    assert keys["rope.scaling.type"] == "linear" and keys["rope.scaling.factor"] == 8 and keys["attention.key_length"] == 16


@pytest.mark.parametrize("n_layers, scalar, factor", [
    (62, 16, 1), (62, 4, 2), (61, 16, 0.5 ** 0.5), (61, 8, 1), (61, None, (8 / 256) ** 0.5), (62, None, 0.25)])
def test_scale_of_gemma_27b(runnel, tmp_path, n_layers, scalar, factor):
    """Readers know the model of 62 layers, and scale its queries by the width over the heads (16 here) and not by their size (8): nothing
    is folded in where that is what the folder says. A folder that says nothing means 256."""
    shape = Shape("gemma3", layers=n_layers, hidden=32, heads=2, kv_heads=1, head_dim=8, ffn=32, tied=True,
                  config={"query_pre_attn_scalar": KeyError if scalar is None else scalar})
    tensors = make_folder(tmp_path / "folder", shape)
    wanted = expected(shape, tensors)
    found = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").tensors
    for layer in range(n_layers):
        name = f"blk.{layer}.attn_q_norm.weight"
        assert np.allclose(found[name][1], wanted[name] * factor, rtol=1e-6), name


def test_gemma_of_transformers_5(runnel, tmp_path):
    new = {"rope_theta": KeyError, "rope_local_base_freq": KeyError, "sliding_window_pattern": KeyError,
           "layer_types": ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"],
           "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}
    make_folder(tmp_path / "new", Shape("gemma3", layers=7, tied=True, config=new))
    make_folder(tmp_path / "old", Shape("gemma3", layers=7, tied=True, config={"rope_scaling": {"rope_type": "linear", "factor": 8.0}}))
    new, old = (converted(runnel, tmp_path / name, tmp_path / f"{name}.gguf").keys for name in ("new", "old"))
    assert new.pop("general.name") == "new" and old.pop("general.name") == "old" and new == old


def test_gemma_that_sees(runnel, tmp_path):
    """The part for text of a model that sees as well, in both ways to name it; values that it shares with all others are not said."""
    text = Shape("gemma3", tied=True, head_dim=256, heads=8, kv_heads=4, hidden=32, vocab=288)
    tensors = make_tensors(text)
    wanted = expected(text, tensors)
    for way, prefix in enumerate(["language_model.model.", "model.language_model."]):
        folder = tmp_path / f"folder{way}"
        make_folder(folder, text)
        names = {name.replace("model.", prefix, 1): (values, "F32") for name, values in tensors.items()}
        names["vision_tower.patch.weight" if way == 0 else "model.vision_tower.patch.weight"] = (np.ones((2, 2, 3, 3)), "F32")
        write_safetensors(folder / "model.safetensors", names)
        inner = {"model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "sliding_window": 32,
                 "vocab_size": 288}
        write_json(folder / "config.json", {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
                                            "text_config": inner, "vision_config": {"hidden_size": 2}})
        done = convert(runnel, folder, tmp_path / "out.gguf")
        assert done.returncode == 0 and "left out: 1 tensor of the part that sees" in done.stderr
        gguf = Gguf(tmp_path / "out.gguf")
        check_tensors(gguf.tensors, wanted, "F32")
        assert gguf.keys["gemma3.attention.head_count_kv"] == 4 and gguf.keys["gemma3.context_length"] == 131072


def test_many_files(runnel, tmp_path):
    shape = Shape("llama", layers=4)
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    make_folder(tmp_path / "one" / "folder", shape)
    make_folder(tmp_path / "many" / "folder", shape, n_files=7)
    (tmp_path / "many" / "folder" / "consolidated.safetensors").write_bytes(b"not named by the index")
    one = converted(runnel, tmp_path / "one" / "folder", tmp_path / "one.gguf")
    many = converted(runnel, tmp_path / "many" / "folder", tmp_path / "many.gguf")
    assert one.data == many.data
    shutil.copytree(tmp_path / "many" / "folder", tmp_path / "none" / "folder", ignore=shutil.ignore_patterns("*.index.json", "cons*"))
    assert converted(runnel, tmp_path / "none" / "folder", tmp_path / "none.gguf").data == one.data, "without an index all files count"


def test_names_without_model(runnel, tmp_path):
    """A base model, saved alone."""
    shape = Shape("qwen2", tied=True)
    tensors = make_tensors(shape)
    make_folder(tmp_path / "folder", shape, tensors={name.removeprefix("model."): values for name, values in tensors.items()})
    write_json(tmp_path / "folder" / "config.json", make_config(shape) | {"architectures": None})
    check_tensors(converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").tensors, expected(shape, tensors), "F32")


def test_what_is_left_out(runnel, tmp_path):
    """Tables of rotation, a head that config.json ties to the embedding, biases of zeros."""
    shape = Shape("llama", tied=True)
    tensors = make_tensors(shape)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8), "lm_head.weight": tensors["model.embed_tokens.weight"],
            "model.layers.1.mlp.up_proj.bias": np.array([0.0, -0.0] * 48)}
    make_folder(tmp_path / "folder", shape, tensors={**tensors, **more})
    check_tensors(converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").tensors, expected(shape, tensors), "F32")


# What the files answer ---------------------------------------------------------------------------------------------


def softmax(values):
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def rotation(config, size, is_local):
    """Frequencies of pairs, and what rotated values are multiplied with."""
    parameters = config.get("rope_parameters") or {}
    parameters = parameters.get("sliding_attention" if is_local else "full_attention", parameters)
    scaling = {} if is_local else config.get("rope_scaling") or parameters
    base = parameters.get("rope_theta") or config["rope_local_base_freq" if is_local else "rope_theta"]
    frequencies = base ** (-np.arange(0, size, 2) / size)
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor", 1)
    if kind == "linear":
        return frequencies / factor, 1
    if kind == "llama3":
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        smooth = np.clip((turns - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"]), 0, 1)
        return frequencies * (smooth + (1 - smooth) / factor), 1
    if kind != "yarn":
        return frequencies, 1

    def pair(turns):  # that turns so often over the original context
        return size * math.log(scaling["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair(scaling.get("beta_fast", 32))), 0), min(math.ceil(pair(scaling.get("beta_slow", 1))), size - 1)
    kept = 1 - np.clip((np.arange(size // 2) - low) / max(high - low, 0.001), 0, 1)
    return frequencies * (kept + (1 - kept) / factor), scaling.get("attention_factor", 1 + 0.1 * math.log(factor))


def reference_logits(shape, tensors, ids):
    """What transformers computes of these tensors, in double precision: rotation turns the halves of a head."""
    t, config, gemma = {name: np.asarray(values, np.float64)
        for name, values in tensors.items()}, make_config(shape), shape.architecture == "gemma3"
    n, size = len(ids), shape.head_dim

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * (t[name] + gemma)

    def rotate(x, frequencies, factor):
        angles = np.outer(np.arange(n), frequencies)
        cos, sin = (np.concatenate([f(angles)] * 2, axis=1)[:, None] * factor for f in (np.cos, np.sin))
        return x * cos + np.concatenate([-x[..., size // 2:], x[..., :size // 2]], axis=-1) * sin

    def activate(x):
        return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x ** 3))) if gemma else x / (1 + np.exp(-x))

    x = t["model.embed_tokens.weight"][ids] * (shape.hidden ** 0.5 if gemma else 1)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        is_local = gemma and (layer + 1) % 6 != 0
        h = norm(x, at + "input_layernorm.weight")
        q, k, v = (h @ t[f"{at}self_attn.{name}_proj.weight"].T + t.get(f"{at}self_attn.{name}_proj.bias", 0) for name in "qkv")
        q, k, v = q.reshape(n, shape.heads, size), k.reshape(n, shape.kv_heads, size), v.reshape(n, shape.kv_heads, size)
        if at + "self_attn.q_norm.weight" in t:
            q, k = norm(q, at + "self_attn.q_norm.weight"), norm(k, at + "self_attn.k_norm.weight")
        q, k = (rotate(values, *rotation(config, size, is_local)) for values in (q, k))
        k, v = (values.repeat(shape.heads // shape.kv_heads, axis=1) for values in (k, v))
        distance = np.subtract.outer(np.arange(n), np.arange(n))
        seen = (distance >= 0) & (distance < (config["sliding_window"] if is_local else n))
        scores = np.einsum("ihd,jhd->hij", q, k) / config.get("query_pre_attn_scalar", size) ** 0.5
        h = np.einsum("hij,jhd->ihd", softmax(np.where(seen, scores, -np.inf)), v).reshape(n, -1) @ t[at + "self_attn.o_proj.weight"].T
        x = x + (norm(h, at + "post_attention_layernorm.weight") if gemma else h)
        h = norm(x, at + ("pre_feedforward_layernorm" if gemma else "post_attention_layernorm") + ".weight")
        h = (activate(h @ t[at + "mlp.gate_proj.weight"].T) * (h @ t[at + "mlp.up_proj.weight"].T)) @ t[at + "mlp.down_proj.weight"].T
        x = x + (norm(h, at + "post_feedforward_layernorm.weight") if gemma else h)
    return norm(x, "model.norm.weight") @ t.get("lm_head.weight", t["model.embed_tokens.weight"]).T


LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}
ANSWERING = {
    **{name: SHAPES[name] for name in ("qwen2", "qwen2-tied-odd", "llama", "llama-tied", "llama-biases", "qwen3")},
    "llama3": Shape("llama", config={"rope_scaling": LLAMA3_SCALING}),
    "qwen3-yarn": Shape("qwen3", head_dim=32, config={"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.9,
                                                                       "original_max_position_embeddings": 32}}),
    "qwen3-yarn-5": Shape("qwen3", head_dim=32, config={"rope_theta": KeyError, "rope_parameters": {
        "rope_theta": 1e5, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 1.3,
        "beta_fast": 8}}),
    "gemma3": Shape("gemma3", layers=7, tied=True, config={"sliding_window": 8, "query_pre_attn_scalar": 40,
                                                           "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
}


@pytest.mark.parametrize("name", ANSWERING)
def test_logits(runnel, tmp_path, name):
    shape = Shape(**{**ANSWERING[name].__dict__, "dtype": "F32"})
    tensors = make_folder(tmp_path / "folder", shape)
    converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    ids = [int(id) for id in np.random.default_rng(2).integers(0, 270, 40)]
    write_json(tmp_path / "ids.json", ids)
    done = subprocess.run([runnel, "logits", tmp_path / "out.gguf", "--ids", tmp_path / "ids.json", "-o", tmp_path / "logits"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "logits", np.float32).reshape(len(ids), -1).astype(np.float64)
    wanted = reference_logits(shape, tensors, ids)
    p, q = softmax(wanted), softmax(found)
    kl = (p * (np.log(p) - np.log(q))).sum(-1)
    assert found.shape == wanted.shape and kl.mean() < 1e-6, kl.mean()
    done = subprocess.run([runnel, "run", tmp_path / "out.gguf", "-p", "hello world", "-n", "4", "--temp", "0"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def merge(word):
    """BPE of one word, by the definition: the first merge of the list that applies, from the left, until none does."""
    parts = list(word)
    for _ in range(100):
        pairs = [pair for pair in MERGES if pair in zip(parts, parts[1:])]
        if not pairs:
            break
        i = [*zip(parts, parts[1:])].index(pairs[0])
        parts[i:i + 2] = ["".join(pairs[0])]
    return parts


@pytest.mark.parametrize("pairs", [False, True])
def test_tokens(runnel, tmp_path, pairs):
    tokenizer = bpe_tokenizer(pairs=pairs)
    make_folder(tmp_path / "folder", Shape("qwen2"), tokenizer)
    converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    characters = byte_alphabet()
    for words in (["hello", " world"], ["<think>", "hell", "\n\n"], ["élor"], ["1", "2", " hello"], ["<|im_end|>"]):
        done = subprocess.run([runnel, "tokenize", tmp_path / "out.gguf", "--special"], input="".join(words).encode(),
                              capture_output=True, timeout=60)
        wanted = []
        for word in words:
            wanted += [ids[word]] if word in ids and word[0] == "<" else [
                ids[part] for part in merge([characters[byte] for byte in word.encode()])]
        assert json.loads(done.stdout) == wanted, words


# Tokenizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, steps", [
    ("smollm", SMOLLM_STEPS), ("llama-bpe", split_steps(LLAMA3)), ("qwen35", split_steps(QWEN35)),
    ("gpt-2", {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}),
    ("deepseek-coder", DEEPSEEK_CODER_STEPS), ("deepseek-llm", DEEPSEEK_LLM_STEPS), ("falcon", FALCON_STEPS)])
def test_pretokenizers(runnel, tmp_path, name, steps):
    make_folder(tmp_path / "folder", Shape("llama"), bpe_tokenizer(steps=steps))
    assert converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").keys["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize("steps", [DEEPSEEK_LLM_STEPS, FALCON_STEPS])
def test_steps_nearly_known(runnel, tmp_path, steps):
    """One changed character makes other words."""
    changed = json.loads(json.dumps(steps).replace("[0-9][0-9][0-9]", "[0-9][0-9]").replace("A-Za-z", "a-zA-Z"))
    make_folder(tmp_path / "folder", Shape("llama"), bpe_tokenizer(steps=changed))
    line = refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert "[0-9][0-9]," in line or "a-zA-Z" in line or "[\\r\\n]" in line
    assert "expected those of qwen2, llama-bpe, qwen35, smollm, gpt-2, deepseek-coder, deepseek-llm or falcon" in line


def test_r1(runnel, tmp_path):
    """DeepSeek's tokens over Qwen's: the pre-tokenizer has a name of its own, control tokens are such, and a text begins with one."""
    bos, eos, user = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"
    tokenizer = bpe_tokenizer(added=(bos, eos, user, "<think>"), post_processor={"type": "Sequence", "processors": [
        {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": bos}}, {"Sequence": {"id": "A"}}]}]})
    folder = tmp_path / "folder"
    make_folder(folder, Shape("qwen2"), tokenizer)
    write_json(folder / "tokenizer_config.json", {"bos_token": {"content": bos}, "eos_token": {"content": eos}, "add_bos_token": False})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    keys = converted(runnel, folder, tmp_path / "out.gguf").keys
    assert keys["tokenizer.ggml.pre"] == "deepseek-r1-qwen" and keys["tokenizer.ggml.token_type"][266:270] == [3, 3, 3, 4]
    assert keys["tokenizer.ggml.bos_token_id"] == 266 and keys["tokenizer.ggml.eos_token_id"] == 267
    assert keys["tokenizer.ggml.add_bos_token"] is True and keys["tokenizer.ggml.add_eos_token"] is False
    assert keys["tokenizer.chat_template"] == "{{ bos_token }}{{ messages[0].content }}"


def test_ends_that_readers_do_not_know(runnel, tmp_path):
    """generation_config.json lists several; the one that no key and no known name tells becomes the end of a turn."""
    folder = tmp_path / "folder"
    make_folder(folder, Shape("qwen2"), bpe_tokenizer(added=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|done|>")))
    write_json(folder / "generation_config.json", {"eos_token_id": [268, 266, 269], "do_sample": True})
    keys = converted(runnel, folder, tmp_path / "out.gguf").keys
    assert keys["tokenizer.ggml.eot_token_id"] == 269 and keys["tokenizer.ggml.eos_token_id"] == 268


def test_ids_of_config(runnel, tmp_path):
    """Where tokenizer_config.json is not there."""
    folder = tmp_path / "folder"
    make_folder(folder, Shape("qwen2", config={"bos_token_id": 267, "eos_token_id": [268, 266]}))
    for name in ("tokenizer_config.json", "generation_config.json"):
        (folder / name).unlink()
    write_json(folder / "chat_template.json", {"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default",
        "template": "yes"}]})
    keys = converted(runnel, folder, tmp_path / "out.gguf").keys
    assert keys["tokenizer.ggml.bos_token_id"] == 267 and keys["tokenizer.ggml.eos_token_id"] == 268
    assert keys["tokenizer.chat_template"] == "yes" and not [key for key in keys if "sampling" in key]


@pytest.mark.parametrize("key, value, found", [
    ("temperature", '"hot"', "expected a number from 0 on, found a text"), ("top_k", "1.5", "expected a whole number from 0 on, found 1.5"),
    ("top_p", "-1", "expected a number from 0 on, found -1"), ("min_p", "NaN", "found NaN or another number that 64 bits do not hold")])
def test_sampling_values_that_are_none(runnel, tmp_path, key, value, found):
    """Left out, as of a GGUF file: a request gives its own."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    (tmp_path / "folder" / "generation_config.json").write_text(f'{{"repetition_penalty": 1.5, "{key}": {value}}}')
    done = convert(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert done.returncode == 0 and f"left out: generation_config.json: {key}: " in done.stderr and found in done.stderr, done
    keys = Gguf(tmp_path / "out.gguf").keys
    assert [name for name in keys if "sampling" in name] == ["general.sampling.penalty_repeat"]


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "chat_template.json"])
@pytest.mark.parametrize("template", ["{% if %}", "{{ messages | no_such_filter }}", "{{ nobody() }}", "fine {{ bos_token + 'a' }}"])
def test_chat_templates_that_cannot_be_run(runnel, tmp_path, name, template):
    """Written all the same, as other programs may run them, and said."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    path = tmp_path / "folder" / name
    (tmp_path / "folder" / "tokenizer_config.json").unlink()
    if name.endswith(".json"):
        write_json(path, {"chat_template": template})
    else:
        path.write_text(template)
    done = convert(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert done.returncode == 0 and Gguf(tmp_path / "out.gguf").keys["tokenizer.chat_template"] == template
    assert (f"{name}: the chat template cannot be run (" in done.stderr) == ("fine" not in template), done.stderr


@pytest.mark.parametrize("number", [int(1e30), -int(1e30), 2 ** 63, 2 ** 64])
def test_integers_past_64_bits(runnel, tmp_path, number):
    """transformers writes int(1e30) for a tokenizer without a length: Gemma 3's has it."""
    make_folder(tmp_path / "folder", Shape("qwen2", layers=1))
    path = tmp_path / "folder" / "tokenizer_config.json"
    tokens = converted(runnel, tmp_path / "folder", tmp_path / "before.gguf").keys["tokenizer.ggml.tokens"]
    write_json(path, {**json.loads(path.read_text()), "model_max_length": number, "text": f"\\ \"{number}"})
    assert f": {number}" in path.read_text()
    assert converted(runnel, tmp_path / "folder", tmp_path / "out.gguf").keys["tokenizer.ggml.tokens"] == tokens


def spm_folder(folder, model=None, tokenizer=None, **more):
    make_folder(folder, Shape("gemma3", tied=True, vocab=320, **more))
    (folder / "tokenizer.json").unlink()
    write_json(folder / "tokenizer_config.json", {"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True})
    if model:
        (folder / "tokenizer.model").write_bytes(model)
    if tokenizer:
        write_json(folder / "tokenizer.json", tokenizer)
    return folder


def test_sentencepiece(runnel, tmp_path):
    """tokenizer.model with scores; added tokens of tokenizer_config.json; one past the embedding is left out."""
    pieces = spm_pieces([("▁▁", -50.0, 4), ("<start_of_turn>", -51.0, 4), ("<unused0>", -52.0, 4), ("old", -53.0, 5)])
    folder = spm_folder(tmp_path / "folder", spm_model(pieces), spm_json())
    n = len(pieces) - 4
    write_json(folder / "tokenizer_config.json", {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "add_bos_token": True, "added_tokens_decoder": {
            str(n): {"content": "▁▁", "special": False}, str(n + 1): {"content": "<start_of_turn>", "special": True},
            "320": {"content": "<image_soft_token>", "special": True}}})
    done = convert(runnel, folder, tmp_path / "out.gguf")
    assert done.returncode == 0 and "left out: 1 token for which the embedding has no row" in done.stderr, done.stderr
    keys = Gguf(tmp_path / "out.gguf").keys
    assert keys["tokenizer.ggml.model"] == "llama" and keys["tokenizer.ggml.pre"] == "default"
    assert keys["tokenizer.ggml.add_space_prefix"] is False and keys["tokenizer.ggml.add_bos_token"] is True
    assert keys["tokenizer.ggml.tokens"][:n] == [text for text, _, _ in pieces[:n]]
    assert keys["tokenizer.ggml.tokens"][n:n + 5] == ["  ", "<start_of_turn>", "<unused0>", "old", f"[PAD{n + 4}]"]
    assert keys["tokenizer.ggml.token_type"][:n] == [kind for _, _, kind in pieces[:n]]
    assert keys["tokenizer.ggml.token_type"][n:n + 5] == [4, 3, 3, 5, 5]
    assert keys["tokenizer.ggml.scores"][:n] == [score for _, score, _ in pieces[:n]]
    assert keys["tokenizer.ggml.scores"][n:n + 5] == [-1000, -1000, -52, -53, -10000]
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.unknown_token_id"]) == (2, 1, 3)
    assert "tokenizer.ggml.merges" not in keys


@pytest.mark.parametrize("prefix", [False, True])
def test_space_before_a_text(runnel, tmp_path, prefix):
    """Of Llama 2: what tokenizer.model says, or the normalizer of tokenizer.json."""
    for name, parts in {"model": (spm_model(dummy_prefix=prefix), None), "json": (None, spm_json(prefix))}.items():
        folder = spm_folder(tmp_path / name, *parts)
        make_folder(tmp_path / "llama", Shape("llama", vocab=320))
        for file in ("config.json", "model.safetensors"):
            shutil.copy(tmp_path / "llama" / file, folder / file)
        assert converted(runnel, folder, tmp_path / f"{name}.gguf").keys["tokenizer.ggml.add_space_prefix"] is prefix


@pytest.mark.parametrize("scheme, prefix", [({}, True), ({"prepend_scheme": "first"}, True), ({"prepend_scheme": "never"}, False)])
def test_space_of_metaspace(runnel, tmp_path, scheme, prefix):
    """One that says nothing puts a space in front, as the library of tokenizers reads it."""
    tokenizer = {**spm_json(), "normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", **scheme}}
    folder = spm_folder(tmp_path / "folder", tokenizer=tokenizer)
    make_folder(tmp_path / "llama", Shape("llama", vocab=320))
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "llama" / file, folder / file)
    assert converted(runnel, folder, tmp_path / "out.gguf").keys["tokenizer.ggml.add_space_prefix"] is prefix


def test_scores_from_merges(runnel, tmp_path):
    """tokenizer.json alone: the order of the merges is that of the scores."""
    keys = converted(runnel, spm_folder(tmp_path / "folder", None, spm_json()), tmp_path / "out.gguf").keys
    texts, scores = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"]
    assert keys["tokenizer.ggml.model"] == "llama" and "tokenizer.ggml.merges" not in keys
    by_score = sorted((text for text in SPM_WORDS if len(text) > 1), key=lambda text: -scores[texts.index(text)])
    assert by_score == [word for word in SPM_WORDS if len(word) > 1]
    assert keys["tokenizer.ggml.token_type"][:5] == [3, 3, 3, 3, 6]
    tokenizer = spm_json()
    tokenizer["model"]["merges"].pop()
    write_json(tmp_path / "folder" / "tokenizer.json", tokenizer)
    assert "its tokenizer.model is needed" in refusal(runnel, tmp_path / "folder", tmp_path / "no.gguf")


# Weights of four bits ----------------------------------------------------------------------------------------------

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack(values, order):
    """[..., 8 n] nibbles to [..., n] int32."""
    values = values.reshape(*values.shape[:-1], -1, 8).astype(np.uint32)
    return sum(values[..., order[i]] << np.uint32(4 * i) for i in range(8)).astype(np.uint32).view(np.int32)


def quantise(name, values, method, group, zeros, random, dtype="F16", excess=1):
    """Random weights of a matrix by the definition of the method, and what they stand for."""
    n_rows, n_columns = values.shape
    group = group or n_columns
    q = random.integers(0, 16, (n_columns, n_rows))
    z = random.integers(excess, 16, (n_columns // group, n_rows)) if zeros is None else np.full((n_columns // group, n_rows), zeros)
    scales = stored(random.normal(0, 0.01, z.shape), dtype)
    base = name.removesuffix(".weight")
    if method == "awq":
        parts = {"qweight": (pack(q, AWQ_ORDER), "I32"), "qzeros": (pack(z, AWQ_ORDER), "I32")}
    else:
        parts = {"qweight": (pack(q.T, range(8)).T, "I32"), "qzeros": (pack(z - excess, range(8)), "I32"),
                 "g_idx": (np.arange(n_columns) // group, "I32")}
    parts["scales"] = (scales, dtype)
    meaning = q.repeat(1, axis=0), z.repeat(group, axis=0), stored(scales, "F16").repeat(group, axis=0)
    return {f"{base}.{part}": value for part, value in parts.items()}, meaning


def make_quantised(folder, shape, config, method, group, zeros=None, **more):
    """A folder whose matrices of layers are quantised, and what the GGUF file is to hold."""
    random = np.random.default_rng(5)
    tensors, plain, meanings = {}, {}, {}
    for name, values in make_tensors(shape).items():
        if "_proj.weight" in name:
            parts, meanings[name] = quantise(name, values, method, group, zeros, random, **more)
            tensors |= parts
        else:
            plain[name] = tensors[name] = values
    make_folder(folder, Shape(**{**shape.__dict__, "config": {**shape.config, "quantization_config": config}}), tensors=tensors)
    return plain, meanings


def check_quantised(gguf, shape, plain, meanings, kind):
    wanted = expected(shape, plain)
    for name, (q, z, scale) in meanings.items():
        # (q - z) s, of which q s + m: s is an f16, and -z s is rounded to one.
        values = (q - 8) * scale if kind == "Q4_0" else q * scale + stored(-(z.astype(np.float32) * scale), "F16")
        assert kind == "Q4_1" or np.all(z == 8)
        wanted |= expected(shape, {name: values.T.astype(np.float32)})
    assert sorted(wanted) == sorted(gguf.tensors)
    n_quantised = 0
    for name, values in wanted.items():
        of_kind, found = gguf.tensors[name]
        assert np.array_equal(found, values), name
        n_quantised += of_kind == kind
    assert n_quantised == len(meanings)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("group", [32, 64, 128, None])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_four_bits(runnel, tmp_path, architecture, group, method):
    shape = Shape(architecture, hidden=128, ffn=256, heads=4, head_dim=32, dtype="F16", layers=1)
    config = {"quant_method": method, "bits": 4, "group_size": group or -1, "desc_act": False, "sym": False,
              **({"version": "gemm", "zero_point": True} if method == "awq" else {})}
    plain, meanings = make_quantised(tmp_path / "folder", shape, config, method, group, excess=int(method == "gptq"))
    gguf = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    check_quantised(gguf, shape, plain, meanings, "Q4_1")
    assert gguf.tensors["token_embd.weight"][0] == "F16" and gguf.keys["general.file_type"] == 3


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_four_bits_around_eight(runnel, tmp_path, method):
    """All zeros are 8: Q4_0, which loses nothing. The scales of this one are wider than f16."""
    shape = Shape("llama", hidden=64, ffn=96, heads=4, head_dim=16, layers=1)
    config = {"quant_method": method, "bits": 4, "group_size": 32}
    plain, meanings = make_quantised(tmp_path / "folder", shape, config, method, 32, zeros=8, dtype="BF16", excess=int(method == "gptq"))
    gguf = converted(runnel, tmp_path / "folder", tmp_path / "out.gguf", "--type", "F32")
    check_quantised(gguf, shape, plain, meanings, "Q4_0")
    done = subprocess.run([runnel, "inspect", tmp_path / "out.gguf", "--json"], capture_output=True, text=True, timeout=60)
    assert {entry["type"] for entry in json.loads(done.stdout)["types"]} == {"F32", "Q4_0"}


def test_zeros_of_gptq(runnel, tmp_path):
    """gptq_v2 stores them as they are; a stored 15 of the old format is 16. A file beside config.json may say how."""
    shape = Shape("qwen2", hidden=64, ffn=96, layers=1)
    config = {"bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"}
    plain, meanings = make_quantised(tmp_path / "new", shape, config, "gptq", 32, excess=0)
    write_json(tmp_path / "new" / "config.json", make_config(shape))
    write_json(tmp_path / "new" / "quantize_config.json", config)
    check_quantised(converted(runnel, tmp_path / "new", tmp_path / "new.gguf"), shape, plain, meanings, "Q4_1")
    config = {"bits": 4, "group_size": 32, "quant_method": "gptq"}
    plain, meanings = make_quantised(tmp_path / "old", shape, config, "gptq", 32, zeros=16)
    check_quantised(converted(runnel, tmp_path / "old", tmp_path / "old.gguf"), shape, plain, meanings, "Q4_1")


def test_four_bits_answer(runnel, tmp_path):
    shape = Shape("qwen2", hidden=64, ffn=96, layers=2)
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"}
    _, meanings = make_quantised(tmp_path / "folder", shape, config, "awq", 32, excess=0)
    converted(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    done = subprocess.run([runnel, "run", tmp_path / "out.gguf", "-p", "hello", "-n", "4"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("config, words", [
    ({"bits": 8}, ("bits", "8", "expected 4")),
    ({"bits": 3}, ("bits", "3")),
    ({"group_size": 16}, ("group_size", "16")),
    ({"quant_method": "awq", "version": "gemv"}, ("version", "gemv")),
    ({"quant_method": "awq", "backend": "llm-awq"}, ("backend", "llm-awq")),
    ({"checkpoint_format": "marlin"}, ("checkpoint_format", "marlin")),
    ({"is_marlin_format": True}, ("marlin",)),
    ({"pack_dtype": "int8"}, ("pack_dtype", "int8")),
    ({"quant_method": "compressed-tensors"}, ("quant_method", "compressed-tensors", "awq or gptq")),
    ({"quant_method": "fp8"}, ("quant_method", "fp8")),
    ({"quant_method": KeyError}, ("quant_method", "awq or gptq")),
    ({"bits": "4"}, ("bits", "a text")),
])
def test_other_quantisations(runnel, tmp_path, config, words):
    full = {"quant_method": "gptq", "bits": 4, "group_size": 32, **config}
    full = {key: value for key, value in full.items() if value is not KeyError}
    make_quantised(tmp_path / "folder", Shape("qwen2", layers=1), full, "gptq", 32)
    line = refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("part, change, words", [
    ("g_idx", lambda v: np.roll(v, 1), ("g_idx", "desc_act")),
    ("g_idx", lambda v: v[:-1], ("g_idx", "64 values")),
    ("scales", lambda v: np.where(np.arange(v.size).reshape(v.shape) == 7, np.nan, v), ("scales", "value 7", "nan")),
    ("scales", lambda v: np.where(np.arange(v.size).reshape(v.shape) == 7, np.inf, v), ("scales", "value 7", "inf")),
    ("scales", lambda v: np.full_like(v, 60000), ("scales", "times the zero")),
    ("scales", lambda v: v[:, :-1], ("scales", "shape [2, 63], expected [2, 64]")),
    ("qzeros", lambda v: v[:1], ("qzeros", "shape [1, 8], expected [2, 8]")),
    ("qweight", lambda v: v.reshape(-1), ("qweight", "shape")),
    ("qzeros", None, ("qzeros", "not there")),
    ("scales", None, ("scales", "not there")),
    ("qweight", None, ("self_attn.q_proj.weight", "not in the folder")),
])
def test_broken_four_bits(runnel, tmp_path, part, change, words):
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    make_quantised(tmp_path / "folder", Shape("qwen2", layers=1), config, "gptq", 32)
    tensors = {}
    for name, values in make_tensors(Shape("qwen2", layers=1)).items():
        if "_proj.weight" in name:
            tensors |= quantise(name, values, "gptq", 32, None, np.random.default_rng(5))[0]
        else:
            tensors[name] = (values, "F32")
    name = f"model.layers.0.self_attn.q_proj.{part}"
    values, dtype = tensors.pop(name)
    if change:
        tensors[name] = (change(values), dtype)
    write_safetensors(tmp_path / "folder" / "model.safetensors", tensors)
    line = refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf")
    assert all(word in line for word in words), line


def test_four_bits_without_a_word(runnel, tmp_path):
    make_quantised(tmp_path / "folder", Shape("qwen2", layers=1), {}, "gptq", 32)
    write_json(tmp_path / "folder" / "config.json", make_config(Shape("qwen2", layers=1)))
    assert "quantization_config" in refusal(runnel, tmp_path / "folder", tmp_path / "out.gguf")
