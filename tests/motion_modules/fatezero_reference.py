"""FateZero's network as equations over a state dict with the authors' names, written apart from ours: clips `b c f h w`, no blocks, no folding.

Stable Diffusion 1.x kind: 1x1 convolutions around the tokens, one transformer block each.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange


class Reference:
    """channels and heads by level, `table` the frames that frame i of f reads in self-attention at a width, as lists of places."""

    def __init__(self, state, channels, layers, heads, groups, table):
        self.state, self.channels, self.layers = state, channels, layers
        self.heads, self.groups, self.table = heads, groups, table

    def __call__(self, x, t, text):
        """x `b c f h w`, t a number, text `b n d`."""
        emb = self.time(t, x)
        h, skips = self.conv(x, "conv_in"), []
        skips.append(h)
        levels = len(self.channels)
        for i in range(levels):
            for j in range(self.layers):
                h = self.layer(h, f"down_blocks.{i}", j, emb, text)
                skips.append(h)
            if i < levels - 1:
                h = self.conv(h, f"down_blocks.{i}.downsamplers.0.conv", stride=2)
                skips.append(h)
        h = self.layer(h, "mid_block", 0, emb, text)
        h = self.resnet(h, "mid_block.resnets.1", emb)
        for i in range(levels):
            for j in range(self.layers + 1):
                h = self.layer(torch.cat([h, skips.pop()], 1), f"up_blocks.{i}", j, emb, text)
            if i < levels - 1:
                h = h.repeat_interleave(2, 3).repeat_interleave(2, 4)
                h = self.conv(h, f"up_blocks.{i}.upsamplers.0.conv")
        return self.conv(F.silu(self.norm(h, "conv_norm_out", 1e-5)), "conv_out")

    def has(self, name):
        return any(key.startswith(name + ".") for key in self.state)

    def layer(self, h, block, j, emb, text):
        h = self.resnet(h, f"{block}.resnets.{j}", emb)
        return self.transformer(h, f"{block}.attentions.{j}", text) if self.has(f"{block}.attentions.{j}") else h

    def time(self, t, x):
        half = self.channels[0] // 2
        angles = t * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        emb = torch.cat([angles.cos(), angles.sin()]).to(x).expand(len(x), -1)
        return self.linear(F.silu(self.linear(emb, "time_embedding.linear_1")), "time_embedding.linear_2")

    def linear(self, h, name):
        return h @ self.state[f"{name}.weight"].flatten(1).T + self.state.get(f"{name}.bias", 0)

    def norm(self, h, name, eps):
        """Statistics over all axes of the clip behind the channels."""
        return F.group_norm(h, self.groups, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def conv(self, h, name, stride=1):
        """The picture's convolution frame by frame, then the one along the frames of every place."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        pad = weight.shape[-1] // 2
        h = torch.stack([F.conv2d(frame, weight, bias, stride, pad) for frame in h.unbind(2)], 2)
        if not self.has(f"{name}.conv_temporal"):
            return h
        b, _, _, height, width = h.shape
        lines = rearrange(h, "b c f h w -> (b h w) c f")
        if f"{name}.conv_temporal.weight" in self.state:
            lines = F.conv1d(
                lines, self.state[f"{name}.conv_temporal.weight"], self.state[f"{name}.conv_temporal.bias"], padding=1
            )
        else:
            low = F.conv1d(lines, self.state[f"{name}.conv_temporal.down.weight"], padding=1)
            lines = lines + F.conv1d(low, self.state[f"{name}.conv_temporal.up.weight"], padding=1)
        return rearrange(lines, "(b h w) c f -> b c f h w", b=b, h=height, w=width)

    def resnet(self, h, name, emb):
        x = self.conv(F.silu(self.norm(h, f"{name}.norm1", 1e-5)), f"{name}.conv1")
        x = x + self.linear(F.silu(emb), f"{name}.time_emb_proj")[:, :, None, None, None]
        x = self.conv(F.silu(self.norm(x, f"{name}.norm2", 1e-5)), f"{name}.conv2")
        return x + (self.conv(h, f"{name}.conv_shortcut") if self.has(f"{name}.conv_shortcut") else h)

    def transformer(self, h, name, text):
        """Its first norm is of each frame alone."""
        _, c, f, height, width = h.shape
        x = torch.stack([self.norm(frame, f"{name}.norm", 1e-6) for frame in h.unbind(2)], 1)
        x = self.linear(rearrange(x, "b f c h w -> b f (h w) c"), f"{name}.proj_in")
        block = f"{name}.transformer_blocks.0"
        n = self.layer_norm(x, f"{block}.norm1")
        sources = [torch.cat([n[:, place] for place in row], 1) for row in self.table(c, f)]
        x = x + self.attend(n, torch.stack(sources, 1), f"{block}.attn1")
        x = x + self.attend(self.layer_norm(x, f"{block}.norm2"), text[:, None].expand(-1, f, -1, -1), f"{block}.attn2")
        value, gate = self.linear(self.layer_norm(x, f"{block}.norm3"), f"{block}.ff.net.0.proj").chunk(2, -1)
        x = x + self.linear(value * F.gelu(gate), f"{block}.ff.net.2")
        lines = x.transpose(1, 2)  # every place of the picture for itself
        n = self.layer_norm(lines, f"{block}.norm_temporal")
        x = (lines + self.attend(n, n, f"{block}.attn_temporal")).transpose(1, 2)
        x = self.linear(x, f"{name}.proj_out")
        return h + rearrange(x, "b f (h w) c -> b c f h w", h=height, w=width)

    def layer_norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attend(self, x, source, name):
        q, k, v = (
            rearrange(self.linear(y, f"{name}.{part}"), "a g n (m d) -> a g m n d", m=self.heads)
            for y, part in ((x, "to_q"), (source, "to_k"), (source, "to_v"))
        )
        probs = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.linear(rearrange(probs @ v, "a g m n d -> a g n (m d)"), f"{name}.to_out.0")
