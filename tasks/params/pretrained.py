"""Published models: what their own files say, filled into the parameters; and whether the files are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from scoremodel.io.diffusers import network_of
from scoremodel.networks.diffusers_unet2d import EDM, check_sides, weights_of, wrapping
from tasks.params.errors import Located, ParamsError
from tasks.params.schema import Model, Params, Process

__all__ = ["explained", "require_pretrained", "unfit"]

_PROCESS: TypeAdapter[Any] = TypeAdapter(Process)


def explained(params: Params) -> Params:
    """Return parameters in which active models say what their folder or their scheduler says of them.

    That is the network of pretrained models, their process unless params.yaml says one, and what the
    networks of diffusers' predict.

    Args:
        params: valid parameters.

    Returns:
        The parameters; other models are as they are.

    Raises:
        ParamsError: if a folder is not there, or is of a kind that is not known.
    """
    models = dict(params.models)
    for name in params.active.models:
        try:
            models[name] = _explained(models[name])
        except ValueError as error:
            raise ParamsError(f"params.yaml: models.{name}: {error}") from None
    return params.model_copy(update={"models": models})


def _explained(model: Model) -> Model:
    if model.pretrained is not None:
        network = network_of(model.pretrained.path)
        del network["kind"]
    elif model.network.diffusers_unet2d is not None:
        network = model.network.diffusers_unet2d
    else:
        return model
    said = wrapping(network.get("scheduler") or EDM)
    update: dict[str, Any] = {"preconditioning": said.preconditioning}
    if model.pretrained is not None:
        update["network"] = model.network.model_copy(update={"diffusers_unet2d": network})
    if model.sde is None:
        update["sde"] = _PROCESS.validate_python(said.process.config())
    return model.model_copy(update=update)


def require_pretrained(params: Params) -> None:
    """Refuse active pretrained models whose weights are missing, or are others than they should be.

    Args:
        params: what `explained` returned.

    Raises:
        ParamsError: with the model, the file and what is wrong with it.
    """
    for name in params.active.models:
        given = params.models[name].pretrained
        if given is not None:
            try:
                weights_of(given.path, given.sha256)
            except ValueError as error:
                raise ParamsError(f"params.yaml: models.{name}.pretrained: {error}") from None


def unfit(name: str, model: Mapping[str, Any], card: Mapping[str, Any]) -> Iterator[Located]:
    """Yield why a network of diffusers' is none for a data set.

    Args:
        name: the model's name.
        model: its block, explained.
        card: the data set's card.

    Yields:
        At most one finding.
    """
    network = model["network"].get("diffusers_unet2d")
    if network is None:
        return
    where = (
        f"models.{name}.{'pretrained' if model.get('pretrained') else 'network.diffusers_unet2d'}"
    )
    try:
        check_sides(network, card["shape"], repr(card["name"]))
    except ValueError as error:
        what = (model.get("pretrained") or {"path": "diffusers_unet2d"})["path"]
        yield Located(where, what, f"a model for these data: {error}")
        return
    rows, counts = network.get("num_class_embeds"), card["class_counts"] or ()
    if model.get("pretrained") and rows is not None and rows != len(counts):
        allowed = f"a model for the {len(counts)} classes of {card['name']!r}, not {rows}"
        yield Located(where, model["pretrained"]["path"], allowed)
