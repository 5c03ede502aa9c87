"""Thousands of wrong parameter files, made from the schema itself: each gets its lines, or can be used."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scoremodel.bounds import Bounds
from scoremodel.denoiser import Denoiser
from scoremodel.networks.base import build_network
from scoremodel.processes.base import PROCESSES, Process, process_from_config
from scoremodel.processes.ncsn import NCSN
from scoremodel.samplers.base import SAMPLERS
from scoremodel.samplers.sampling import sample
from scoremodel.training.loop import train
from scoremodel.training.times.base import TIMES
from tasks.params.errors import ParamsError
from tasks.params.filled import walk
from tasks.params.library import Within
from tasks.params.load import checked, load_params
from tasks.params.read import parse_yaml, read_yaml
from tasks.params.schema import Params
from tasks.sample import build_sampler
from tasks.train import training_config
from tests.workspace import ROOT

FILE = Path("params.yaml")
PLACE = tuple[str | int, ...]
JUNK: list[Any] = [
    None, True, False, "", "x", "12", "a b", "x" * 10_000, "a\x00b", "a\nb", "\x1b[31m", "\u202e",
    "\ud800", "${seed}", "../x", "/", [], [None], ["x"] * 2_000, [[]], {}, {"kind": "x"}, {1: 2},
    {"a\nb": 1}, {None: 1}, {"x" * 10_000: 1}, math.nan, math.inf, -math.inf, 0, -1, 1, 2, 0.5, 10**9,
    1e9, 1e30, 2**63, 10**400, -(10**400), 1e-300, 1.7e308,
]  # fmt: skip
"""What may stand anywhere by mistake."""
LIBRARY = re.compile(
    r"Input should|Field required|Extra inputs|valid (string|integer|number|list|dictionary|boolean)"
    r"|List should|String should|Value error|constrained|unhashable|Overflow|while (scanning|parsing)"
    r"|pydantic|Traceback|NoneType|object at 0x|literal\[|tagged-union|\bint\(\)|of type"
)
"""Words of pydantic's, ruamel's and Python's own."""


def _whole() -> dict[str, Any]:
    """Return parameters that say everything: each kind of process, times and sampler once."""
    raw = read_yaml(ROOT / "params.yaml")
    raw["models"] |= {
        **{f"p_{kind}": {"like": "vp", "sde": {"kind": kind}} for kind in PROCESSES},
        **{f"t_{kind}": {"like": "vp", "training": {"times": {"kind": kind}}} for kind in TIMES},
    }
    raw["models"]["t_single"]["training"]["times"]["ratio"] = 0.3
    raw["active"] |= {"models": ["p_vp"], "samplers": ["s_heun"], "external": ["edm"]}
    raw["external"] = {"edm": {}}
    raw["samplers"] |= {
        f"s_{kind}": {"kind": kind, **_SAID.get(kind, {"steps": 18})} for kind in SAMPLERS
    }
    found = checked(raw, FILE).model_dump()
    for block, beginning in (("models", ("p_", "t_")), ("samplers", ("s_",))):
        found[block] = {k: v for k, v in found[block].items() if k.startswith(beginning)}
    return found


_SAID: dict[str, dict[str, Any]] = {
    "runge_kutta": {},
    "annealed_langevin": {},
    "langevin": {"steps": 18, "step_size": 1e-4},
}
EXTRACTORS: list[dict[str, Any]] = [
    {"kind": "auto", "share": 0.5, "epochs": 20, "seed": 0},
    {"kind": "classifier", "share": 0.5, "epochs": 20, "seed": 0},
    {"kind": "shipped", "name": "digits"},
    {"kind": "inception", "mode": "clean", "path": None, "sha256": None},
    {"kind": "torchscript", "path": "a.pt", "sha256": "0" * 64},
]
OPERATORS: list[dict[str, Any]] = [
    {"kind": "mask", "hidden": "lower_half"},
    {"kind": "downsample", "factor": 2},
    {"kind": "blur", "std": 1.0},
]


def _only(raw: dict[str, Any], place: PLACE) -> dict[str, Any]:
    """Return the parameters with one model and one sampler, those that the place is in."""
    small = dict(raw)
    for block, name in (("models", "p_vp"), ("samplers", "s_heun")):
        name = str(place[1]) if place[0] == block and len(place) > 1 else name
        small[block] = {name: raw[block][name]}
        small["active"] = small["active"] | {block: [name]}
    return copy.deepcopy(small)


def _fields(block: BaseModel, place: PLACE = ()) -> Iterator[tuple[PLACE, FieldInfo | None]]:
    """Yield each key of some valid parameters with what the schema says of it, and each list's item."""
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        yield (*place, name), field
        if isinstance(value, list):
            yield from (((*place, name, index), None) for index in range(len(value)))
        for key, one in value.items() if isinstance(value, dict) else [(None, value)]:
            here = (*place, name) if key is None else (*place, name, key)
            if key is not None:
                yield here, None
            if isinstance(one, BaseModel):
                yield from _fields(one, here)


def _bounds(annotation: Any, notes: tuple[Any, ...] = ()) -> Iterator[Within]:
    yield from (note for note in notes if isinstance(note, Within))
    for inside in get_args(annotation):
        yield from _bounds(inside, getattr(inside, "__metadata__", ()))


def _edges(field: FieldInfo) -> Iterator[float]:
    """Yield the numbers at a field's bounds, and the nearest outside."""
    for one in _bounds(field.annotation, tuple(field.metadata)):
        bounds: Bounds = one.bounds
        for limit, away in ((bounds.ge, -1), (bounds.gt, -1), (bounds.le, 1), (bounds.lt, 1)):
            if limit is not None:
                yield limit
                yield limit + away if one.whole else math.nextafter(limit, away * math.inf)


def _put(raw: dict[str, Any], place: PLACE, value: Any) -> None:
    block: Any = raw
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value


def _without(raw: dict[str, Any], place: PLACE) -> None:
    block: Any = raw
    for key in place[:-1]:
        block = block[key]
    del block[place[-1]]


def _files() -> Iterator[tuple[str, PLACE, dict[str, Any]]]:
    """Yield what was changed, where, and the content of a parameter file, one after the other."""
    whole = _whole()
    bases: list[tuple[dict[str, Any], PLACE]] = [(whole, ())]
    draw = random.Random(0)
    for place, blocks in (
        (("evaluation", "extractor"), EXTRACTORS),
        (("applications", "inverse", "operator"), OPERATORS),
    ):
        for block in blocks:
            base = copy.deepcopy(whole)
            _put(base, place, block)
            bases.append((base, place))
    for base, within in bases:
        for place, field in _fields(checked(base, FILE)):
            if place[: len(within)] != within or _said_elsewhere(place):
                continue
            edges = [] if field is None else list(_edges(field))
            for value in (*draw.sample(JUNK, 11), *edges):
                raw = _only(base, place)
                _put(raw, place, value)
                yield f"{place} = {str(value)[:40]}", place, raw
            raw = _only(base, place)
            _without(raw, place)
            yield f"without {place}", place, raw
            if isinstance(place[-1], str):
                raw = _only(base, place)
                _put(raw, (*place[:-1], "nothing_of_that_name"), 0)
                yield f"beside {place}", place, raw


def _said_elsewhere(place: PLACE) -> bool:
    """Return whether another place is of the same class: what all models have is changed in one of them."""
    match place:
        case ("models", name, part, *rest):
            own = part == "sde" or (part == "training" and rest[:1] == ["times"])
            return name != "p_vp" and not own
        case (
            "samplers",
            name,
            "guidance" | "autoguide" | "path" | "ema_half_life" | "ema_std" | "precision",
            *_,
        ):
            return name != "s_heun"
    return False


def _lines(error: ParamsError, what: str) -> list[str]:
    """Return the lines of a refusal, which are held to what every line has."""
    lines = str(error).split("\n")
    for line in lines:
        assert re.match(r"params\.yaml(, line \d+)?: ", line), (what, line)
        assert re.search(r"allowed|unknown key|missing|stands on line", line), (what, line)
        assert line.isprintable(), (what, line)
        assert len(line) <= 600, (what, line)
        assert not LIBRARY.search(line), (what, line)
    return lines


def _judge(raw: Any, what: str) -> Params | None:
    """Return the parameters if they are accepted; what is refused gets its lines."""
    try:
        return checked(raw, FILE)
    except ParamsError as error:
        _lines(error, what)
    return None


def _use(params: Params, what: str, part: str) -> None:
    """Make all that stages make of some valid parameters before they begin to work."""
    model, sampler = _active(params)
    if sampler.get("steps") == 100_000 and sampler["kind"] != "heun":
        return  # which takes as long
    with _one_line(what):
        process = _process(sampler["path"] or model["sde"])
        if part == "models":
            training_config(model["training"])
            for kind, shape in (("unet", (3, 8, 8)), ("mlp", (2,))):
                with torch.device("meta"):
                    build_network({"kind": kind, **model["network"][kind]}, shape)
        build_sampler(sampler).plan(process)


def _work(params: Params, what: str) -> bool:
    """Train the active model for two steps on points and draw from it; return whether that ended."""
    model, sampler = _active(params)
    training = model["training"] | {"steps": 2, "warmup_steps": 0, "compile": False}
    if training.get("batch_size", 128) > 64:
        training |= {"batch_size": 64, "parts": 1}
    steps = {"steps": 2} if sampler.get("steps") else {}
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with _one_line(what):
        process = process_from_config(model["sde"], lambda: data)
        kind = {"kind": "mlp"} | model["network"]["mlp"] | {"width": 16, "depth": 1}
        settings = {"preconditioning": model["preconditioning"], "energy": model["energy"]}
        classes = None if training["label_dropout"] is None else 2
        denoiser = Denoiser(
            kind, process, (2,), mean=[0.0, 0.0], std=0.5, classes=classes, **settings
        )
        labels = None if classes is None else torch.arange(64) % 2
        trained = train(denoiser, data, training_config(training), 0, labels=labels)
        path = None if sampler["path"] is None else process_from_config(sampler["path"])
        sample(
            trained.denoiser,
            build_sampler(sampler | steps),
            4,
            0,
            labels=None if labels is None else labels[:4],
            guidance=sampler["guidance"],
            precision=sampler["precision"],
            process=path,
        )
        return True
    return False


def _active(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    said: dict[str, Any] = params.model_dump(exclude_unset=True)
    model, sampler = (said[block][said["active"][block][0]] for block in ("models", "samplers"))
    return model, sampler


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Let pass what a stage says in one line before it exits with 2, and nothing else."""
    said = ""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        said = str(error)
    assert "\n" not in said, what
    assert not LIBRARY.search(said), (what, said)
    assert len(said) <= 600, what


def _process(config: dict[str, Any]) -> Process:
    return NCSN(levels=2000) if None in config.values() else process_from_config(config)


def test_whatever_stands_anywhere_is_refused_in_lines_or_can_be_used() -> None:
    """More than 3,000 files, one for each place and value."""
    count, accepted = 0, 0
    used: set[str] = set()
    new: list[tuple[Params, str]] = []
    for what, place, raw in _files():
        count += 1
        params = _judge(raw, what)
        if params is None:
            continue
        accepted += 1
        part = str(place[0])
        key = json.dumps(params.model_dump().get(part), default=str, sort_keys=True)
        if part in ("models", "samplers") and key not in used:
            used.add(key)
            _use(params, what, part)
            new.append((params, what))
    assert count > 3_000
    assert accepted > 200
    done = [_work(params, what) for params, what in new]
    assert sum(done) > 0.8 * len(done)


def test_two_mistakes_together_are_refused_in_lines_or_can_be_used() -> None:
    draw = random.Random(0)
    whole = _whole()
    places = [place for place, _ in walk(whole) if place]
    found = {True: 0, False: 0}
    for _ in range(600):
        place = draw.choice(places)
        raw = _only(whole, place)
        one, other = place, draw.choice([there for there, _ in walk(raw) if there])
        what = []
        for there in (one, other):
            value = draw.choice([*JUNK, 10, 100.0, 3, 0.25])
            try:
                _put(raw, there, value)
            except (KeyError, IndexError, TypeError):  # the first has taken its place away
                continue
            what.append(str(there))
        params = _judge(raw, " and ".join(what))
        found[params is not None] += 1
        if params is not None:
            _use(params, " and ".join(what), str(one[0]))
    assert found[False] > 300


def test_a_damaged_text_is_refused_in_lines_or_read() -> None:
    """Characters and lines of the shipped file are lost, doubled and changed."""
    draw = random.Random(0)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changes: list[Callable[[str, int, int], str]] = [
        lambda s, i, j: s[:i] + s[j:],
        lambda s, i, j: s[:j] + s[i:],
        lambda s, i, j: s[:i] + draw.choice("\t:-[]{},&*!|>'\"%@`#?\x00\x07é€\n ") + s[i:],
        lambda s, i, j: s[:i] + draw.choice(["&a ", "*a", "<<: ", "!!x ", "\n---\n", "? "]) + s[i:],
    ]
    refused = 0
    for _ in range(40):
        i = draw.randrange(len(text))
        changed = draw.choice(changes)(text, i, min(len(text), i + draw.randrange(1, 30)))
        try:
            checked(parse_yaml(changed, FILE), FILE)
        except ParamsError as error:
            for line in str(error).split("\n"):
                assert re.match(r"params\.yaml(, line \d+)?: ", line), line
                assert line.isprintable(), line
                assert not LIBRARY.search(line), line
            refused += 1
    assert refused > 10


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", ": None is not allowed, allowed: a block of keys"),
        (b"# nothing\n", ": None is not allowed, allowed: a block of keys"),
        (b"- seed\n", ": ['seed'] is not allowed, allowed: a block of keys"),
        (b"5\n", ": 5 is not allowed, allowed: a block of keys"),
        (b"seed: 0\nseed: 1\n", ", line 2: seed: stands on line 1 already"),
        (b"1: x\n", ", line 1: key '1' is not allowed, allowed: text as keys"),
        (b"null: x\n", ", line 1: key 'null' is not allowed, allowed: text as keys"),
        (b"watch:\n  [a]: b\n", ", line 2: watch: key a list or a block is not allowed"),
        (b"<<: {seed: 0}\n", ", line 1: key '<<' is not allowed, allowed: text as keys"),
        (b"seed: 2020-01-01\n", ", line 1: seed: '2020-01-01' is not allowed, allowed: text, a num"),
        (b"seed: !!binary aGk=\n", ", line 1: seed: 'aGk=' is not allowed"),
        (b"seed: !!python/object:os.system x\n", ", line 1: seed: 'x' is not allowed, allowed: "),
        (b"seed: !!set {a: null}\n", ", line 1: seed: 'tag:yaml.org,2002:set' is not allowed"),
        (b"seed: !!int x\n", ", line 1: seed: 'x' is not allowed"),
        (b"seed: 0x_\n", ", line 1: seed: '0x_' is not allowed"),
        (b"seed: " + b"9" * 5000 + b"\n", f", line 1: seed: '{'9' * 78}… is not allowed"),
        (b"seed: &a [*a]\n", ", line 1: more than 20 blocks in each other, or one in itself"),
        (b"a: " + b"[" * 100_000, ", line 1: more than 20 blocks in each other"),
        (b"a: " + b"[x, " * 30 + b"]" * 30, ", line 1: more than 20 blocks in each other"),
        (LAUGHS.encode(), ": more values than allowed, allowed: 100,000"),
        (b"seed: *nobody\n", ", line 1: not valid YAML: 'seed: *nobody'"),
        (b"a: [1\nb: 2\n", ", line 2: not valid YAML: 'b: 2', in what begins on line 1"),
        (b"watch:\n\tx: 1\n", ", line 2: not valid YAML: a tab, allowed: spaces"),
        (b"a: 1\n---\nb: 2\n", ", line 2: not valid YAML: a second document, allowed: one"),
        (b"a: 'x\n", ", line 2: not valid YAML: the file ends, in what begins on line 1"),
        (b"a: 1\nb: \x00\n", ", line 2: character '\\x00' is not allowed, allowed: text without"),
        (b"a: 1\nb: \x1b[31m\n", ", line 2: character '\\x1b' is not allowed"),
        (b"a: 1\nb: \xff\n", ", line 2: is not UTF-8"),
        ("seed: 0\n".encode("utf-16"), ", line 1: is not UTF-8"),
        (b'device: "a\\nb"\n', ": device: 'a\\nb' is not allowed, allowed: text without control"),
        (b'device: "\\uD800"\n', ": device: '\\ud800' is not allowed, allowed: text without control"),
        (b"#" * 600_000, ": has more bytes than allowed, allowed: 200,000"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plain_yaml_is_refused_in_one_line(
    tmp_path: Path, text: bytes, said: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(ParamsError) as error:
        load_params(path)
    (line,) = str(error.value).split("\n")
    assert said in line
    assert line.startswith(str(path))
    assert line.isprintable()
    assert not LIBRARY.search(line)


def test_a_mark_at_the_beginning_and_windows_line_ends_are_no_mistakes(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("\n", "\r\n")
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_params(path) == load_params(ROOT / "params.yaml")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path):
        with pytest.raises(ParamsError, match=r": is no regular file$"):
            load_params(path)
    if os.geteuid():
        hidden = tmp_path / "hidden.yaml"
        hidden.touch(0o000)
        with pytest.raises(ParamsError, match=r"hidden\.yaml: cannot be read: Permission denied$"):
            load_params(hidden)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        (".scoremodel/state", True),
        ("/scratch/somebody/state", True),
        ("../state", False),
        ("a/../..", False),
        (".", False),
        ("/", False),
        (".git/x", False),
        (".dvc", False),
        ("results/x", False),
        ("a/../artifacts/x", False),
        ("data", False),
        ("/elsewhere/.git/x", False),
        ("params.yaml", False),
        ("params.yaml/x", False),
        ("x" * 300, False),
    ],
)
def test_a_folder_for_states_is_no_folder_of_others(
    monkeypatch: pytest.MonkeyPatch, folder: str, allowed: bool
) -> None:
    monkeypatch.chdir(ROOT)
    raw = read_yaml(FILE)
    raw["checkpoints"]["folder"] = folder
    if allowed:
        assert checked(raw, FILE).checkpoints.folder == folder
        return
    with pytest.raises(ParamsError, match=r"^params\.yaml: checkpoints\.folder: .* allowed: a"):
        checked(raw, FILE)
    if ".." in folder:  # an absolute one elsewhere is
        return
    raw["checkpoints"]["folder"] = str(ROOT / folder)
    with pytest.raises(ParamsError, match=r"^params\.yaml: checkpoints\.folder: .* allowed: a"):
        checked(raw, FILE)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("defaults", "model", "training", "ema_half_lives"), [50000.0, 50000.00000000001],
         "defaults.model.training.ema_half_lives: [50000.0, 50000.00000000001] is not allowed, allowed: "
         "a list without repetitions"),
        (("defaults", "model", "training", "clip_norm"), 1e-300,
         "defaults.model.training.clip_norm: 1e-300 is not allowed, allowed: a number from 1e-06 to 1e+12"),
        (("defaults", "model", "network", "unet", "attention_levels"), [1, 1],
         "defaults.model.network.unet.attention_levels: [1, 1] is not allowed, allowed: a list without"),
        (("samplers", "stochastic_heun"), {"steps": 18, "s_min": 60.0, "s_max": 50.0},
         "samplers.stochastic_heun.s_max: 50.0 is not allowed, allowed: a number greater than s_min (60)"),
        (("samplers", "stochastic_heun"), {"steps": 18, "s_min": 60.0},
         "samplers.stochastic_heun: stochastic_heun: s_max: 50.0 is not allowed, allowed: a number gre"),
        (("defaults", "sampler", "guidance"), 1e6,
         "defaults.sampler.guidance: 1000000.0 is not allowed, allowed: a number from 0 to 1,000"),
        (("samplers", "runge_kutta"), {"rtol": 1e308},
         "samplers.runge_kutta.rtol: 1e+308 is not allowed, allowed: a number from 1e-14 to 1"),
        (("threads",), 10**9, "threads: 1000000000 is not allowed, allowed: an integer from 1 to 1,024"),
        (("active", "train_seeds"), list(range(3_000)),
         f"active.train_seeds: {str(list(range(3_000)))[:79]}… is not allowed, allowed: a list of 1 to"),
        (("active", "samplers"), ["heun_" + "9" * 5000], "active.samplers[0]: 'heun_999"),
    ],
)  # fmt: skip
def test_what_is_never_sensible_is_refused(place: PLACE, value: Any, said: str) -> None:
    raw = read_yaml(ROOT / "params.yaml")
    _put(raw, place, value)
    with pytest.raises(ParamsError) as error:
        checked(raw, FILE)
    (line, *_) = _lines(error.value, said)
    assert line.startswith(f"params.yaml: {said}")


def test_runs_that_nobody_could_wait_for_are_refused_with_their_number() -> None:
    raw = read_yaml(ROOT / "params.yaml")
    raw["active"]["train_seeds"] = list(range(1000))
    raw["active"]["models"] = ["ve", "vp", "ddpm"]
    raw["active"]["samplers"] = ["heun", "euler", "ancestral", "ddim"]
    with pytest.raises(ParamsError, match=r"^params\.yaml: active: 12,000 runs .* at most 10,000$"):
        checked(raw, FILE)
