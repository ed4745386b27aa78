"""Published wordings of the questions about reactions; `tasks.question_templates` says how they are used.

InstructMol puts the graph of one side first and writes molecules as SELFIES behind the instruction. Its variant -G
writes no SELFIES of a molecule whose graph is read, but those of the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.published_questions import Template

# The `instruction`s of the reaction tasks of Mol-Instructions as public repackagings of that data set list them; its
# own README.md shows one of each task.
_FORWARD = (
    "Please provide a feasible product that could be formed using the given reactants and reagents.",
    "Given the reactants and reagents below, come up with a possible product.",
    "Using the listed reactants and reagents, offer a plausible product.",
    "Based on the given reactants and reagents, what product could potentially be produced?",
    "Using the provided reactants and reagents, can you propose a likely product?",
    "Please suggest a potential product based on the given reactants and reagents.",
    "Given the reactants and reagents provided, what is a possible product that can be formed?",
    "Given the following reactants and reagents, please provide a possible product.",
    "Based on the given reactants and reagents, suggest a possible product.",
    "Given the reactants and reagents listed, what could be a probable product of their reaction?",
    "What product could potentially form from the reaction of the given reactants and reagents?",
    "With the provided reactants and reagents, propose a potential product.",
)
_RETROSYNTHESIS = (
    "What reactants could lead to the production of the following product?",
    "What are the possible reactants that could have formed the following product?",
    "Which reactants could have been used to generate the given product?",
    "Given the product provided, propose some possible reactants that could have been employed in its formation.",
    "Based on the given product, provide some plausible reactants that might have been utilized to prepare it.",
    "With the given product, suggest some likely reactants that were used in its synthesis.",
    "Provided the product below, propose some possible reactants that could have been used in the reaction.",
    "Please suggest potential reactants for the given product.",
    "Given the following product, please provide possible reactants.",
    "With the provided product, recommend some probable reactants that were likely used in its production.",
    "Provide a list of potential reactants that may have produced the given product.",
    "Please suggest possible reactants for the given product.",
    "Please suggest potential reactants used in the synthesis of the provided product.",
    "Given these product, can you propose the corresponding reactants?",
    "Can you identify some reactants that might result in the given product?",
)
_REAGENT = (
    "Given this chemical reaction, what are some reagents that could have been used?",
    "Based on the given chemical reaction, suggest some possible reagents.",
    "Given the following chemical reaction, what are some potential reagents that could have been employed?",
    "What reagents could have been utilized in the following chemical reaction?",
    "Please propose potential reagents that might have been utilized in the provided chemical reaction.",
    "From the provided chemical reaction, propose some possible reagents that could have been used.",
    "Please provide possible reagents based on the following chemical reaction.",
    "Given the following reaction, what are some possible reagents that could have been utilized?",
    "Based on the given chemical reaction, can you propose some likely reagents that might have been utilized?",
    "Can you suggest some reagents that might have been used in the given chemical reaction?",
    "Can you provide potential reagents for the following chemical reaction?",
    "Please suggest some possible reagents that could have been used in the following chemical reaction.",
)

# IDEA-XL/InstructMol llava/datasets/reagent_pred_dataset.py:19-24, for the variant -G; -GS takes the data set's own.
_REAGENT_FOR_G = (
    "Can you suggest some possible reagents that could have been used in the following chemical reaction?",
    "Give some possible reagents that could have been used in the following chemical reaction.",
    "Please propose potential reagents that might have been utilized in the provided chemical reaction.",
    "Please provide possible reagents based on the following chemical reaction.",
)

ALONE = "alone"
"""The label of a question about reactants of which there is only one, where that has another wording."""


def _instructmol(texts: Mapping[str, tuple[str, ...]], file: str, note: str) -> Template:
    return Template(texts, f"IDEA-XL/InstructMol llava/datasets/{file}", f"prompt.molecule '{{graph}}'; {note}")


def _llamo(pool: tuple[str, ...], placeholder: str) -> Template:
    return Template(
        {"": tuple(f"{placeholder}{instruction}" for instruction in pool)},
        "mlvlab/LLaMo pipeline/data_utils/datasets/base.py:82; that a side is one graph, and that the instructions are "
        "those of Mol-Instructions, is a reconstruction: its data are read from files that were not at hand",
        "prompt.molecule '{text}{graph}', SMILES without stereochemistry, cut at 128 characters; task.molecules joined",
    )


def _mol_instructions(pool: tuple[str, ...], placeholder: str) -> Template:
    return Template(
        {"": tuple(f"{instruction}\n{placeholder}" for instruction in pool)},
        "zjunlp/Mol-Instructions README.md; the instructions of the Mol-Instructions data set",
        "text_input selfies, task.output selfies; instruction and input stand in the Alpaca template",
    )


_MOLX_TEXT = (
    "provide SMILES strings of possible reactants used in the molecule\u2019s synthesis. The reactants should be split "
    "by '.'."
)

_OTHERS = " The other joint reactants are: {others.text}"
_GS = "text_input selfies, task.output selfies"

TEMPLATES: Mapping[str, Mapping[str, Template]] = {
    "forward": {
        "instructmol": _instructmol(
            {
                "": tuple(f"{{first.graph}}\n{instruction}{_OTHERS}" for instruction in _FORWARD),
                ALONE: tuple(f"{{first.graph}}\n{instruction}" for instruction in _FORWARD),
            },
            "forward_pred_dataset.py:46-55",
            f"the graph is of the first molecule alone; {_GS}, task.reagents as-given",
        ),
        "instructmol-gs": _instructmol(
            {"": tuple(f"{{first.graph}}\n{instruction} {{reactants.text}}" for instruction in _FORWARD)},
            "forward_pred_dataset.py:46-51",
            f"the graph is of the first molecule alone; {_GS}, task.reagents as-given",
        ),
        "llamo": _llamo(_FORWARD, "{reactants}"),
        "mol-instructions": _mol_instructions(_FORWARD, "{reactants}"),
    },
    "retrosynthesis": {
        "instructmol": _instructmol(
            {"": tuple(f"{{product.graph}}\n{instruction}" for instruction in _RETROSYNTHESIS)},
            "retrosynthesis_dataset.py:43-47",
            f"{_GS}, task.molecules joined",
        ),
        "instructmol-gs": _instructmol(
            {
                "": tuple(
                    f"{{product.graph}}\n{instruction} The product is: {{product.text}}"
                    for instruction in _RETROSYNTHESIS
                )
            },
            "retrosynthesis_dataset.py:43-47",
            f"{_GS}, task.molecules joined",
        ),
        "llamo": _llamo(_RETROSYNTHESIS, "{product}"),
        "mol-instructions": _mol_instructions(_RETROSYNTHESIS, "{product}"),
        "molx": Template(
            {"": (f"Given the molecule, {_MOLX_TEXT} Molecule: {{product}}\n\nReactants: ",)},
            "lhkhiem28/MolX source/datasets/molx/generation.py:130,184-190",
            "prompt.molecule '{graph}' (no SMILES text in the released jobs)",
        ),
        "molx-text": Template(
            {"": (f"Given the SMILES string of a molecule, {_MOLX_TEXT} SMILES: {{product.text}}\n\nReactants: ",)},
            "lhkhiem28/MolX source/datasets/baseline/generation.py:71,125-128",
            "no graph; SMILES as they are",
        ),
    },
    "reagent": {
        "instructmol": _instructmol(
            {"": tuple(f"{{reactants.graph}}\n{text}\nThe product is {{product.text}}" for text in _REAGENT_FOR_G)},
            "reagent_pred_dataset.py:15-27,63-65",
            f"{_GS}, task.molecules joined",
        ),
        "instructmol-gs": _instructmol(
            {"": tuple(f"{{reactants.graph}}\n{text} The reaction is {{reaction.text}}" for text in _REAGENT)},
            "reagent_pred_dataset.py:58-72",
            f"{_GS}, task.molecules joined",
        ),
        "mol-instructions": _mol_instructions(_REAGENT, "{reaction}"),
    },
}
