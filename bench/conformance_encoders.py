"""What every encoder must hold to. Each check raises `ConformanceError` with what was found and what was expected."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.conformance_tools import ConformanceError, check_gradients, expect, same
from encoders.base import Encoder, EncoderModule, MoleculeEncoding
from encoders.spelling import respelled
from encoders.store import FeatureStore

MOLECULES = (
    "C",  # one atom
    "[Na+].[Cl-]",  # no bond
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "C#CCN(C)C.OS(=O)(=O)O",  # two fragments
    "C[C@H](N)C(=O)O",
    "F/C=C/Cl",
    "OB(O)c1ccc(Br)cc1",
    "CCCCCCCCCCCCCCCCCC(=O)OC[C@@H](O)COP(=O)([O-])OCC[N+](C)(C)C",
    "CC(C)CC(NC(=O)C1CCCN1)C(=O)N2CCC[C@H]2C(=O)NCC(=O)O",
)
"""Molecules of every awkward kind that each feature scheme can express."""

ACHIRAL = ("CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CCN(CC)CC.Cl", "OB(O)c1ccc(Br)cc1")
"""Molecules whose features do not depend on the order of atoms, as chirality tags and bond directions do."""


_ROUGHLY = 0.1  # of a level's norm: what rounding to bfloat16 in every layer may come to


@dataclass(frozen=True)
class EncoderCase:
    """An encoder with the features of some molecules."""

    encoder: Encoder
    store: FeatureStore
    molecules: tuple[str, ...]

    def built(self, seed: int = 0) -> EncoderModule:
        """The module with weights from a seed, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.encoder.build()
        self.encoder.load(module)
        return module.eval()

    def encoded(self, module: EncoderModule, molecules: Sequence[str]) -> MoleculeEncoding:
        """All levels of some of the molecules."""
        encoding: MoleculeEncoding = module(self.store.batch(molecules), frozenset(self.encoder.provides()))
        return encoding


def check_encoder(
    encoder: Encoder, molecules: Sequence[str] = MOLECULES, checks: Sequence[str] = (), cache: Path | None = None
) -> None:
    """Runs all checks, or the named ones, over an encoder.

    Args:
        encoder: the declaration.
        molecules: SMILES; those that its feature schemes reject are left out, and at least three must remain.
        checks: names of `ENCODER_CHECKS`.
        cache: where features are kept; None for a temporary folder.

    Raises:
        ConformanceError: a check fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        case = encoder_case(encoder, molecules, cache or Path(temporary))
        for name in checks or ENCODER_CHECKS:
            ENCODER_CHECKS[name](case)


def encoder_case(encoder: Encoder, molecules: Sequence[str], cache: Path) -> EncoderCase:
    """The encoder with the features of those molecules that it accepts, their respellings included."""
    respellings = [respelled(smiles, seed)[0] for smiles in ACHIRAL for seed in (1, 2)]
    store = FeatureStore.open_or_build(cache, encoder.features(), [*molecules, *ACHIRAL, *respellings])
    accepted = tuple(smiles for smiles in molecules if smiles not in store.rejected)
    if len(accepted) < 3:
        reason = next(iter(store.rejected.values()))
        raise ConformanceError(f"{encoder.name} accepts {len(accepted)} of {len(molecules)} molecules: {reason}")
    return EncoderCase(encoder, store, accepted)


def declared_levels(case: EncoderCase) -> None:
    """The levels that come out are those that are declared, as wide, also when only one is asked for."""
    module, provided = case.built(), case.encoder.provides()
    encoding = case.encoded(module, case.molecules)
    expect(set(encoding.levels) == set(provided), f"declares {sorted(provided)}, gives {sorted(encoding.levels)}")
    for level, width in provided.items():
        found = encoding[level].values.shape
        expect(len(found) == 2 and found[1] == width, f"{level} is declared {width} wide and comes out {tuple(found)}")
        alone = module(case.store.batch(case.molecules), frozenset([level]))
        expect(level in alone.levels, f"{level} does not come out when it alone is asked for")
        if not case.encoder.depends_on_batch:
            same(alone[level].values, encoding[level].values, f"{level}, asked for alone")


def declared_rows(case: EncoderCase) -> None:
    """Pointers are whole and ascending, and give each molecule the rows that the declaration foretells."""
    encoding = case.encoded(case.built(), case.molecules)
    rows = case.encoder.rows(case.store.counts(case.molecules), len(case.molecules))
    expect(set(rows) == set(case.encoder.provides()), "`rows` and `provides` name different levels")
    for level in case.encoder.provides():
        ragged = encoding[level]
        expect(ragged.ptr.dtype == torch.int64, f"the pointer of {level} is {ragged.ptr.dtype}, not int64")
        expect(ragged.ptr.shape == (len(case.molecules) + 1,), f"the pointer of {level} has {len(ragged.ptr)} entries")
        expect(int(ragged.ptr[0]) == 0, f"the pointer of {level} begins with {int(ragged.ptr[0])}")
        expect(int(ragged.ptr[-1]) == len(ragged.values), f"the pointer of {level} does not end with its rows")
        counts, foretold = ragged.counts().tolist(), np.asarray(rows[level]).tolist()
        expect(counts == foretold, f"rows per molecule of {level}: declared {foretold}, came out {counts}")


def batch_equals_single(case: EncoderCase) -> None:
    """A molecule's encoding is the same in a batch and alone."""
    if case.encoder.depends_on_batch:
        return
    module = case.built()
    together = case.encoded(module, case.molecules)
    for number, smiles in enumerate(case.molecules):
        alone = case.encoded(module, [smiles])
        for level in case.encoder.provides():
            same(_rows(together, level, number), alone[level].values, f"{level} of {smiles}, in a batch and alone")


def order_of_molecules(case: EncoderCase) -> None:
    """Molecules in another order, one of them twice, have the same rows."""
    module = case.built()
    other = [*reversed(case.molecules), case.molecules[0]]
    there, here = case.encoded(module, other), case.encoded(module, case.molecules)
    if case.encoder.depends_on_batch:
        here = case.encoded(module, [*case.molecules, case.molecules[0]])
    for level in case.encoder.provides():
        for number, smiles in enumerate(other[:-1]):
            mine = _rows(here, level, len(case.molecules) - 1 - number)
            same(_rows(there, level, number), mine, f"{level} of {smiles}, molecules in another order")


def order_of_atoms(case: EncoderCase) -> None:
    """Atoms in another order: their rows move with them, and the graph's row stays."""
    module, provided = case.built(), case.encoder.provides()
    per_atom = [level for level in provided if level == "atom" or level.startswith("layer:")]
    for smiles in ACHIRAL:
        if smiles in case.store.rejected:
            continue
        plain = case.encoded(module, [smiles])
        for seed in (1, 2):
            text, order = respelled(smiles, seed)
            moved = case.encoded(module, [text])
            for level in per_atom:
                same(moved[level].values, plain[level].values[order], f"{level} of {smiles}, spelled {text}")
            if "graph" in provided:
                same(moved["graph"].values, plain["graph"].values, f"graph of {smiles}, spelled {text}")


def smallest_batches(case: EncoderCase) -> None:
    """No molecule at all, and one molecule in training mode, work and are finite."""
    module = case.built()
    nothing = case.encoded(module, [])
    for level in case.encoder.provides():
        expect(len(nothing[level].values) == 0, f"{level} of no molecule has {len(nothing[level].values)} rows")
        expect(nothing[level].ptr.tolist() == [0], f"the pointer of {level} of no molecule is {nothing[level].ptr}")
    module.train()
    for smiles in case.molecules:
        encoding = case.encoded(module, [smiles])
        for level in case.encoder.provides():
            finite = bool(torch.isfinite(encoding[level].values).all())
            expect(finite, f"{level} of {smiles} alone, in training mode, is not finite")


def gradients(case: EncoderCase) -> None:
    """A gradient reaches every trainable tensor."""
    module = case.built()
    encoding = case.encoded(module, case.molecules)
    check_gradients(module, [encoding[level].values for level in case.encoder.provides()])


def state_round_trip(case: EncoderCase) -> None:
    """Weights that are saved and loaded again give the same numbers, whatever the module began with."""
    first, second = case.built(0), case.built(1)
    second.load_state_dict(load(save({name: t.contiguous() for name, t in first.state_dict().items()})))
    one, other = case.encoded(first, case.molecules), case.encoded(second, case.molecules)
    for level in case.encoder.provides():
        expect(torch.equal(one[level].values, other[level].values), f"{level} differs after saving and loading")


def seeded(case: EncoderCase) -> None:
    """The same seed gives the same weights, and building on the meta device needs no memory."""
    first, second = case.built(0).state_dict(), case.built(0).state_dict()
    for name, tensor in first.items():
        expect(torch.equal(tensor, second[name]), f"{name} differs between two builds from one seed")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in case.encoder.build().state_dict().items()}
    expect(shapes == {name: tensor.shape for name, tensor in first.items()}, "the meta device gives other tensors")


def stays_frozen(case: EncoderCase) -> None:
    """A frozen encoder's tensors, statistics of norms included, stay as they are to the last bit."""
    module = case.built()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.requires_grad_(False)
    case.encoded(module, case.molecules)
    for name, tensor in module.state_dict().items():
        expect(torch.equal(tensor, before[name]), f"{name} changed while the encoder was frozen")


def repeatable(case: EncoderCase) -> None:
    """Two passes give the same bits, and leave the batch as it was."""
    module, batch = case.built(), case.store.batch(case.molecules)
    before = {name: column.values.clone() for name, column in batch.columns.items()}
    levels = frozenset(case.encoder.provides())
    one, other = module(batch, levels), module(batch, levels)
    for level in levels:
        expect(torch.equal(one[level].values, other[level].values), f"{level} differs between two passes")
    for name, column in batch.columns.items():
        expect(torch.equal(column.values, before[name]), f"the pass changed the column {name} of the batch")


def mixed_precision(case: EncoderCase) -> None:
    """Under autocast to bfloat16 training works, is finite, and says about the same of every molecule."""
    plain = case.encoded(case.built(), case.molecules)
    module = case.built()
    with torch.autocast("cpu", torch.bfloat16):
        encoding = case.encoded(module, case.molecules)
        outputs = [encoding[level].values for level in case.encoder.provides()]
        total = sum(values.float().square().mean() for values in outputs if values.requires_grad)
    if isinstance(total, Tensor):
        total.backward()  # type: ignore[no-untyped-call]
    for level in case.encoder.provides():
        found, expected = encoding[level].values.detach().float(), plain[level].values.detach()
        expect(bool(torch.isfinite(found).all()), f"{level} is not finite under autocast")
        apart = float((found - expected).norm() / expected.norm().clamp(min=1e-6)) if found.numel() else 0.0
        expect(apart < _ROUGHLY, f"{level} under autocast is {apart:.0%} off")


ENCODER_CHECKS: Mapping[str, Callable[[EncoderCase], None]] = {
    check.__name__: check
    for check in (
        declared_levels,
        declared_rows,
        batch_equals_single,
        order_of_molecules,
        order_of_atoms,
        smallest_batches,
        gradients,
        state_round_trip,
        seeded,
        stays_frozen,
        repeatable,
        mixed_precision,
    )
}
"""By name, in the order in which `check_encoder` runs them."""


def _rows(encoding: MoleculeEncoding, level: str, number: int) -> Tensor:
    ragged = encoding[level]
    return ragged.values[ragged.ptr[number] : ragged.ptr[number + 1]]
