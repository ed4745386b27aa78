"""RDKit may hang, crash or run out of memory; the command that asked it may not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.metrics import guarded
from tasks.metrics.guarded import Refusal, Unreadable, apply, call, canonical, is_plain, parsed
from tasks.metrics.molecule_records import derive_all, forget, structure, structures

REPOSITORY = Path(__file__).resolve().parents[1]

FULLERENE = (
    "C12=C3C4=C5C6=C1C7=C8C9=C1C%10=C%11C(=C29)C3=C2C3=C4C4=C5C5=C9C6=C7C6=C7C8=C1C1=C8C%10=C%10C%11=C2C2=C3C3=C4C4=C5"
    "C5=C%11C%12=C(C6=C95)C7=C1C1=C%12C5=C%11C4=C3C3=C5C(=C81)C%10=C23"
)
HUB = "[U]" + "(C)" * 60  # its subgraphs of up to 7 bonds are 4e8


def slow(smiles: str) -> str:
    end = time.process_time() + 60
    while time.process_time() < end:
        pass
    return smiles


def waiting(smiles: str) -> str:
    time.sleep(0.6)
    return smiles


def killed(smiles: str) -> str:
    if smiles.startswith("[U]"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return smiles


def greedy(smiles: str) -> int:
    return len(bytearray(64 << 30))


def failing(smiles: str) -> str:
    raise RuntimeError("Pre-condition Violation")


def printing(smiles: str) -> str:
    os.write(1, b"noise on the standard output\n")
    return smiles


def test_ordinary_molecules_need_no_guard_and_risky_ones_do():
    plain = (
        "CCO",
        "C[C@@H](N)C(=O)O",
        "[Na+].[Cl-]",
        "[Fe+2]",
        "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
        "*CC",
        "[nH]1cccc1",
        "",
    )
    risky = (FULLERENE, HUB, "C" * 1000, "*(C)(C)C", "[U]123", "[Na](C)C", "[Cl-4](C)(C)C", "[Fe]%10C%10")
    assert all(map(is_plain, plain))
    assert not any(map(is_plain, risky))


def test_most_real_molecules_are_plain(data_folder):
    import csv
    import gzip

    with gzip.open(data_folder / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        molecules = [row["SMILES"] for row in csv.DictReader(file)]
    assert sum(map(is_plain, molecules)) > 0.97 * len(molecules)


def test_the_guard_gives_what_the_function_gives():
    from rdkit import Chem

    for smiles in ("OCC", FULLERENE, "C" * 1000):
        assert parsed(smiles) == Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    assert parsed("C1CC") == Refusal("cannot be parsed by RDKit")
    assert parsed("C1CC" * 501) == Refusal("cannot be parsed by RDKit")


@pytest.mark.parametrize("smiles", ["C" * 100_000, "C1CC1" * 20_000, "(" * 100_000, "C(" * 50_000, "C." * 50_000])
def test_a_hundred_thousand_characters_end_in_time(smiles):
    began = time.perf_counter()
    found = parsed(smiles, seconds=1.0)
    assert time.perf_counter() - began < 60
    assert isinstance(found, Refusal)


def test_a_molecule_that_hangs_rdkit_is_refused_after_the_limit_and_the_next_one_is_read():
    assert call(derive_all, HUB, 0.5) == Refusal("takes RDKit longer than 0.5 s")
    assert parsed(FULLERENE).startswith("c12")
    assert call(slow, HUB, 0.2) == Refusal("takes RDKit longer than 0.2 s")


@pytest.mark.skipif(sys.platform == "win32", reason="without timers of processor time, the clock must do")
def test_no_molecule_is_refused_because_the_machine_does_something_else(tmp_path, monkeypatch):
    """Neither the time that the child does not get, nor that of importing what it is asked for, is the molecule's."""
    assert call(waiting, HUB, 0.2) == HUB
    (tmp_path / "imported_slowly.py").write_text(
        "import time\n"
        "end = time.process_time() + 1.0\n"
        "while time.process_time() < end: pass\n"
        "def same(smiles): return smiles\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    guarded._worker().stop()  # the next child knows the folder
    import imported_slowly

    assert call(imported_slowly.same, HUB, 0.3) == HUB


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_is_a_refusal_and_the_next_one_is_read():
    found = apply(killed, ["CC", HUB, FULLERENE], 20.0)
    assert found == ["CC", Refusal(f"makes RDKit crash (signal {int(signal.SIGSEGV)})"), FULLERENE]


@pytest.mark.skipif(sys.platform != "linux", reason="the address space can be limited on Linux only")
def test_memory_is_bounded_in_the_child():
    assert call(greedy, HUB, 20.0) == Refusal("needs more memory than RDKit may take")


def test_errors_of_rdkit_are_refusals_here_and_there():
    for smiles in ("CC", HUB):
        assert call(failing, smiles, 20.0) == Refusal("makes RDKit fail (RuntimeError: Pre-condition Violation)")


def test_what_a_library_prints_is_no_reply():
    assert call(printing, HUB, 20.0) == HUB
    assert call(canonical, FULLERENE, 20.0).startswith("c12")


def test_a_child_that_was_killed_between_two_molecules_is_started_again():
    assert parsed(FULLERENE).startswith("c12")
    child = guarded._worker()._process
    child.kill()
    child.wait()
    assert parsed(FULLERENE).startswith("c12")
    assert guarded._worker()._process.pid != child.pid


def test_unreadable_is_raised_where_nothing_guards():
    with pytest.raises(Unreadable, match="cannot be parsed"):
        canonical("C\ud800")


def test_the_limit_comes_from_the_environment(monkeypatch):
    for value, expected in (("2.5", 2.5), ("nonsense", 10.0), ("-1", 10.0), ("inf", 10.0), ("nan", 10.0)):
        monkeypatch.setenv("MOLGRAFT_RDKIT_SECONDS", value)
        assert guarded.limit_seconds() == expected


def test_a_program_without_a_main_guard_can_ask_and_its_child_ends_with_it(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "from tasks.metrics import guarded\n"
        "print(guarded.parsed('C' * 700) == 'C' * 700)\n"
        "print(guarded._worker()._process.pid)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer, pid = done.stdout.split()
    assert answer == "True"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_fork_has_a_child_of_its_own():
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    script = (
        "import os, sys\n"
        "from tasks.metrics import guarded\n"
        "long = 'C' * 700\n"
        "assert guarded.parsed(long) == long\n"
        "fork = os.fork()\n"
        "ok = guarded.parsed('C' * 800) == 'C' * 800\n"
        "if fork == 0:\n"
        "    guarded._worker().stop()\n"
        "    os._exit(0 if ok else 3)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0 and ok\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_starts_nothing_and_needs_no_rdkit():
    script = "import sys, tasks.metrics.guarded as g; assert 'rdkit' not in sys.modules and not g._workers"
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, timeout=60)


def test_equal_texts_are_one_structure_and_refused_ones_say_why(monkeypatch):
    monkeypatch.setenv("MOLGRAFT_RDKIT_SECONDS", "0.5")
    first, second, hub, wrong = structures(["CCO", "CCO", HUB, "C("])
    assert first is second
    assert (first.is_valid, first.canonical, first.atoms, first.inchi) == (
        True,
        "CCO",
        3,
        "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3",
    )
    assert (hub.is_valid, hub.reason) == (False, "takes RDKit longer than 0.5 s")
    assert (wrong.is_valid, wrong.reason) == (False, "cannot be parsed by RDKit")


def test_guarded_values_equal_those_derived_here(monkeypatch):
    smiles = "CC(=O)OC1=CC=CC=C1C(=O)O"
    forget()
    here = structure(smiles)
    names = ("canonical", "flat", "inchi", "atoms", "maccs", "rdk", "morgan", "morgan-bits")
    values = {name: here.value(name) for name in names}
    forget()
    monkeypatch.setattr("tasks.metrics.molecule_records.is_plain", lambda smiles: False)
    monkeypatch.setattr("tasks.metrics.guarded.is_plain", lambda smiles: False)
    there = structure(smiles)
    assert {name: there.value(name) for name in names} == values
    assert there.similarity(here, "rdk") == 1.0
    forget()
