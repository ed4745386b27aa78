"""What the files of several systems have in common: graph encoders of the runs that they go to, and settings."""

from __future__ import annotations

from typing import TypeVar

from bench.released.ledger import Ledger, renamed_by
from encoders.base import EncoderError
from encoders.message_passing import GraphEncoder

T = TypeVar("T")

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def declared(ledger: Ledger, module: object, wanted: type[T], part: str) -> T:
    """The declaration that a part of the model was built from.

    Raises:
        ConfigError: it is another component than the file's.
    """
    declaration = getattr(module, "declaration", None)
    if not isinstance(declaration, wanted):
        name = getattr(declaration, "name", type(module).__name__.removesuffix("Module").lower())
        raise ledger.unfit(part, f"is {name}, where the file's is {wanted.name}")  # type: ignore[attr-defined]
    return declaration


def expect_settings(ledger: Ledger, declaration: object, part: str, **settings: object) -> None:
    """Makes sure of settings that no tensor's name or shape shows.

    Raises:
        ConfigError: one is another.
    """
    for name, value in settings.items():
        if getattr(declaration, name) != value:
            raise ledger.unfit(f"{part}.{name}", f"is {getattr(declaration, name)}, where {ledger.system} has {value}")


def place_graph_encoder(
    ledger: Ledger, encoder: GraphEncoder, names: dict[str, str], start: str, weights_hint: str
) -> set[str]:
    """Places the tensors of a graph neural network.

    Some systems store parameters only, or none of a frozen encoder; batch norm statistics are then those of the file
    that the encoder itself was loaded from, as in their code.

    Args:
        ledger: the file and the model.
        encoder: the declaration that reads this layout.
        names: the file's tensors by their names inside the network.
        start: what stands before the names of the model's tensors.
        weights_hint: the file that the system's code starts from, for messages.

    Returns:
        The model's tensors that the file must give.

    Raises:
        ConfigError: something is not in the file, and the run names no weights that it could come from.
    """
    try:
        moved = renamed_by(names, lambda state: encoder.translated(state)) if names else {}
    except EncoderError as error:
        raise ledger.refusal(f"has a graph encoder that encoder {encoder.name} does not read: {error}") from None
    ledger.place({names[old]: f"{start}{new}" for old, new in moved.items()})
    tables = [whole for old, whole in names.items() if old not in moved and "_embedding_list." in old]
    ledger.ignore(tables, f"tables of features that scheme {encoder.scheme.name} does not give")
    own = ledger.names(start)
    statistics = {name for name in own if name.endswith(_STATISTICS)}
    from_weights = own if not names else statistics if not statistics & ledger.placed(start) else set()
    if from_weights and encoder.weights is None:
        what = "batch norm statistics" if names else "tensors"
        part = start.removesuffix(".")
        raise ledger.unfit(
            f"{part}.weights", f"is not set, and the file holds no {what} of the {part}; name {weights_hint}"
        )
    return own - from_weights
