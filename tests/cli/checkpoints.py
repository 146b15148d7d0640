"""What test_checkpoints.py and bench/checkpoints share: the folders of tests/data/checkpoints and how far logits are from those that
transformers computed; and mistakes that readers make, which have to show."""
import array
import base64
import json
import math
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
NAMES = [f"{architecture}{odd}" for architecture in ("qwen2", "qwen3", "llama", "gemma3") for odd in ("", "-odd")]
GAP = 1e-3  # of the reference's two largest logits: what is nearer may change places


@dataclass
class Reference:
    ids: list
    positions: list  # after which tokens there are logits
    rows: list


def rows_of(content, n_rows):
    values = array.array("f", content)
    n = len(values) // n_rows
    return [values[i * n:(i + 1) * n] for i in range(n_rows)]


def read_reference(name):
    content = json.loads((CHECKPOINTS / name / "reference.json").read_text())
    return Reference(content["ids"], content["positions"], rows_of(base64.b64decode(content["logits"]), len(content["positions"])))


def convert(runnel, folder, out, of_type="F32"):
    done = subprocess.run([runnel, "convert", str(folder), str(out), "--type", of_type], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def logits(runnel, model, ids, *more):
    """As `runnel logits` writes them: bytes."""
    path, out = model.with_suffix(".ids.json"), model.with_suffix(".logits")
    path.write_text(json.dumps(ids))
    done = subprocess.run([runnel, "logits", "-m", str(model), "--ids", str(path), "-o", str(out), *map(str, more)], capture_output=True,
                          text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def log_probabilities(row):
    largest = max(row)
    total = math.log(math.fsum(math.exp(value - largest) for value in row))
    return [value - largest - total for value in row]


def divergence(expected, found):
    expected, found = log_probabilities(expected), log_probabilities(found)
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(expected, found))


def compare(reference, content):
    """The mean KL divergence of logits from the reference's, and after which tokens another one is likeliest though the gap was wide."""
    found = rows_of(content, len(reference.ids))
    assert len(found[0]) == len(reference.rows[0])
    divergences, others = [], []
    for position, row in zip(reference.positions, reference.rows):
        divergences.append(divergence(row, found[position]))
        first, second = sorted(row, reverse=True)[:2]
        if first - second > GAP and max(found[position]) != found[position][row.index(first)]:
            others.append(position)
    return sum(divergences) / len(divergences), others


def to_other_form(config):
    """The same config.json as the hub has it, or as transformers 5 writes it: whichever it is not."""
    config = json.loads(json.dumps(config))
    if "rope_parameters" not in config:
        full = {"rope_theta": config.pop("rope_theta"), **(config.pop("rope_scaling", None) or {"rope_type": "default"})}
        local = config.pop("rope_local_base_freq", None)
        config["rope_parameters"] = full if local is None else {
            "full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
        return config
    parameters = config.pop("rope_parameters")
    full = parameters.get("full_attention", parameters)
    config["rope_theta"] = full.pop("rope_theta")
    config["rope_scaling"] = full if full["rope_type"] != "default" else None
    if "sliding_attention" in parameters:
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    config.pop("layer_types", None)
    config["torch_dtype"] = config.pop("dtype")
    return config


# Mistakes ----------------------------------------------------------------------------------------------------------


def rotation_of(config):
    """The object of config.json with the base of the full layers' rotation, in both forms of config.json."""
    parameters = config.get("rope_parameters", config)
    return parameters.get("full_attention", parameters)


def scaling_of(config):
    return rotation_of(config) if "rope_parameters" in config else config["rope_scaling"]


def change_base(config):
    rotation_of(config)["rope_theta"] /= 10


def change_local_base(config):
    if "rope_parameters" in config:
        config["rope_parameters"]["sliding_attention"]["rope_theta"] *= 1.25
    else:
        config["rope_local_base_freq"] *= 1.25


def leave_out_scaling(config):
    if "rope_parameters" in config:
        rotation_of(config)["rope_type"] = "default"
    else:
        config["rope_scaling"] = None


def change_factor(config):
    scaling_of(config)["factor"] *= 1.25


def change_original_context(config):
    scaling_of(config)["original_max_position_embeddings"] *= 4


def leave_out_yarn_attention(config):
    scaling_of(config)["attention_factor"] = 1.0


def change_window(config):
    config["sliding_window"] += 1


def leave_out_query_scale(config):
    config["query_pre_attn_scalar"] = config["head_dim"]


def change_epsilon(config):
    config["rms_norm_eps"] = 1e-2


IN_CONFIG = {
    "qwen2": [change_base, change_epsilon],
    "qwen2-odd": [change_base, leave_out_scaling, change_factor, change_original_context, leave_out_yarn_attention],
    "qwen3": [change_base, change_epsilon],
    "qwen3-odd": [change_base, leave_out_scaling, change_factor, change_original_context, leave_out_yarn_attention],
    "llama": [change_base, change_epsilon],
    "llama-odd": [change_base, leave_out_scaling, change_factor, change_original_context],
    "gemma3": [change_base, change_local_base, change_window, change_epsilon],
    "gemma3-odd": [change_base, change_local_base, change_window, leave_out_scaling, change_factor, leave_out_query_scale],
}
IN_TENSORS = {
    "rows of q and k in the other order": ("q_proj.", "k_proj."),
    "norms of q and k left out": ("q_norm.", "k_norm."),
    "biases left out": (".bias",),
}


def has_tensors(name, endings):
    header = (CHECKPOINTS / name / "model.safetensors").read_bytes()
    return all(ending.encode() in header for ending in endings)


MISTAKES = [(name, change.__name__) for name in NAMES for change in IN_CONFIG[name]]
MISTAKES += [(name, label) for name in NAMES for label, parts in IN_TENSORS.items() if CHECKPOINTS.is_dir() and has_tensors(name, parts)]


def spoil_tensors(path, label, head_dim, is_gemma):
    """Changes values where they lie in a safetensors file of BF16."""
    data = bytearray(path.read_bytes())
    begin = 8 + struct.unpack_from("<Q", data)[0]
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__" or not any(part in name for part in IN_TENSORS[label]):
            continue
        at, end = (begin + offset for offset in entry["data_offsets"])
        content = bytes(data[at:end])
        if label.startswith("rows"):
            n_bytes = len(content) // entry["shape"][0]
            rows = [content[i:i + n_bytes] for i in range(0, len(content), n_bytes)]
            content = b"".join(rows[head + i + half] for head in range(0, len(rows), head_dim) for i in range(head_dim // 2)
                               for half in (0, head_dim // 2))
        else:
            value = 0 if label.startswith("biases") or is_gemma else 0x3f80  # 1 in BF16
            content = struct.pack("<H", value) * (len(content) // 2)
        data[at:end] = content
    path.write_bytes(data)


def spoil(name, label, out):
    """A copy of a folder, as a reader would see it that makes this mistake."""
    shutil.copytree(CHECKPOINTS / name, out)
    config = json.loads((out / "config.json").read_text())
    if label in IN_TENSORS:
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        spoil_tensors(out / "model.safetensors", label, head_dim, name.startswith("gemma3"))
    else:
        next(change for change in IN_CONFIG[name] if change.__name__ == label)(config)
        (out / "config.json").write_text(json.dumps(config))
