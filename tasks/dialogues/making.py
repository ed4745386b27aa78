"""From a data set to a file of dialogues, in LLaMo's three steps; see the package's page."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tasks.base import Rejection, TaskError
from tasks.data import Catalogue
from tasks.dialogues.base import Exemplar, Generator, Pair, Reply, Subject, sha256_of
from tasks.dialogues.cache import ReplyCache
from tasks.dialogues.estimate import CostEstimate, estimate, price
from tasks.dialogues.filtering import FILTER_VERSION, Dropped, Kept, filter_reply
from tasks.dialogues.jobs import Job, Report, run_jobs
from tasks.dialogues.prompts import PROMPT_VERSION, SYSTEM
from tasks.dialogues.rows import Rows

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What dialogues are made of and where they go.

    Args:
        data: name of a data set, or the path of its YAML file; it needs the role `smiles`, and `caption` or `iupac`.
        split: of the data set.
        output: the JSONL file; `.rejected.jsonl`, `.manifest.json`, `.exemplars.jsonl`, `.cache.jsonl` come beside it.
        limit: at most so many molecules, in file order; None for all.
        seed: chooses exemplars.
        caption, iupac: roles to read instead of these.
        min_turns, max_turns: conversations outside of this are dropped.
        exemplars: molecules whose zero-shot conversations become exemplars (step 1), where a model is asked.
        shots: exemplars in each prompt; 0 asks without.
        exemplar_file: a file of dialogues to take as exemplars instead of asking for them.
        parallel: requests at the same time.
        fresh: begin anew; kept replies may have cost money, so they are set aside as `.cache.old.jsonl`.
        retry_failed: ask again where a reply was kept that could not be used.
        prices: of a million tokens in and out.
    """

    data: str
    output: Path
    split: str = "train"
    limit: int | None = None
    seed: int = 0
    caption: str | None = None
    iupac: str | None = None
    min_turns: int = 3
    max_turns: int = 8
    exemplars: int = 8
    shots: int = 2
    exemplar_file: Path | None = None
    parallel: int = 4
    fresh: bool = False
    retry_failed: bool = False
    prices: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        if self.output.suffix != ".jsonl":
            raise TaskError(f"-o {self.output}: the file is JSON lines; its name must end in .jsonl")
        for name, value, least in (("--limit", self.limit, 1), ("--parallel", self.parallel, 1)):
            if value is not None and value < least:
                raise TaskError(f"{name} {value}: at least {least} is needed")
        if self.exemplars < 0 or self.shots < 0:
            raise TaskError("--exemplars and --shots must not be below 0")

    def beside(self, ending: str) -> Path:
        """A file that belongs to the output."""
        return self.output.with_suffix(f".{ending}")


@contextmanager
def open_making(plan: Plan, generator: Generator, catalogue: Catalogue) -> Iterator[Making]:
    """Read the data set and what is kept of earlier runs; other processes are kept off meanwhile.

    Raises:
        TaskError: data, output or cache cannot be used.
    """
    if plan.output.exists() and not plan.beside("manifest.json").exists():
        raise TaskError(
            f"{plan.output} is there already, and no manifest says that molgraft made it; choose another -o"
        )
    rows = Rows.of(catalogue, plan.data, plan.split, plan.caption, plan.iupac)
    cache = ReplyCache(plan.beside("cache.jsonl"), durable=generator.remote)
    with cache.locked():
        if plan.fresh:
            _set_aside(plan.beside("cache.jsonl"))
        cache.load()
        if plan.retry_failed:
            cache.forget_problems()
        yield Making(plan, generator, rows, cache)


class Making:
    """The three steps over one plan. Get it from `open_making`."""

    def __init__(self, plan: Plan, generator: Generator, rows: Rows, cache: ReplyCache) -> None:
        self._plan = plan
        self._generator = generator
        self._rows = rows
        self._cache = cache
        self._subjects, self._rejections = rows.subjects(plan.limit)
        self._given = _read_exemplars(plan.exemplar_file, rows) if plan.exemplar_file and generator.remote else None
        asks = generator.remote and plan.shots > 0 and self._given is None
        self._sampled = rows.sample(plan.exemplars, plan.seed) if asks else []

    def estimate(self) -> CostEstimate:
        """What is left to ask; nothing for a generator that is not remote."""
        plan = self._plan
        if not self._generator.remote:
            return CostEstimate(0, 0, 0, None)
        zero_shot = [job.subject for job in self._exemplar_jobs() if self._cache.get(job.key) is None]
        if zero_shot:  # exemplars are part of the other prompts, so none of these can have been asked
            left = {sha256_of(subject.content): subject for subject in self._subjects}
        else:
            jobs = self._jobs(self._exemplars())
            left = {job.key: job.subject for job in jobs if self._cache.get(job.key) is None}
        shots = plan.shots if self._sampled or self._given else 0
        turns = (plan.min_turns, plan.max_turns)
        known = list(self._cache.replies())
        return estimate(self._generator, zero_shot, list(left.values()), shots, known, turns, plan.prices)

    def run(self, begin: Callable[[str, int], Report]) -> dict[str, Any]:
        """Generate, filter, and write all files.

        Args:
            begin: told a step's name and number of jobs, gives the function that is told its progress.

        Returns:
            The manifest.

        Raises:
            TaskError: no request can succeed, the endpoint is down, no exemplar is usable, or a file cannot be written.
        """
        plan, generator = self._plan, self._generator
        first = self._exemplar_jobs()
        if first:
            lost = run_jobs(generator, first, self._cache, plan.parallel, begin("exemplars", len(first)))
            if lost:  # other exemplars would make other prompts, and all would be paid for again
                raise TaskError(f"not all exemplars were answered: {next(iter(lost.values()))}. Run again")
        exemplars = self._exemplars()
        jobs = self._jobs(exemplars)
        lost = run_jobs(generator, jobs, self._cache, plan.parallel, begin("conversations", len(jobs)))
        kept, rejected, counts = self._filter(jobs, lost, begin("filter", len(jobs)))
        if exemplars:
            _write_lines(plan.beside("exemplars.jsonl"), [_exemplar_line(exemplar) for exemplar in exemplars])
        _write_lines(plan.beside("rejected.jsonl"), rejected)
        _write_lines(plan.output, kept)
        manifest = self._manifest(jobs, first, exemplars, counts)
        _write(plan.beside("manifest.json"), json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return manifest

    def _exemplar_jobs(self) -> list[Job]:
        return [Job(self._generator.content_key(subject, ()), subject, ()) for subject in self._sampled]

    def _exemplars(self) -> list[Exemplar]:
        """Step 1: the conversations of the sampled molecules that pass the filter."""
        if self._given is not None:
            return self._given
        found: list[Exemplar] = []
        reasons: Counter[str] = Counter()
        for job in self._exemplar_jobs():
            outcome = self._judged(self._reply(job), job.subject)
            if isinstance(outcome, Kept):
                found.append(Exemplar(job.subject, outcome.pairs))
            else:
                reasons[outcome.reason] += 1
        if self._sampled and not found:
            why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            raise TaskError(
                f"none of {len(self._sampled)} exemplars passed the filter ({why}); ask another model, or give good "
                "ones with --exemplar-file, or ask without by --shots 0"
            )
        return found

    def _jobs(self, exemplars: Sequence[Exemplar]) -> list[Job]:
        """Step 2: for each molecule its prompt, with exemplars drawn by seed and molecule."""
        jobs = []
        for subject in self._subjects:
            others = [exemplar for exemplar in exemplars if exemplar.subject.smiles != subject.smiles]
            rng = random.Random(int(sha256_of([self._plan.seed, subject.content])[:16], 16))
            shown = tuple(rng.sample(others, min(self._plan.shots, len(others))))
            jobs.append(Job(self._generator.content_key(subject, shown), subject, shown))
        return jobs

    def _reply(self, job: Job) -> Reply:
        reply = self._cache.get(job.key)
        if reply is None:
            raise TaskError(f"no reply is kept for the molecule {job.subject.id}; run again")
        return reply

    def _judged(self, reply: Reply, subject: Subject) -> Kept | Dropped:
        return filter_reply(reply, subject, self._plan.min_turns, self._plan.max_turns)

    def _filter(
        self, jobs: Sequence[Job], lost: Mapping[str, str], report: Report
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
        """Step 3: the lines of both files, and the counts of the manifest."""
        kept: list[dict[str, Any]] = []
        rejected = [_rejection_line(rejection) for rejection in self._rejections]
        counts = Counter({f"rejected:{line['reason']}": 0 for line in rejected})
        counts.update(f"rejected:{line['reason']}" for line in rejected)
        for place, job in enumerate(jobs, start=1):
            if job.key in lost:
                outcome: Kept | Dropped = Dropped("generation-failed", lost[job.key])
                reply = Reply("")
            else:
                reply = self._reply(job)
                outcome = self._judged(reply, job.subject)
            if isinstance(outcome, Kept):
                kept.append(self._line(job, outcome))
                counts.update(kept=1, turns=len(outcome.pairs), statements_checked=sum(map(len, outcome.verdicts)))
            else:
                line = {"id": job.subject.id, "smiles": job.subject.smiles, **asdict(outcome), "reply": reply.text}
                rejected.append(line)
                counts[f"rejected:{outcome.reason}"] += 1
            report(place)
        return kept, rejected, counts

    def _line(self, job: Job, outcome: Kept) -> dict[str, Any]:
        generator = self._generator
        dialogue = [
            {"role": role, "content": text}
            for pair in outcome.pairs
            for role, text in (("user", pair.question), ("assistant", pair.answer))
        ]
        facts = [
            {
                "turn": turn,
                "kind": verdict.claim.kind,
                "quantity": verdict.claim.quantity,
                "relation": verdict.claim.relation,
                "stated": verdict.claim.value,
                "found": verdict.found,
            }
            for turn, verdicts in enumerate(outcome.verdicts, start=1)
            for verdict in verdicts
        ]
        asked = generator.prompt(job.subject, job.exemplars)
        provenance = {
            "generator": f"{generator.name}@{generator.version}",
            "model": generator.identity().get("model"),
            "seed": generator.identity().get("seed"),
            "prompt_sha256": sha256_of(asked) if asked else None,
            "exemplars": [exemplar.subject.id for exemplar in job.exemplars],
            "key": job.key,
        }
        return {
            "id": job.subject.id,
            "smiles": job.subject.smiles,
            "dialogue": dialogue,
            "facts": facts,
            "provenance": provenance,
        }

    def _manifest(
        self, jobs: Sequence[Job], first: Sequence[Job], exemplars: Sequence[Exemplar], counts: Counter[str]
    ) -> dict[str, Any]:
        plan, generator = self._plan, self._generator
        source = self._rows.dataset.source(self._rows.split)
        replies = [self._cache.get(key) for key in dict.fromkeys(job.key for job in (*first, *jobs))]
        usage = {
            name: sum(getattr(reply, name) for reply in replies if reply is not None)
            for name in ("requests", "tokens_in", "tokens_out")
        }
        rejected = {name.partition(":")[2]: number for name, number in counts.items() if name.startswith("rejected:")}
        return {
            "format": FORMAT,
            "versions": {name: _version(name) for name in ("molgraft", "rdkit")},
            "data": {
                "name": self._rows.dataset.name,
                "split": self._rows.split,
                "file": source.file,
                "sha256": source.sha256,
                "note": source.note,
                "roles": {"caption": self._rows.roles[0], "iupac": self._rows.roles[1]},
            },
            "settings": {
                name: getattr(plan, name) for name in ("limit", "seed", "min_turns", "max_turns", "exemplars", "shots")
            },
            "generator": {"name": generator.name, "version": generator.version, **generator.identity()},
            "prompt": {"version": PROMPT_VERSION, "system": SYSTEM} if generator.remote else None,
            "exemplars": [exemplar.subject.id for exemplar in exemplars],
            "filter": {"version": FILTER_VERSION},
            "counts": {
                "molecules": len(jobs),
                "kept": counts["kept"],
                "turns": counts["turns"],
                "statements_checked": counts["statements_checked"],
                "rejected": dict(sorted(rejected.items())),
            },
            "usage": {**usage, "price": price(usage["tokens_in"], usage["tokens_out"], plan.prices)},
            "cache": {"unreadable_lines": self._cache.unreadable},
            "output": {"file": plan.output.name, "sha256": hashlib.sha256(plan.output.read_bytes()).hexdigest()},
        }


def failed(manifest: Mapping[str, Any]) -> int:
    """For how many molecules the generator gave nothing usable; what the filter dropped is no failure."""
    rejected: Mapping[str, int] = manifest["counts"]["rejected"]
    return sum(number for reason, number in rejected.items() if reason.startswith("generation-"))


def _read_exemplars(path: Path, rows: Rows) -> list[Exemplar]:
    """Exemplars from a file of dialogues; a line may carry `caption` and `iupac`, else its row's are taken."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"--exemplar-file {path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_exemplar(json.loads(line), rows))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise TaskError(
                    f"--exemplar-file {path}:{number}: not a dialogue ({type(error).__name__}: {error}); a line has "
                    "id, smiles and dialogue, a list of turns with role (user, assistant, ...) and content"
                ) from error
    if not found:
        raise TaskError(f"--exemplar-file {path}: holds no dialogue")
    return found


def _exemplar(line: Mapping[str, Any], rows: Rows) -> Exemplar:
    turns = line["dialogue"]
    roles = [turn["role"] for turn in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(f"the roles are {', '.join(map(str, roles[:6]))}")
    pairs = tuple(
        Pair(str(turns[at]["content"]).strip(), str(turns[at + 1]["content"]).strip()) for at in range(0, len(turns), 2)
    )
    known = rows.find(str(line["id"]), str(line["smiles"]))
    caption = line.get("caption", known.caption if known else "")
    iupac = line.get("iupac", known.iupac if known else "")
    return Exemplar(Subject(str(line["id"]), str(line["smiles"]), str(caption), str(iupac)), pairs)


def _exemplar_line(exemplar: Exemplar) -> dict[str, Any]:
    dialogue = []
    for pair in exemplar.pairs:
        dialogue.append({"role": "user", "content": pair.question})
        dialogue.append({"role": "assistant", "content": pair.answer})
    return {**asdict(exemplar.subject), "dialogue": dialogue}


def _rejection_line(rejection: Rejection) -> dict[str, Any]:
    place = f"{rejection.file}:{rejection.line}: {rejection.reason}"
    return {"id": None, "smiles": rejection.value, "reason": "input", "detail": place, "reply": ""}


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))  # a lone surrogate becomes its JSON escape
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise TaskError(f"cannot write {path}: {error.strerror or error}") from error


def _set_aside(path: Path) -> None:
    try:
        if path.exists():
            os.replace(path, path.with_suffix(".old.jsonl"))
    except OSError as error:
        raise TaskError(f"cannot rename {path}: {error.strerror or error}") from error


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
