"""A data set's card as Croissant: JSON-LD that data catalogues and loaders read.

Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from scoremodel.io.files import write_text
from tasks.files.arrays import read_card, read_rows
from tasks.files.layout import Configuration
from tasks.files.out import require_free

__all__ = ["croissant", "export_data", "licence_address"]

_NPY = "https://numpy.org/neps/nep-0001-npy-format.html"
_ADDRESSES = {  # what sources call their licences → its page
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "MIT": "https://opensource.org/license/mit",
}
_TYPES = {"uint8": "UInt8", "int64": "Int64", "float32": "Float32"}
_SAID = {
    "train": "the training data, a row each",
    "held_out": "the held-out data, a row each",
    "train_labels": "the class of each row of the training data",
    "held_out_labels": "the class of each row of the held-out data",
}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def licence_address(licence: str) -> str:
    """Return a licence's page, or the words of the card if it is none of the usual ones."""
    return _ADDRESSES.get(licence, licence)


def export_data(files: Configuration, out: Path, force: bool = False) -> None:
    """Write a data set's Croissant card.

    Args:
        files: the data set.
        out: the file.
        force: whether a file that is there may be replaced.

    Raises:
        ValueError: if there is something at `out`, or the arrays are not those of the card.
    """
    require_free(out, force)
    write_text(out, json.dumps(croissant(files, out), indent=2, ensure_ascii=False) + "\n")


def croissant(files: Configuration, out: Path) -> dict[str, Any]:
    """Return a data set's card as Croissant.

    Args:
        files: the data set.
        out: where the card will lie; it names the arrays by their paths from there.

    Returns:
        JSON-LD: each array as a file with its hash; a record set for each; the classes.

    Raises:
        ValueError: if the arrays are not those of the card.
    """
    card = read_card(files.card)
    arrays = read_rows(files.arrays, card)
    classes = card["class_counts"]
    levels = card["levels"]
    pixels = "real numbers" if levels is None else f"grey levels 0 … {levels - 1}"
    counts = " and ".join(f"{n} {split.replace('_', '-')}" for split, n in card["count"].items())
    sets = [_record_set(name, array) for name, array in arrays.items()]
    if classes:
        sets.append(
            {
                "@type": "cr:RecordSet",
                "@id": "classes",
                "name": "classes",
                "dataType": "sc:Enumeration",
                "key": {"@id": "classes/number"},
                "field": [
                    _field("classes/number", "sc:Integer", "the number that stands for a class"),
                    _field("classes/name", "sc:Text", "its name"),
                ],
                "data": [
                    {"classes/number": number, "classes/name": name}
                    for number, name in enumerate(classes)
                ],
            }
        )
    return {
        "@context": _CONTEXT,
        "@type": "Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": card["name"],
        "description": (
            f"{card['source']}: {counts} data points of shape "
            f"({', '.join(map(str, card['shape']))}), {pixels}, split and shuffled by scoremodel; "
            f"SHA-256 of all arrays together {card['sha256']}."
        ),
        "license": licence_address(card["licence"]),
        "citeAs": card["source"],
        "version": "1.0.0",
        "distribution": [_file(path, out) for path in sorted(files.arrays.glob("[!.]*.npy"))],
        "recordSet": sets,
    }


def _file(path: Path, out: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": Path(os.path.relpath(path, out.parent)).as_posix(),
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _NPY,
        "sha256": digest,
    }


def _record_set(name: str, array: Any) -> dict[str, Any]:
    """Return the record set of one array: one record, the whole of it; rows of two go together."""
    values = _field(
        f"{name}/values", f"cr:{_TYPES.get(array.dtype.name, array.dtype.name)}", _SAID[name]
    )
    values |= {
        "isArray": True,
        "arrayShape": ",".join(map(str, array.shape)),
        "source": {"fileObject": {"@id": f"{name}.npy"}, "extract": {"fileProperty": "content"}},
    }
    if name.endswith("_labels"):
        values["references"] = {"field": {"@id": "classes/number"}}
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": [values]}


def _field(name: str, kind: str, said: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "description": said,
        "dataType": kind,
    }
