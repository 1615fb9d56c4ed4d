"""Names and shapes of motion modules: the authors' spelling (AnimateDiff, Hotshot-XL) and diffusers', which is ours.

Ours is `{down_blocks.i|up_blocks.i|mid_block}.motion_modules.j.transformer_blocks.0.{attn1,attn2,norm1,norm2,norm3,ff,
pos_embed}`. The authors' wraps it in `temporal_transformer`, calls the attentions `attention_blocks.0` and `.1`, the
norms `norms.0`, `norms.1` and `ff_norm`, and keeps one position table in each attention.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from videogen.errors import InputError

MODULE = re.compile(
    r"(?:^|\.)((?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\.)(?:motion_modules|temporal_attentions)\."
)

HEADER = "videogen.motion"
"""Under which the header of a file that was trained here says, in JSON, how its modules are built (`config`, keys of a
MotionAdapter's `config.json`), on which `scheduler`, and on clips of how many `frames`.
"""

OURS = (
    (".temporal_attentions.", ".motion_modules."),
    (".temporal_transformer.", "."),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
    (".pos_encoder.positional_encoding", ".pos_encoder.pe"),
)


def is_motion(key: str) -> bool:
    """Whether a key belongs to a motion module, in any spelling."""
    return MODULE.search(key) is not None


def to_ours(key: str) -> str:
    """The authors' name of a motion tensor in our spelling; names that are ours already stay.

    The two position tables of a block (`attn1.pos_encoder.pe`, `attn2.pos_encoder.pe`) take one name, `pos_embed.pe`.
    """
    found = MODULE.search(key)
    if found is None:
        return key
    key = key[found.start(1) :]
    for theirs, ours in OURS:
        key = key.replace(theirs, ours)
    return re.sub(r"\.attn[12]\.pos_encoder\.pe$", ".pos_embed.pe", key)


def to_authors(key: str, hotshot: bool = False) -> tuple[str, ...]:
    """Our name of a motion tensor in the authors' spelling: one name, or two for the position table."""
    if key.endswith(".pos_embed.pe"):
        table = "positional_encoding" if hotshot else "pe"
        tables = [key.replace(".pos_embed.pe", f".attn{i}.pos_encoder.{table}") for i in (1, 2)]
        return tuple(name for table in tables for name in to_authors(table, hotshot))
    block, _, rest = key.partition(".transformer_blocks.0.")
    for theirs, ours in OURS[2:-1]:
        rest = f".{rest}".replace(ours, theirs)[1:]
    key = f"{block}.transformer_blocks.0.{rest}" if rest else block
    if hotshot:
        return (key.replace(".motion_modules.", ".temporal_attentions."),)
    return (re.sub(r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer.", key),)


def shapes(channels: Sequence[int], layers: int, mid: bool, positions: int) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of a complete set of modules: `layers` per encoder level, one more per decoder level."""
    return {
        f"{place}.{name}": shape
        for place, width in _places(channels, layers, mid)
        for name, shape in _module(width, positions)
    }


def layout(found: Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], int, bool, int | None]:
    """The inverse: channels, layers, whether there is a middle module, and positions (None without tables), of our names and their shapes.

    Raises InputError for a shape that has too few axes to tell, with its name.
    """
    channels: list[int] = []
    while (norm := f"down_blocks.{len(channels)}.motion_modules.0.norm.weight") in found:
        channels.append(_size(found, norm, 0))
    layers = 0
    while f"down_blocks.0.motion_modules.{layers}.norm.weight" in found:
        layers += 1
    mid = any(name.startswith("mid_block.") for name in found)
    table = next((name for name in found if name.endswith(".pos_embed.pe")), None)
    return tuple(channels), layers, mid, None if table is None else _size(found, table, 1)


def _size(found: Mapping[str, Sequence[int]], name: str, axis: int) -> int:
    shape = found[name]
    if len(shape) <= axis:
        raise InputError(f"the motion file has the shape {tuple(shape)} at {name!r}, which has too few axes")
    return shape[axis]


def _places(channels: Sequence[int], layers: int, mid: bool) -> Iterator[tuple[str, int]]:
    for i, width in enumerate(channels):
        for j in range(layers):
            yield f"down_blocks.{i}.motion_modules.{j}", width
    for i, width in enumerate(reversed(channels)):
        for j in range(layers + 1):
            yield f"up_blocks.{i}.motion_modules.{j}", width
    if mid:
        yield "mid_block.motion_modules.0", channels[-1]


def _module(c: int, positions: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    block = "transformer_blocks.0"
    for name in ("norm", f"{block}.norm1", f"{block}.norm2", f"{block}.norm3"):
        yield f"{name}.weight", (c,)
        yield f"{name}.bias", (c,)
    for name in ("proj_in", "proj_out"):
        yield f"{name}.weight", (c, c)
        yield f"{name}.bias", (c,)
    for attention in ("attn1", "attn2"):
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            yield f"{block}.{attention}.{name}.weight", (c, c)
        yield f"{block}.{attention}.to_out.0.bias", (c,)
    yield f"{block}.ff.net.0.proj.weight", (8 * c, c)
    yield f"{block}.ff.net.0.proj.bias", (8 * c,)
    yield f"{block}.ff.net.2.weight", (c, 4 * c)
    yield f"{block}.ff.net.2.bias", (c,)
    yield f"{block}.pos_embed.pe", (1, positions, c)
