"""The questions of published systems, verbatim; `tasks.question_templates` says how they are used.

A template holds what its paper's code puts around a molecule, verbatim, since a prompt that differs in a blank is
another prompt. What surrounds the whole question (`[INST]`, a system prompt) belongs to the chat format, and how the
molecule itself is written (tags, SELFIES, a cut after 128 characters) to `prompt.molecule` and `text_input`; `note`
says what a paper has there. The presets of the systems have all of it. `tasks.reaction_templates` has the questions
about reactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ANY = ""  # the label of texts that serve every label


@dataclass(frozen=True, slots=True)
class Template:
    """The wording of one published system for one task.

    Args:
        texts: the instructions that it draws from, by label where they differ between labels.
        source: where the wording was read: repository, file and line.
        note: what else of the prompt the system has elsewhere.
    """

    texts: Mapping[str, tuple[str, ...]]
    source: str
    note: str = ""


def _same(before: str, pool: Sequence[str], after: str = "") -> tuple[str, ...]:
    return tuple(f"{before}{text}{after}" for text in pool)


# IDEA-XL/InstructMol llava/datasets/smiles2graph.py:98-106; the same seven are the `instruction`s of Mol-Instructions'
# description generation.
_DESCRIBE = (
    "Could you give me a brief overview of this molecule?",
    "Could you provide a description of this molecule?",
    "Describe this molecule.",
    "Please give me some details about this molecule.",
    "Provide a brief overview of this molecule.",
    "Provide a description of this molecule.",
    "What can you tell me about this molecule?",
)

# The `instruction`s of Mol-Instructions' property prediction, as IDEA-XL/InstructMol lists them in
# llava/eval/molecule_metrics/eval_LLM_regression.py:122-161 to tell the three properties apart.
_ENERGY = (
    "I would like to know the {long} energy of this molecule, could you please provide it?",
    "I am interested in the {short} energy of this molecule, could you tell me what it is?",
    "Can you tell me the value of the {short} energy for this molecule?",
    "I would like to know the {short} energy of this molecule, could you please provide it?",
    "Please provide me with the {short} energy value of this molecule.",
    "Please provide the {long} energy of this molecule.",
    "What is the {short} level of energy for this molecule?",
    "What is the {short} energy of this molecule?",
    "Could you give me the {short} energy value of this molecule?",
    "Please provide the {short} energy value for this molecule.",
    "What is the {long} energy of this molecule?",
    "Please provide the {long} energy value for this molecule.",
)
_FRONTIER = {
    "homo": tuple(t.format(long="highest occupied molecular orbital (HOMO)", short="HOMO") for t in _ENERGY),
    "lumo": tuple(t.format(long="lowest unoccupied molecular orbital (LUMO)", short="LUMO") for t in _ENERGY),
    "gap": (
        "Please provide the energy separation between the highest occupied and lowest unoccupied molecular orbitals "
        "(HOMO-LUMO gap) of this molecule.",
        "Can you give me the energy difference between the HOMO and LUMO orbitals of this molecule?",
        "What is the energy separation between the HOMO and LUMO of this molecule?",
        "I need to know the HOMO-LUMO gap energy of this molecule, could you please provide it?",
        "What is the HOMO-LUMO gap of this molecule?",
        "Please provide the gap between HOMO and LUMO of this molecule.",
        "I would like to know the HOMO-LUMO gap of this molecule, can you provide it?",
        "Please give me the HOMO-LUMO gap energy for this molecule.",
        "Could you tell me the energy difference between HOMO and LUMO for this molecule?",
    ),
}

# The `instruction`s of Mol-Instructions' description-guided design, as public repackagings of that data set list them
# (its own README.md:95 shows the fifth).
_DESIGN = (
    "Generate a molecule based on this description.",
    "Based on the given information, design a molecule that meets the desired specifications.",
    "Create a molecule that satisfies the conditions outlined in the description.",
    "Design a molecule that meets the criteria outlined in the description.",
    "Create a molecule with the structure as the one described.",
    "Use the given information to create a molecule that fulfills the desired purpose.",
    "Generate a molecule based on the given description.",
    "Synthesize a molecule that matches the given characteristics.",
)

# lhkhiem28/MolX source/datasets/molx/regression.py:112-144.
_MOLX_DESCRIPTORS = {
    "heavy-atoms": "A heavy atom refers to any atom that is not hydrogen. How many heavy atoms are there in that "
    "molecule?",
    "h-bond-acceptors": "A hydrogen bond acceptor has lone electron pairs that help form hydrogen bonds. How many "
    "hydrogen bond acceptors are there in that molecule?",
    "h-bond-donors": "A hydrogen bond donor is a compound that donates protons (hydrogen atoms) covalently bound to "
    "itself, allowing it to form hydrogen bonds. How many hydrogen bond donors are there in that molecule?",
    "rotatable-bonds": "A rotatable bond is any single non-ring bond, attached to a non-terminal, non-hydrogen atom. "
    "How many rotatable bonds are there in that molecule?",
    "aromatic-rings": "Aromatic rings are hydrocarbons with a benzene or related ring. How many aromatic rings are "
    "there in that molecule?",
    "tpsa": "The topological polar surface area (TPSA) is the surface sum of all polar atoms or molecules, primarily "
    "oxygen and nitrogen, also including their attached hydrogen atoms. What is the TPSA value of that molecule?",
    "molecular-weight": "The molecular weight is the sum of the atomic weights of all the atoms in the molecule. What "
    "is the molecular weight of that molecule?",
    "logp": "LogP, or octanol-water partition coefficient, is a measure of how hydrophilic or hydrophobic a molecule "
    "is. What is the LogP value of that molecule?",
    "qed": "The quantitative estimate of druglikeness (QED) is a measure of how drug-like a molecule is, based on "
    "various molecular properties associated with druglikeness. What is the QED value of that molecule?",
}

# lhkhiem28/MolX source/datasets/molx/prediction.py:142 and regression.py:183. The question itself comes from a column
# of files that were not published, so a property's is worded here.
_MOLX_YES_NO = (
    "Given the molecule, answer the following question. {question} Please answer the question with only Yes or No, if "
    "uncertain, make a guess, no other information can be provided. Molecule: {molecule}\n\nAnswer: "
).replace("{question}", "Does this molecule {property}?")
_MOLX_NUMBER = (
    "Given the molecule, answer the following question. {question} Please answer the question with a numerical value "
    "only, if uncertain, make an estimate, no other information can be provided. Molecule: {molecule}\n\nAnswer: "
)

# A property's question of InstructMol stands in data that were not released.
_INSTRUCTMOL_PROPERTY = "{molecule.graph}\nDoes this molecule {property}?"
_INSTRUCTMOL_CLASSES = (
    "IDEA-XL/InstructMol llava/datasets/MoleculeNet_classification_dataset.py:48-55; the questions are a reconstruction"
)


def _of_smiles(text: str) -> str:
    """MolX's question as its baseline has it, a language model that reads SMILES instead of soft tokens."""
    asked = text.replace("Given the molecule,", "Given the SMILES string of a molecule,")
    return asked.replace("Molecule: {molecule}", "SMILES: {molecule.text}")


def _baseline(template: Template, file: str) -> Template:
    texts = {label: tuple(_of_smiles(text) for text in pool) for label, pool in template.texts.items()}
    return Template(texts, f"lhkhiem28/MolX source/datasets/baseline/{file}", "no graph; SMILES as they are")


_MOLCA = "prompt.molecule '[START_I_SMILES]{text}[END_I_SMILES]{graph}', SMILES cut at 128 characters, no separator"
_MOLX = "prompt.molecule '{graph}' (no SMILES text in the released jobs), the four shared vectors follow the molecule"
_LLAMO = "prompt.molecule '{text}{graph}', SMILES without stereochemistry, cut at 128 characters"
_INSTRUCTMOL = "prompt.molecule '{graph}'; the variant with SELFIES, instructmol-gs, names them after the question"
_SELFIES = " The compound SELFIES sequence is: {molecule.text}"
_WITH_SELFIES = "text_input selfies; the code moves the graph to the front wherever it stood (preprocess.py:381-384)"
_MOL_INSTRUCTIONS = "text_input selfies; instruction and input stand in the Alpaca template"
_MOL_INSTRUCTIONS_DATA = "the instructions of the Mol-Instructions data set"

_SYSTEMS: Mapping[str, Mapping[str, Template]] = {
    "caption": {
        "instructmol": Template(
            {_ANY: _same("{molecule}\n", _DESCRIBE)},
            "IDEA-XL/InstructMol llava/datasets/smiles2graph.py:98",
            _INSTRUCTMOL,
        ),
        "instructmol-gs": Template(
            {_ANY: _same("{molecule.graph}\n", _DESCRIBE, f"{_SELFIES}.")},
            "IDEA-XL/InstructMol llava/datasets/smiles2graph.py:94-114",
            f"{_WITH_SELFIES}, `missing: empty` as where `convert_chebi20` finds none",
        ),
        "llamo": Template(
            {_ANY: _same("{molecule}", _DESCRIBE)},
            f"mlvlab/LLaMo pipeline/data_utils/datasets/base.py:82; {_MOL_INSTRUCTIONS_DATA}",
            _LLAMO,
        ),
        "mol-instructions": Template(
            {_ANY: _same("", _DESCRIBE, "\n{molecule}")}, _MOL_INSTRUCTIONS_DATA, _MOL_INSTRUCTIONS
        ),
        "molca": Template(
            {_ANY: ("{molecule}. ",)}, "acharkq/MolCA README.md:73, data_provider/stage2_dm.py:43", _MOLCA
        ),
        "molca-pretrain": Template(
            {_ANY: ("{molecule}.",)},
            "acharkq/MolCA README.md:67, stage 2: no blank behind the full stop",
            _MOLCA,
        ),
        "molt5": Template({_ANY: ("{molecule}",)}, "blender-nlp/MolT5 README.md:40", "no graph"),
        "molx": Template(
            {
                _ANY: (
                    "Given the molecule, provide a detailed description of that molecule. "
                    "Molecule: {molecule}\n\nDescription: ",
                )
            },
            "lhkhiem28/MolX source/datasets/molx/generation.py:116,184",
            _MOLX,
        ),
    },
    "iupac": {
        "llamo": Template(
            {_ANY: ("{molecule}What is the IUPAC name of this molecule?",)},
            "mlvlab/LLaMo pipeline/data_utils/datasets/base.py:82; the question is a reconstruction",
            _LLAMO,
        ),
        "molca": Template(
            {_ANY: ("The SMILES of this molecule is {molecule}. ",)},
            "acharkq/MolCA data_provider/iupac_dm.py:255 (the default; no command of the README sets another)",
            _MOLCA,
        ),
        "molx": Template(
            {
                _ANY: (
                    "Given the molecule, provide the molecule\u2019s IUPAC name. Molecule: {molecule}\n\nIUPAC name: ",
                )
            },
            "lhkhiem28/MolX source/datasets/molx/generation.py:123,184",
            _MOLX,
        ),
    },
    "design": {
        "mol-instructions": Template(
            {_ANY: _same("", _DESIGN, "\n{description}")},
            _MOL_INSTRUCTIONS_DATA,
            "task.format selfies; instruction and input stand in the Alpaca template",
        ),
        "molt5": Template({_ANY: ("{description}",)}, "blender-nlp/MolT5 README.md:55"),
    },
    "property-classification": {
        "instructmol": Template({_ANY: (_INSTRUCTMOL_PROPERTY,)}, _INSTRUCTMOL_CLASSES, _INSTRUCTMOL),
        "instructmol-gs": Template(
            {_ANY: (f"{_INSTRUCTMOL_PROPERTY}{_SELFIES}",)},
            _INSTRUCTMOL_CLASSES,
            f"{_WITH_SELFIES}; the released code has `add_selfies = False` and so asks as instructmol does",
        ),
        "molx": Template({_ANY: (_MOLX_YES_NO,)}, "lhkhiem28/MolX source/datasets/molx/prediction.py:142", _MOLX),
    },
    "property-regression": {
        "instructmol": Template(
            {label: _same("{molecule}\n", pool) for label, pool in _FRONTIER.items()},
            f"IDEA-XL/InstructMol llava/datasets/property_pred_dataset.py:46; {_MOL_INSTRUCTIONS_DATA}",
            _INSTRUCTMOL,
        ),
        "instructmol-gs": Template(
            {label: _same("{molecule.graph}\n", pool, _SELFIES) for label, pool in _FRONTIER.items()},
            f"IDEA-XL/InstructMol llava/datasets/property_pred_dataset.py:45; {_MOL_INSTRUCTIONS_DATA}",
            _WITH_SELFIES,
        ),
        "llamo": Template(
            {label: _same("{molecule}", pool) for label, pool in _FRONTIER.items()},
            f"mlvlab/LLaMo pipeline/data_utils/datasets/base.py:82; {_MOL_INSTRUCTIONS_DATA}",
            _LLAMO,
        ),
        "mol-instructions": Template(
            {label: _same("", pool, "\n{molecule}") for label, pool in _FRONTIER.items()},
            f"{_MOL_INSTRUCTIONS_DATA}, as IDEA-XL/InstructMol llava/eval/molecule_metrics/eval_LLM_regression.py:122",
            _MOL_INSTRUCTIONS,
        ),
        "molx": Template(
            {_ANY: (_MOLX_NUMBER.replace("{question}", "What is the {property} of this molecule?"),)},
            "lhkhiem28/MolX source/datasets/molx/regression.py:183",
            _MOLX,
        ),
    },
    "canonical-smiles": {
        "molx": Template(
            {
                _ANY: (
                    "Given the molecule, provide the molecule\u2019s canonical SMILES string, which is a unique "
                    "representation of that molecule. Molecule: {molecule.text}{molecule.graph}\n\nCanonical SMILES: ",
                )
            },
            "lhkhiem28/MolX source/datasets/molx/generation.py:119,184-190; train.py:31",
            "text_input smiles: the only question that shows them",
        ),
    },
    "descriptor": {
        "molx": Template(
            {label: (_MOLX_NUMBER.replace("{question}", text),) for label, text in _MOLX_DESCRIPTORS.items()},
            "lhkhiem28/MolX source/datasets/molx/regression.py:112-144,183",
            _MOLX,
        ),
    },
}

_BASELINES = {
    "caption": "generation.py:125-128",
    "iupac": "generation.py:125-128",
    "property-classification": "prediction.py:83-86",
    "property-regression": "regression.py:124-127",
    "descriptor": "regression.py:52-86,124-127",
}

TEMPLATES: Mapping[str, Mapping[str, Template]] = {
    task: {**named, **({"molx-text": _baseline(named["molx"], _BASELINES[task])} if task in _BASELINES else {})}
    for task, named in _SYSTEMS.items()
}
"""By task, then by name. `{molecule}`, `{property}` and `{description}` are filled in; all else is verbatim."""
