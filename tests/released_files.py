"""Files in the layouts of released systems, with random weights or those of the goldens, written as their code does.

Names come from the published code and from transformers and peft themselves, never from what reads them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from bench.pretrain_lm import train_tokenizer

State = dict[str, Tensor]

CORPUS = [f"Describe this molecule. It is a molecule with {number} atoms, CC(=O)Oc1ccccc1." for number in range(30)]
VOCABULARY = 300
Q_AND_V = ("q_proj", "v_proj")


def llama(rows: int = VOCABULARY, width: int = 64, heads: int = 4) -> Any:
    """A small Llama, its output embedding not tied, as Llama-2's and Vicuna's is not."""
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def opt(rows: int = VOCABULARY) -> Any:
    """A small OPT, which Galactica is; its output embedding is tied."""
    config = OPTConfig(
        vocab_size=rows,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    )
    return OPTForCausalLM(config)


def saved(model: nn.Module, folder: Path) -> Path:
    """The folder of a language model with a tokenizer."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(CORPUS, VOCABULARY), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return folder


def adapted(model: nn.Module, rank: int = 8, targets: tuple[str, ...] = Q_AND_V, alpha: int = 32) -> Any:
    """The model with adapters that are not at their start, where the second matrix is zero."""
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(targets))
    wrapped = get_peft_model(model, config)  # type: ignore[arg-type]
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return wrapped


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def without_buffers(state: Mapping[str, Tensor]) -> State:
    """What `named_parameters` gives of a network with batch norms."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return {name: tensor for name, tensor in state.items() if not name.endswith(buffers)}


def as_lightning(state: Mapping[str, Tensor], path: Path, **hyper_parameters: object) -> Path:
    """A checkpoint with what Lightning 1.9.0 and 2.2.1 put beside the weights."""
    loops = {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1, "completed": 1}}}}
    counters: dict[str, object] = {
        "monitor": None,
        "best_model_path": "last.ckpt",
        "best_k_models": {},
        "kth_value": torch.tensor(0.0),
    }
    moments = {0: {"step": torch.tensor(2.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}}
    content = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": dict(state),
        "loops": loops,
        "callbacks": {"ModelCheckpoint{'monitor': None, 'mode': 'min'}": counters},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "args",
        "hyper_parameters": {"lr": 1e-4, "devices": [0, 1], "peft_config": None, **hyper_parameters},
    }
    torch.save(content, path)
    return path


def attribute_dict(**values: object) -> dict[str, object]:
    """Lightning's own dictionary, which is pickled by the name that it has there; see `forget_lightning`."""
    name = "pytorch_lightning.utilities.parsing"
    if name not in sys.modules:
        for number in range(3):
            part = ".".join(name.split(".")[: number + 1])
            sys.modules[part] = ModuleType(part)
        made = type("AttributeDict", (dict,), {"__module__": name})
        sys.modules[name].AttributeDict = made  # type: ignore[attr-defined]
    found: dict[str, object] = sys.modules[name].AttributeDict(values)
    return found


def forget_lightning() -> None:
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        del sys.modules[name]


# LLaMo


def llamo_state(golden: Mapping[str, State], llm: nn.Module, **changed: Tensor) -> State:
    """`mllm.*`: the golden's encoder and projector, six names for one attention, a norm nobody reads, and the LLM."""
    projector = dict(golden["projector"])
    for layer in range(1, 6):
        copies = {n: t for n, t in golden["projector"].items() if n.startswith("cross_attention.0.")}
        projector |= {n.replace(".0.", f".{layer}.", 1): t for n, t in copies.items()}
    state = under("mllm.graph_model.", golden["encoder"])
    state |= {"mllm.ln_graph_model.weight": torch.ones(300), "mllm.ln_graph_model.bias": torch.zeros(300)}
    state |= under("mllm.abstractor.", projector)
    return {**state, **under("mllm.language_model.", llm.state_dict()), **changed}


# InstructMol


def instructmol_folder(encoder: State, projector: State, llm: Any, folder: Path) -> Path:
    """Stage 2: what trains beside adapters in one file, in bfloat16 and without buffers, and the adapter by peft."""
    start = "base_model.model.model."
    trained = {**under("graph_tower.", without_buffers(encoder)), **under("mm_projector.", projector)}
    folder.mkdir(exist_ok=True)
    llm.save_pretrained(folder, safe_serialization=False, save_embedding_layers=False)
    in_half = {name: tensor.to(torch.bfloat16) for name, tensor in trained.items()}
    torch.save(under(start, in_half), folder / "non_lora_trainables.bin")
    (folder / "config.json").write_text(json.dumps({"model_type": "llava_graph", "mm_projector_type": "linear"}))
    return folder


# MolCA


def gin_state(width: int, layers: int) -> State:
    """A GIN of pretrain-gnns, as MolCA's `gin_model.py` and MolX's `gnn/gin.py` name it."""
    state = {"x_embedding1.weight": torch.randn(120, width), "x_embedding2.weight": torch.randn(3, width)}
    for layer in range(layers):
        start = f"gnns.{layer}."
        state |= {
            f"{start}mlp.0.weight": torch.randn(2 * width, width) / width**0.5,
            f"{start}mlp.0.bias": torch.randn(2 * width) * 0.1,
            f"{start}mlp.2.weight": torch.randn(width, 2 * width) / width**0.5,
            f"{start}mlp.2.bias": torch.randn(width) * 0.1,
            f"{start}edge_embedding1.weight": torch.randn(6, width),
            f"{start}edge_embedding2.weight": torch.randn(3, width),
        }
    for layer in range(layers):
        start = f"batch_norms.{layer}."
        state |= {
            f"{start}weight": 1 + torch.rand(width),
            f"{start}bias": torch.randn(width),
            f"{start}running_mean": torch.randn(width),
            f"{start}running_var": 1 + torch.rand(width),
            f"{start}num_batches_tracked": torch.tensor(7),
        }
    return state


def molca_stage_1(golden: Path, graph: State, rows_width: int) -> State:
    """`blip2qformer.*`: everything, text side and heads of losses included."""
    with np.load(golden / "small_weights_lavis_names.npz") as file:
        qformer = {f"Qformer.{name}": torch.from_numpy(file[name]) for name in file.files}
    with np.load(golden / "small_io.npz") as file:
        queries = torch.from_numpy(file["query_tokens"])
    state = {**under("graph_encoder.", graph), **qformer, "query_tokens": queries}
    state |= {"ln_graph.weight": 1 + torch.rand(rows_width), "ln_graph.bias": torch.randn(rows_width)}
    for head, width in (("graph_proj", 16), ("text_proj", 16), ("gtm_head", 2)):
        state |= {f"{head}.weight": torch.randn(width, 48), f"{head}.bias": torch.randn(width)}
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(64)[None]
    return under("blip2qformer.", state)


def molca_stage_2(stage_1: State, llm: nn.Module, width: int, trained_llm: str) -> State:
    """`blip2opt.*`: parameters that train. Text parts are gone, and so are all buffers."""
    of_text = (".cls.", "word_embeddings", "position_embeddings", "position_ids", ".intermediate.")
    of_losses = ("graph_proj.", "text_proj.", "gtm_head.")
    kept = {
        name.replace("blip2qformer.", "blip2opt."): tensor
        for name, tensor in without_buffers(stage_1).items()
        if not any(part in name for part in (*of_text, *of_losses))
        and (".output." not in name or "attention.output." in name)
    }
    kept |= {"blip2opt.opt_proj.weight": torch.randn(width, 48) * 0.1, "blip2opt.opt_proj.bias": torch.randn(width)}
    own = llm.state_dict()
    chosen = {"none": (), "lora": tuple(n for n in own if "lora_" in n), "full": tuple(own)}[trained_llm]
    return {**kept, **under("blip2opt.opt_model.", {name: own[name] for name in chosen})}


# MolX


def molx_state(golden: Path, smiles: Any, llm: Any, with_adapters: bool) -> State:
    """What trains, all buffers, and the language model's embeddings under the name by which they are found again."""
    with np.load(golden / "molx_weights.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    state = under("smiles_encoder.", smiles.state_dict())
    state |= {
        "smiles_encoder.embeddings.position_ids": torch.arange(smiles.embeddings.position_embeddings.num_embeddings)[
            None
        ]
    }
    state |= {n.replace("graphcl/", "graph_encoder."): t for n, t in arrays.items() if n.startswith("graphcl/")}
    for view, name in (("smiles", "smiles"), ("graph", "graph"), ("fp", "fingerprint")):
        start = f"proj_{view}/"
        state |= {n.replace(start, f"{name}_projector."): t for n, t in arrays.items() if n.startswith(start)}
    embeddings = llm.get_input_embeddings().weight.detach()
    state |= {"xprompt": torch.randn(4, embeddings.shape[1]), "word_embedding.weight": embeddings.half()}
    state["model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    lora = {name: tensor for name, tensor in llm.state_dict().items() if "lora_" in name}
    return {**state, **(under("model.", lora) if with_adapters else {})}
