"""A row of the ledger as an RO-Crate: what it came from and by what commands, for who has no DVC.

RO-Crate 1.1, https://w3id.org/ro/crate/1.1, by the profile Process Run Crate 0.5: a `CreateAction` for
each stage, with the code that it ran (`instrument`), what went in (`object`) and what came out
(`result`). Files that are small lie in the crate; of the others their hashes stand in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from scoremodel.io.files import atomic_folder, write_text
from tasks.files.arrays import read_card
from tasks.files.code import syntax_hash
from tasks.files.documents import read_text
from tasks.files.git import GitError, git
from tasks.files.layout import LEDGER, VERDICT, Configuration
from tasks.files.lock import read_lock
from tasks.files.out import require_free
from tasks.results.history import WORKSPACE
from tasks.results.records import record_of
from tasks.results.rows import PARTS, commit_of, find_rows, is_of, short, when

__all__ = ["METADATA", "export_row"]

METADATA = "ro-crate-metadata.json"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_CRATE = "https://w3id.org/ro/crate/1.1"
_KINDS = {".json": "application/json", ".md": "text/markdown", ".py": "text/x-python"}


def export_row(key: str, out: Path, force: bool = False) -> str:
    """Write one row of the ledger as an RO-Crate, whole or not at all.

    Args:
        key: the beginning of the row's name, or its file.
        out: the folder.
        force: whether an earlier export that is there may be replaced.

    Returns:
        What there is to say of it.

    Raises:
        ValueError: if there is something at `out`, no such row, or several.
    """
    require_free(out, force, METADATA)
    found = find_rows(key)
    if len(found) > 1:
        names = ", ".join(row["name"] for row in found)
        raise ValueError(f"{key!r} stands for rows of several environments, name one: {names}")
    crate = _Crate(found[0])
    with atomic_folder(out) as folder:
        for path, text in crate.texts.items():
            write_text(folder / path, text)
        write_text(
            folder / METADATA, json.dumps(crate.metadata(), indent=1, ensure_ascii=False) + "\n"
        )
    return f"{found[0]['name']} ({crate.files.name}): {len(crate.texts)} files"


class _Crate:
    """What stands in the crate of a row.

    Args:
        row: the row, with its name and parts.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.files = Configuration(*(row[part] for part in PARTS))
        self.texts: dict[str, str] = {}
        """Path in the crate → content."""
        self.lock: dict[str, Any] = {}
        """The entries of `dvc.lock` that belong to the row, by stage."""
        self._entities: dict[str, dict[str, Any]] = {}
        (path, *_) = sorted(LEDGER.glob(f"{row['name']}*.json"))
        places = [WORKSPACE, _commit_that_added(path), commit_of(row)]
        self.places = list(dict.fromkeys(place for place in places if place))
        self._put("row.json", read_text(path), "the row of the ledger, as it stands there")
        self._put(
            "params.json",
            _json(row["inputs"]["params"]),
            "every parameter, and each stage's command",
        )
        self._results()
        self.code = [self._module(path, said) for path, said in self._said(code=True)]
        self.data = [self._source(path, said) for path, said in self._said(code=False)]

    def _said(self, code: bool) -> Iterator[tuple[str, str]]:
        for path, digest in self.row["inputs"]["files"].items():
            if path.endswith((".py", ".j2")) == code:
                yield path, digest

    def _put(self, path: str, text: str, said: str, **more: Any) -> str:
        """Put a file into the crate, and return its name."""
        content = text.encode()
        self.texts[path] = text
        self._add(
            path,
            "File",
            said,
            encodingFormat=_KINDS.get(Path(path).suffix, "text/plain"),
            contentSize=str(len(content)),
            sha256=hashlib.sha256(content).hexdigest(),
            **more,
        )
        return path

    def _add(self, name: str, kind: str, said: str, **more: Any) -> str:
        """Add an entity, and return its name."""
        self._entities[name] = {"@id": name, "@type": kind, "name": said, **more}
        return name

    def _results(self) -> None:
        """Find the record, the verdict and the entries of `dvc.lock` where the row's own still stand."""
        for place in self.places:
            text = _text_at(place, self.files.record)
            if text is None or not is_of(self.row, record_of(text, self.files.record)):
                continue
            self._put(
                "record.json", text, "what the stage evaluate found: the row's values and more"
            )
            if (verdict := _text_at(place, VERDICT)) is not None:
                self._put("verdict.md", verdict, "which model is better, and how sure that is")
            if (graph := _text_at(place, Path("dvc.yaml"))) is not None:
                self._put("dvc.yaml", graph, "the graph of the stages")
            lock = read_lock(_text_at(place, Path("dvc.lock")) or "stages: {}", "dvc.lock")[
                "stages"
            ]
            outs = lock.get(f"evaluate@{self.files.name}", {}).get("outs", [])
            digest = hashlib.md5(text.encode()).hexdigest()
            if digest in {one["md5"] for one in outs if one["path"] == str(self.files.record)}:
                needed = self.row["inputs"]["params"]
                self.lock = {name: one for name, one in lock.items() if name in needed}
                self._put(
                    "dvc.lock.json", _json(self.lock), "the row's entries of dvc.lock: files by MD5"
                )
            break
        for name in ("LICENSE", "CITATION.cff"):
            if (said := _text_at(WORKSPACE, Path(name))) is not None:
                self._put(
                    name, said, {"LICENSE": "the code's licence"}.get(name, "how to cite the code")
                )

    def _stages(self) -> list[str]:
        """Return the row's stages, each after those that it needs."""
        names = [name for name in self.row["inputs"]["params"] if name != "resolved"]
        maker = {
            out["path"]: name for name in names for out in self.lock.get(name, {}).get("outs", [])
        }
        needs = {
            name: [
                maker[one["path"]]
                for one in self.lock.get(name, {}).get("deps", [])
                if one["path"] in maker
            ]
            for name in names
        }
        return list(TopologicalSorter(needs).static_order())

    def _module(self, path: str, digest: str) -> str:
        """Add one module of code: its text where it is found unchanged, its hash in any case."""
        for place in self.places:
            text = _text_at(place, Path(path))
            if text is not None and _hash(path, text, digest) == digest:
                return self._put(f"code/{path}", text, path, identifier=digest)
        return self._add(f"#{path}", "SoftwareSourceCode", path, identifier=digest)

    def _source(self, path: str, digest: str) -> str:
        """Add a source of data, of which the crate holds no more than the card of what was made of it."""
        more: dict[str, Any] = {"identifier": digest}
        if self.files.card.is_file():
            card = read_card(self.files.card)
            if card["sha256"] == self.row["inputs"]["data_sha256"]:
                name = self._put("data/card.json", read_text(self.files.card), "the data's card")
                more |= {
                    "description": str(card["source"]),
                    "license": str(card["licence"]),
                    "subjectOf": {"@id": name},
                }
        return self._add(f"#{path}", "CreativeWork", path, **more)

    def metadata(self) -> dict[str, Any]:
        """Return the crate's metadata, JSON-LD."""
        row = self.row
        held_out = row["values"]["held_out"]
        revision = None if row["revision"] is None else short(row["revision"])
        whole = self._add(
            "#scoremodel",
            "SoftwareSourceCode",
            "scoremodel",
            version=revision or "unknown",
            description="the modules that the row's value depends on; `identifier` is a hash of each",
            hasPart=_all(self.code),
        )
        actions = [self._action(stage, whole, revision) for stage in self._stages()]
        root = {
            "@id": "./",
            "@type": "Dataset",
            "name": f"{self.files.name}: {row['metric']} {held_out['mean']:.4g}",
            "description": (
                f"{row['metric']} between {row.get('count', 'the')} samples of the model "
                f"{self.files.model_name} by the sampler {self.files.sampler} and held-out data: "
                f"{held_out['mean']:.6g}, {row['values']['ratio_to_floor']:.3g} times what real data "
                f"score; with all that it was made of. The ledger's key is {row['key']}."
            ),
            "datePublished": when(row) or "unknown",
            "identifier": row["key"],
            "license": {"@id": "LICENSE"} if "LICENSE" in self.texts else "MIT",
            "author": {"@id": "#authors"},
            "conformsTo": {"@id": _PROFILE},
            "hasPart": _all(self.texts),
            "mentions": _all(actions),
        }
        descriptor = {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": _CRATE},
        }
        self._add(_PROFILE, "CreativeWork", "Process Run Crate", version="0.5")
        self._add("#authors", "Organization", "The scoremodel developers")
        return {
            "@context": [f"{_CRATE}/context", {"sha256": "https://schema.org/sha256"}],
            "@graph": [descriptor, root, *self._entities.values()],
        }

    def _action(self, stage: str, whole: str, revision: str | None) -> str:
        """Add what one stage did, and return its name."""
        kind = stage.split("@")[0]
        command = self.row["inputs"]["params"][stage]["cmd"]
        environment = self.row["environment"].get(kind)
        requirements = {}
        if environment:
            about = self._add(f"#environment-{kind}", "SoftwareApplication", environment)
            requirements = {"softwareRequirements": {"@id": about}}
        tool = self._add(
            f"#tasks.{kind}",
            "SoftwareApplication",
            f"python -m tasks.{kind}",
            softwareVersion=revision or "unknown",
            isPartOf={"@id": whole},
            **requirements,
        )
        entry = self.lock.get(stage, {})
        took = [self._file(one) for one in entry.get("deps", []) if "resolved/" not in one["path"]]
        gave = [self._file(one) for one in entry.get("outs", [])]
        if kind == "prepare":
            took = [*self.data, *(one for one in took if one not in self.data)]
        if kind == "evaluate":
            gave = [*(one for one in gave if one != f"#{self.files.record}"), "row.json"]
            gave += ["record.json"] if "record.json" in self.texts else []
        return self._add(
            f"#{stage}",
            "CreateAction",
            stage,
            description=command,
            actionStatus="http://schema.org/CompletedActionStatus",
            instrument={"@id": tool},
            object=_all(["params.json", *took]),
            **({"result": _all(gave)} if gave else {}),
            **({"endTime": when(self.row)} if kind == "evaluate" else {}),
        )

    def _file(self, said: Mapping[str, Any]) -> str:
        """Add a file of the pipeline, by its hash if it is not in the crate, and return its name."""
        if (inside := f"code/{said['path']}") in self.texts:
            return inside
        name = f"#{said['path']}"
        if name not in self._entities:
            self._add(name, "CreativeWork", said["path"], identifier=f"md5:{said['md5']}")
        return name


def _all(names: Iterable[str]) -> Any:
    """Return references, one of them alone as itself."""
    found = [{"@id": name} for name in names]
    return found if len(found) != 1 else found[0]


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _hash(path: str, text: str, like: str) -> str:
    """Return the hash of a module as the row has it: of what it does, or in old rows of its bytes."""
    if len(like) == hashlib.md5().digest_size * 2:
        return hashlib.md5(text.encode()).hexdigest()
    if path.endswith(".py"):
        return syntax_hash(text)
    return hashlib.sha256(text.encode()).hexdigest()[: len(like)]


def _text_at(place: str, path: Path) -> str | None:
    """Return a file's text in the workspace or at a revision, None if there is none."""
    if place == WORKSPACE:
        return read_text(path) if path.is_file() else None
    try:
        return git(Path(), "show", f"{place}:./{path}")
    except GitError:
        return None


def _commit_that_added(path: Path) -> str | None:
    """Return the commit that brought a row into the ledger, with the results beside it."""
    try:
        added = git(Path(), "log", "--diff-filter=A", "--format=%H", "--", str(path))
    except (OSError, GitError):
        return None
    return added.splitlines()[-1] if added.strip() else None
