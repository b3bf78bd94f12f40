"""Predicts the time of one SFT step from the card's peak: bytes and operations of each kernel.

The rows follow the library's GPU pass: gpu/pass.rs, backward.rs, attention.rs, train.rs and
kernels/*.cu. A row that a warp reads twice counts once, since a cache serves the second read;
logits count twice, since all rows in flight exceed the cache. Operations of kernels other than
products and attention are approximate; they never determine the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOGITS = 256 << 20
TILE = 64
SUM_ROWS = 128


@dataclass(frozen=True)
class Card:
    """Bytes and operations per second, and the 16-bit dtype that the card multiplies."""

    name: str
    memory: float
    tensor: float
    storage: str


H200 = Card("H200", 4.3e12, 780e12, "bf16")
T4 = Card("T4", 300e9, 50e12, "f16")


@dataclass(frozen=True)
class Step:
    """Sizes of a step: the model and its batch. `s` is the bytes of a stored value."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50257
    batch: int = 32
    length: int = 512
    s: int = 2

    @property
    def rows(self) -> int:
        """The tokens of a pass."""
        return self.batch * self.length

    @property
    def padded(self) -> int:
        """The rows of the embedding on the card."""
        return -(-self.vocabulary // 128) * 128

    @property
    def parameters(self) -> int:
        """The number of parameters, padding included."""
        c = self.width
        tensors = [self.padded * c, max(self.length, 1024) * c, c, c]
        tensors += self.layers * [
            3 * c * c,
            3 * c,
            c * c,
            c,
            4 * c * c,
            4 * c,
            4 * c * c,
            c,
            c,
            c,
            c,
            c,
        ]
        return sum(-(-n // 1024) * 1024 for n in tensors)


@dataclass(frozen=True)
class Work:
    """A kernel or a product: its runs in a step, and the bytes and operations of one run."""

    phase: str
    name: str
    what: str
    times: int
    bytes: float
    operations: float
    tensor: bool = False

    def seconds(self, card: Card) -> float:
        """Returns the time of all its runs: memory or arithmetic, whichever takes longer."""
        peak = self.operations / card.tensor if self.tensor else 0.0
        return self.times * max(self.bytes / card.memory, peak)


def product(
    phase: str,
    what: str,
    times: int,
    size: tuple[int, int, int],
    s: int,
    wide: bool = False,
    add: bool = False,
) -> Work:
    """out (m, n) = a (m, k) b (k, n): each moves once; `add` also reads `out`."""
    m, n, k = size
    out = m * n * (4 if wide else s) * (2 if add else 1)
    return Work(
        phase,
        "product",
        f"{what}, {m} x {n} x {k}",
        times,
        (m * k + k * n) * s + out,
        2.0 * m * n * k,
        tensor=True,
    )


def tiles(length: int) -> int:
    """Returns the pairs of query and key tiles that causal attention visits in a sequence."""
    n = -(-length // TILE)
    return n * (n + 1) // 2


def attention(step: Step, name: str, products: int, bytes_: float) -> Work:
    """Attention on tensor cores, with whole tiles on the diagonal."""
    pairs = step.batch * step.heads * tiles(step.length)
    flops = 2.0 * products * pairs * TILE * TILE * (step.width // step.heads)
    phase = "forward" if products == 2 else "backward"
    return Work(phase, name, f"{products} products a tile", step.layers, bytes_, flops, tensor=True)


def chunks(step: Step) -> tuple[int, float]:
    """Returns the number of chunks of the head, and the rows of one on average."""
    most = max(1, min(4096, LOGITS // (4 * step.padded)))
    n = -(-step.rows // most)
    return n, step.rows / n


def forward(step: Step) -> list[Work]:
    """The kernels from ids to the last layer norm."""
    r, c, s, n_layer = step.rows, step.width, step.s, step.layers
    rc = r * c
    linear = [("qkv", 3 * c, c), ("projection", c, c), ("to 4C", 4 * c, c), ("from 4C", c, 4 * c)]
    return [
        Work("forward", "embed", "token and position", 1, 8 * rc + 4 * step.length * c, rc),
        Work("forward", "residual_layer_norm", "the first", 1, (4 + s) * rc + 8 * r, 8.0 * rc),
        Work(
            "forward",
            "residual_layer_norm",
            "with the residual sum",
            2 * n_layer - 1,
            (8 + 2 * s) * rc + 8 * r,
            10.0 * rc,
        ),
        *[product("forward", name, n_layer, (r, out, into), s) for name, out, into in linear],
        # Reads queries, keys and values; writes queries with their bias and the result.
        attention(step, f"attention_tensor_{c // step.heads}", 2, 5 * rc * s + 4 * r * step.heads),
        Work("forward", "gelu_forward", "4C wide", n_layer, 8 * rc * s, 15.0 * 4 * rc),
        Work(
            "forward",
            "gather_stored",
            "rows that continue after the last attention",
            1,
            2 * rc * s,
            0,
        ),
        Work("forward", "gather_residual", "of the stream; rows that predict", 2, 8 * rc, 0),
        Work("forward", "residual_add", "after the last block", 1, (8 + s) * rc, 2.0 * rc),
        Work("forward", "residual_layer_norm", "the last", 1, (4 + s) * rc + 8 * r, 8.0 * rc),
    ]


def head(step: Step) -> list[Work]:
    """The kernels from logits to their gradients; in SFT the backward pass runs immediately."""
    c, s, v = step.width, step.s, step.padded
    n, rows = chunks(step)
    rows = round(rows)
    return [
        product("head", "logits, f32", n, (rows, v, c), s, wide=True),
        Work(
            "head",
            "log_probs",
            "reads logits twice, writes their gradient",
            n,
            rows * v * (8 + s),
            8.0 * rows * v,
        ),
        product("head", "hidden gradient", n, (rows, c, v), s),
        product("head", "embedding gradient, added", n, (v, c, rows), s, wide=True, add=True),
    ]


def backward(step: Step) -> list[Work]:
    """The kernels from the last layer norm back to the embeddings."""
    r, c, s, n_layer = step.rows, step.width, step.s, step.layers
    rc, norms = r * c, 2 * n_layer + 1
    linear = [("qkv", 3 * c, c), ("projection", c, c), ("to 4C", 4 * c, c), ("from 4C", c, 4 * c)]
    sums = -(-r // SUM_ROWS)
    distinct = step.vocabulary * (1 - math.exp(-r / step.vocabulary))
    return [
        Work("backward", "clear", "gradient of the stream", 1, 4 * rc, 0),
        Work(
            "backward",
            "layer_norm_sums",
            "all layer norms",
            norms,
            (4 + s) * rc + 8 * r + 8 * sums * c,
            6.0 * rc,
        ),
        Work(
            "backward",
            "layer_norm_backward",
            "all layer norms",
            norms,
            (12 + 2 * s) * rc + 8 * r,
            15.0 * rc,
        ),
        Work(
            "backward",
            "scatter_sum_residual",
            "to the rows that continued, then to all rows",
            2,
            (8 + s / 2) * rc,
            0,
        ),
        Work("backward", "gather_stored, scatter_sum_stored", "the last layer", 2, 2 * rc * s, 0),
        *[
            product("backward", f"{name}, input's gradient", n_layer, (r, into, out), s)
            for name, out, into in linear
        ],
        *[
            product(
                "backward",
                f"{name}, weight's gradient, added",
                n_layer,
                (into, out, r),
                s,
                True,
                True,
            )
            for name, out, into in linear
        ],
        Work(
            "backward",
            "gelu_backward",
            "4C wide, both rewritten",
            n_layer,
            16 * rc * s,
            30.0 * 4 * rc,
        ),
        Work(
            "backward",
            "column_sums",
            "gradients of four biases, 9C in all",
            n_layer,
            9 * rc * s + 4 * sums * 9 * c,
            9.0 * rc,
        ),
        Work(
            "backward",
            "add_partials",
            "of biases and layer norms, 13C in all",
            n_layer,
            4 * sums * 13 * c,
            13.0 * sums * c,
        ),
        Work(
            "backward",
            "layer_norm_again",
            "two in a block",
            2 * n_layer,
            (4 + s) * rc + 8 * r,
            4.0 * rc,
        ),
        Work("backward", "attention_delta", "", n_layer, 2 * rc * s + 4 * r * step.heads, 3.0 * rc),
        attention(
            step, f"attention_tensor_queries_{c // step.heads}", 3, 5 * rc * s + 8 * r * step.heads
        ),
        attention(
            step, f"attention_tensor_keys_{c // step.heads}", 4, 6 * rc * s + 8 * r * step.heads
        ),
        Work(
            "backward",
            "embed_backward",
            f"{distinct:.0f} distinct tokens",
            1,
            4 * rc + 8 * distinct * c,
            rc,
        ),
        Work("backward", "embed_backward", "positions", 1, 4 * rc + 8 * step.length * c, rc),
    ]


def update(step: Step) -> list[Work]:
    """The kernels of the gradient norm and of AdamW over all parameters."""
    n = step.parameters
    stored = step.s if step.s < 4 else 0
    return [
        Work("update", "square_sums", "", 1, 4 * n, 2.0 * n),
        Work(
            "update",
            "adamw",
            "weights, moments, gradient; 16-bit copy of the weights",
            1,
            (32 + stored) * n,
            15.0 * n,
        ),
    ]


def works(step: Step) -> list[Work]:
    """All kernels of a step."""
    return forward(step) + head(step) + backward(step) + update(step)


def seconds(step: Step, card: Card) -> float:
    """Returns a lower bound on the time of a step, from memory and arithmetic."""
    return sum(work.seconds(card) for work in works(step))


def launches(step: Step) -> int:
    """Returns the number of kernels and products that a step launches."""
    # In the rows above, column_sums count for four launches in a block, add_partials for eight.
    more = {"column_sums": 4, "add_partials": 8}
    return sum(work.times * more.get(work.name, 1) for work in works(step))


def decode_seconds(step: Step, card: Card, replies: int, known: int) -> float:
    """Returns the time of one token of each reply: weights and cache are read once, in f32."""
    cache = replies * known * 2 * step.width * 4 * step.layers
    return (4 * step.parameters + cache) / card.memory


def row(work: Work, cards: list[Card]) -> str:
    """Formats a row of the table."""
    total = work.times * work.bytes, work.times * work.operations
    bound = " ".join(
        "ops"
        if work.tensor and work.operations / card.tensor > work.bytes / card.memory
        else "memory"
        for card in cards[:1]
    )
    times = " | ".join(f"{1e3 * work.seconds(card):.2f}" for card in cards)
    amount = f"{work.times} | {total[0] / 1e9:.2f} | {total[1] / 1e12:.3f}"
    return f"| {work.name} | {work.what} | {amount} | {bound} | {times} |"


def tables(step: Step = Step(), cards: tuple[Card, ...] = (H200, T4)) -> str:
    """Formats the prediction as Markdown."""
    names = " | ".join(f"ms, {card.name} {card.storage}" for card in cards)
    lines = []
    for phase in ("forward", "head", "backward", "update"):
        part = [work for work in works(step) if work.phase == phase]
        lines += [
            f"### {phase.capitalize()}",
            "",
            f"| kernel | what | times | GB | TFLOP | bound | {names} |",
            "|" + "---|" * (6 + len(cards)),
        ]
        lines += [row(work, list(cards)) for work in part]
        sums = " | ".join(
            f"**{1e3 * sum(work.seconds(card) for work in part):.1f}**" for card in cards
        )
        total = (
            sum(w.times * w.bytes for w in part) / 1e9,
            sum(w.times * w.operations for w in part) / 1e12,
        )
        lines += [f"| **all** | | | {total[0]:.1f} | {total[1]:.2f} | | {sums} |", ""]
    lines += [
        "### The step",
        "",
        "| | " + " | ".join(card.name for card in cards) + " |",
        "|" + "---|" * (1 + len(cards)),
    ]
    lines.append(
        "| shortest step, ms | "
        + " | ".join(f"{1e3 * seconds(step, card):.1f}" for card in cards)
        + " |"
    )
    lines.append(
        "| most tokens/s | "
        + " | ".join(f"{step.rows / seconds(step, card):,.0f}" for card in cards)
        + " |"
    )
    share = [
        sum(w.seconds(card) for w in works(step) if w.tensor) / seconds(step, card)
        for card in cards
    ]
    lines.append("| of it products and attention | " + " | ".join(f"{x:.0%}" for x in share) + " |")
    moved = sum(w.times * w.bytes for w in works(step))
    decode = [64 / decode_seconds(step, card, 64, 96) for card in cards]
    lines.append(
        "| most tokens/s of 64 replies, f32, 96 tokens known | "
        + " | ".join(f"{x:,.0f}" for x in decode)
        + " |"
    )
    lines += [
        "",
        f"A step launches {launches(step)} kernels and products and moves {moved / 1e9:.0f} GB.",
    ]
    return "\n".join(lines)
