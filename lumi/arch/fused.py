"""A decoder laid out for generation: fused projections, and a cache whose rows come and go.

The weights are those of a `Decoder`, an adapter merged into them; queries, keys and values are made by one product, gate and
up by another. One token of a small model is a hundred small operations: what counts is how few they are. On a CPU, float32,
a decoding step is a single one (`lumi.arch.native`), wherever there is a compiler.

**What stands in a batch cannot change a row.** The native step computes each row by itself. PyTorch's kernels round
differently for another number of rows, and a rounding is enough to turn a tie; so on a CPU every product of a decoding step
made of them is cut into blocks of rows in which, as is tried when the weights are loaded, their number makes no difference
to the last bit; keys are always read in multiples of 64, with a mask; and a prompt is read alone. On a CUDA device one
product takes all rows, and nothing of this is promised.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumi.arch import native
from lumi.arch.decoder import Attention, Block, Decoder
from lumi.arch.layers import SwiGLU
from lumi.arch.lora import merged_weight

_Product = Callable[[Tensor, Tensor], Tensor]

KEY_BLOCK = 64
_MOST_ROWS = 16
_FEWEST_ROWS = 2


class Cache:
    """Keys and values of what was read, a row for each request; the first ``n`` rows are in use.

    Args:
        decoder: whose shape, device and dtype it has.
        n_rows: requests at a time.
        max_len: tokens a row can hold.
    """

    def __init__(self, decoder: "FusedDecoder", n_rows: int, max_len: int) -> None:
        config = decoder.config
        self.n_rows, self.max_len = n_rows, -(-max_len // KEY_BLOCK) * KEY_BLOCK
        shape = (2, n_rows, config.n_kv_heads, self.max_len, config.d_head)
        # A tensor a layer: one for all would be copied whole by every compiled step. Memory is touched only when written.
        self.layers = [torch.zeros(shape, device=decoder.device, dtype=decoder.dtype) for _ in range(config.n_layers)]

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Put a row in the place of another, so that the rows in use stay together."""
        for layer in self.layers:
            layer[:, target, :, :n_tokens] = layer[:, source, :, :n_tokens]

    @property
    def n_bytes(self) -> int:
        """When all rows are full."""
        return sum(layer.nbytes for layer in self.layers)


class FusedDecoder:
    """Reads prompts and makes next-token logits, for many requests that come and go.

    Args:
        decoder: any; its weights are copied where they are fused or cast, so later changes of it are not seen.
        dtype: of weights and cache; None keeps the decoder's own.
        compiled: whether the native step may be taken.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, dtype: torch.dtype | None = None, *, compiled: bool = True) -> None:
        self.config = config = decoder.config
        self.dtype = dtype or decoder.lm_weight.dtype
        self.device = decoder.lm_weight.device
        trunk = decoder.model
        self._embedding = trunk.embed_tokens.weight.detach().to(self.dtype)
        head = self._embedding if config.tied else decoder.lm_weight.detach().to(self.dtype)
        self._head = head.t()
        self._norm = trunk.norm.weight.detach().float()
        self._cos, self._sin = _turns(decoder, self.dtype)
        self._layers = [_Layer(block, self.dtype) for block in trunk.layers if isinstance(block, Block)]
        self._grouped = config.n_heads != config.n_kv_heads
        self._rows: dict[torch.Size, int] = {}
        self._step = self._native_step(decoder) if compiled and self.device.type == "cpu" else None
        if self.device.type == "cpu":
            first = self._layers[0]
            in_step = (first.qkv, first.output, first.gate_up, first.down) if self._step is None else ()
            for weight in (*in_step, self._head):  # the head also ends a prompt, which the native step does not read
                self._rows[weight.shape] = _indifferent_rows(weight.shape, self.dtype, torch.get_num_threads())

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, cache: Cache, row: int, start: int) -> Tensor:
        """Read a part of a prompt into a row; what lies before ``start`` was read already.

        Args:
            tokens: (T,) int64.

        Returns:
            (V,) float32, the logits of what comes after the last token.
        """
        stop = start + len(tokens)
        n_keys = -(-stop // KEY_BLOCK) * KEY_BLOCK
        places = torch.arange(start, stop, device=self.device)
        mask = torch.arange(n_keys, device=self.device) <= places.unsqueeze(1)  # (T, S)
        cos, sin = self._cos[start:stop], self._sin[start:stop]  # (T, H + 2 K, E)
        x = self._embedding[tokens.to(self.device)]  # (T, D)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            q, kv = self._project(layer, x, cos, sin, _plain)
            kept[:, row, :, start:stop] = kv.permute(1, 2, 0, 3)
            keys, values = kept[:, row : row + 1, :, :n_keys]
            read = F.scaled_dot_product_attention(
                q.transpose(0, 1).unsqueeze(0), keys, values, attn_mask=mask, enable_gqa=self._grouped
            )  # (1, H, T, E)
            x = self._finish(layer, x, read[0].transpose(0, 1).flatten(1), _plain)
        return self._logits(x[-1:].expand(self._padded(1), -1).contiguous())[0]

    @torch.inference_mode()
    def decode(self, tokens: Tensor, lengths: Tensor, cache: Cache, longest: int) -> Tensor:
        """One further token in each of the first rows.

        Args:
            tokens: (n,) int64. lengths: (n,) int64, tokens that each row holds already.
            longest: the largest of the lengths, so that it need not be fetched from the device.

        Returns:
            (n, V) float32, the logits of what comes after it.
        """
        if self._step is not None:
            return self._step(tokens, lengths, cache.layers)
        n = len(tokens)
        n_rows = self._padded(n)
        n_keys = -(-(longest + 1) // KEY_BLOCK) * KEY_BLOCK
        rows = torch.arange(n, device=self.device)
        attend = self._attention(torch.arange(n_keys, device=self.device) <= lengths.unsqueeze(1))
        places, tokens = _pad(lengths, n_rows), _pad(tokens, n_rows)
        cos, sin = self._cos[places], self._sin[places]  # (n, H + 2 K, E)
        x = self._embedding[tokens]  # (n, D)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            q, kv = self._project(layer, x, cos, sin, self._product)
            kept[:, rows, :, lengths] = kv if n == n_rows else kv[:n]
            read = attend(q if n == n_rows else q[:n], *kept[:, :n, :, :n_keys])  # (n, D)
            x = self._finish(layer, x, _pad(read, n_rows), self._product)
        return self._logits(x)[:n]

    def _native_step(self, decoder: Decoder) -> "native.NativeStep | None":
        """A step in one call, where that can be had."""
        if self.dtype != torch.float32 or not native.fits(self.config) or (library := native.decode_library()) is None:
            return None
        rotary, half = decoder.model.rotary, self.config.d_head // 2
        layers = [
            (one.attention_norm, one.qkv.t(), one.output.t(), one.mlp_norm, one.gate_up.t(), one.down.t())
            for one in self._layers
        ]
        rest = (self._embedding, self._norm, self._head.t(), rotary.cos[:, :half], rotary.sin[:, :half])
        return native.NativeStep(library, self.config, layers, rest, torch.get_num_threads())

    def _project(
        self, layer: "_Layer", x: Tensor, cos: Tensor, sin: Tensor, product: "_Product"
    ) -> tuple[Tensor, Tensor]:
        """(T, D) to turned queries (T, H, E) and, together, turned keys and values (T, 2, K, E)."""
        heads = product(self._normalised(x, layer.attention_norm), layer.qkv).view(cos.shape)  # (T, H + 2 K, E)
        heads = torch.addcmul(heads * cos, heads.roll(self.config.d_head // 2, dims=-1), sin)
        q, kv = heads.split((self.config.n_heads, 2 * self.config.n_kv_heads), dim=1)
        return q, kv.unflatten(1, (2, -1))

    def _attention(self, seen: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """How one query a row (n, H, E) reads keys and values (n, K, S, E), to (n, D); ``seen`` is (n, S).

        The fused kernel begins a team of threads for every call. On a CPU three products without one are faster for a single
        query, as long as every query head has keys of its own: several to a product would be other blocks of rows.
        """
        n, n_keys = seen.shape
        if self.device.type != "cpu" or self._grouped:
            mask = seen.view(n, 1, 1, n_keys)
            kernel = F.scaled_dot_product_attention
            return lambda q, k, v: kernel(q.unsqueeze(2), k, v, attn_mask=mask, enable_gqa=self._grouped).flatten(1)
        n_heads, d_head = self.config.n_heads, self.config.d_head
        bias = torch.zeros(n, n_keys, dtype=self.dtype).masked_fill_(~seen, -torch.inf)
        bias = bias.repeat_interleave(n_heads, dim=0).unsqueeze(1)  # (n H, 1, S)

        def read(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = q.reshape(n * n_heads, 1, d_head), k.flatten(0, 1), v.flatten(0, 1)
            scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=d_head**-0.5).softmax(dim=-1)  # (n H, 1, S)
            return torch.bmm(scores, v).view(n, n_heads * d_head)

        return read

    def _finish(self, layer: "_Layer", x: Tensor, read: Tensor, product: "_Product") -> Tensor:
        """What was read from the keys, and the feed-forward part, added to (T, D)."""
        x = x + product(read, layer.output)
        gate, up = product(self._normalised(x, layer.mlp_norm), layer.gate_up).chunk(2, dim=1)
        return x + product(F.silu(gate).mul_(up), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        return self._product(self._normalised(x, self._norm), self._head).float()

    def _normalised(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.dtype == torch.float32:
            return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)
        return F.rms_norm(x.float(), weight.shape, weight, self.config.norm_eps).type_as(x)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """(n, inputs) times (inputs, outputs), in blocks of rows whose number makes no difference."""
        most = self._rows.get(weight.shape)
        if most is None or len(x) <= most:
            return torch.mm(x, weight)
        return torch.cat([torch.mm(part, weight) for part in x.tensor_split(-(-len(x) // most))])

    def _padded(self, n: int) -> int:
        """Rows of a step of n requests: never one, which other kernels take, nor what no blocks can be made of."""
        if not self._rows:
            return n
        return max(n + n % 2 if min(self._rows.values()) == _FEWEST_ROWS else n, _FEWEST_ROWS)


class _Layer:
    """The weights of a block, fused; matrices as (inputs, outputs), views of what a linear layer holds."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, mlp = block.self_attn, block.mlp
        assert isinstance(attention, Attention), "a block attends"
        assert isinstance(mlp, SwiGLU), "a block has a feed-forward part"
        self.attention_norm = block.input_layernorm.weight.detach().float()
        self.mlp_norm = block.post_attention_layernorm.weight.detach().float()
        self.qkv = _joined(dtype, attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = _joined(dtype, attention.o_proj)
        self.gate_up = _joined(dtype, mlp.gate_proj, mlp.up_proj)
        self.down = _joined(dtype, mlp.down_proj)


def _turns(decoder: Decoder, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines for every place and head of queries, keys and values, each (max_len, H + 2 K, E).

    Values are not turned, so theirs are 1 and 0: one product for all heads is cheaper than taking them apart. The first half of
    the sines is negated, and turning is then a roll and two products.
    """
    config, rotary = decoder.config, decoder.model.rotary
    half = config.d_head // 2
    sin = torch.cat((-rotary.sin[:, :half], rotary.sin[:, half:]), dim=1)
    n_turned = config.n_heads + config.n_kv_heads
    shape = (config.max_seq_len, config.n_kv_heads, config.d_head)
    still, nothing = torch.ones(shape, device=sin.device), torch.zeros(shape, device=sin.device)
    cos = torch.cat((rotary.cos.unsqueeze(1).expand(-1, n_turned, -1), still), dim=1)
    return cos.to(dtype), torch.cat((sin.unsqueeze(1).expand(-1, n_turned, -1), nothing), dim=1).to(dtype)


def _plain(x: Tensor, weight: Tensor) -> Tensor:
    """A product of a prompt, which is read alone."""
    return torch.mm(x, weight)


def _joined(dtype: torch.dtype, *projections: nn.Linear) -> Tensor:
    """One matrix (inputs, outputs) that makes the outputs of all, one after the other."""
    weights = [merged_weight(projection).detach().to(dtype) for projection in projections]
    return (weights[0] if len(weights) == 1 else torch.cat(weights)).t()


def _pad(x: Tensor, n_rows: int) -> Tensor:
    """Repeat the last row until there are so many."""
    return x if len(x) == n_rows else torch.cat((x, x[-1:].expand(n_rows - len(x), *x.shape[1:])))


@functools.cache
def _indifferent_rows(shape: torch.Size, dtype: torch.dtype, n_threads: int) -> int:
    """Up to how many rows, from two, a product with such a matrix gives each row the same bits, here and with so many threads.

    Which kernel computes it depends on the shapes alone, so one trial with any numbers tells.
    """
    assert n_threads == torch.get_num_threads(), "what is tried is what is there"
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape[::-1], generator=generator).to(dtype).t()
    x = torch.randn(_MOST_ROWS, shape[0], generator=generator).to(dtype)
    pairs = torch.cat([torch.mm(x[row : row + 2], weight) for row in range(0, _MOST_ROWS, 2)])
    for n in range(_FEWEST_ROWS + 1, _MOST_ROWS + 1):
        if not torch.equal(torch.mm(x[:n], weight)[: n - n % 2], pairs[: n - n % 2]):
            return n - 1
    return _MOST_ROWS
