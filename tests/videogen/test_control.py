"""Controls: neutral where nothing is overridden, composed in order, bound to their rows, and what they keep comes back."""

import dataclasses
from collections import Counter as Counts

import pytest
import torch

from tests import nets
from videogen.conditioning import Conditioning, Dial, stack
from videogen.control import Control, Keep, Pass, Site

DOUBLE = torch.float64
B, F = 2, 3


def network(dtype=DOUBLE):
    return nets.tiny_video_unet(mid=True, dtype=dtype)


def ask(unet, control=None, x=None, **cond):
    """Two rows, named a and b, over a clip of three frames."""
    dtype = unet.conv_in.weight.dtype
    x = nets.clip(B, F, (8, 6), dtype=dtype) if x is None else x
    both = stack(a=nets.condition(dtype=dtype), b=nets.condition(dtype=dtype, seed=5)).replace(**cond)
    return nets.predict(unet, x, both, control)


@dataclasses.dataclass(frozen=True)
class Verb(Control):
    """Adds a number in one verb; counts nothing, keeps nothing."""

    verb: str
    amount: float = 0.5
    kinds: tuple[str, ...] = ("self", "cross", "temporal")

    def qkv(self, site, q, k, v, p):
        return (q, k, v + self.amount) if self.verb == "qkv" and site.kind in self.kinds else (q, k, v)

    def wants_maps(self, site, p):
        return self.verb == "maps" and site.kind in self.kinds

    def maps(self, site, probs, p):
        return probs + self.amount

    def features(self, site, h, p):
        return h + self.amount if self.verb == "features" and site.kind in self.kinds else h


VERBS = ("qkv", "maps", "features")


@pytest.mark.parametrize(
    "control",
    [Control(), Control() >> Control(), Control().on("a"), Control().on("nobody")],
    ids=["one", "two", "row", "no row"],
)
def test_a_control_that_overrides_nothing_changes_nothing(control):
    image = nets.tiny_unet()
    assert torch.equal(ask(image, control)[0], ask(image)[0])
    video = network()
    torch.testing.assert_close(ask(video, control)[0], ask(video)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_acts_and_0_is_its_neutral_element(verb):
    unet = network()
    plain, _ = ask(unet)
    torch.testing.assert_close(ask(unet, Verb(verb, 0.0))[0], plain, rtol=1e-12, atol=1e-12)
    assert ((ask(unet, Verb(verb))[0] - plain).abs().amax((1, 2, 3, 4)) > 1e-3).all()


def test_made_maps_equal_the_fused_way_through_the_whole_network():
    unet = network(torch.float32)
    torch.testing.assert_close(ask(unet, nets.Maps())[0], ask(unet)[0], rtol=0, atol=1e-5)
    unet = network()
    torch.testing.assert_close(ask(unet, nets.Maps())[0], ask(unet)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("verb", VERBS)
def test_controls_act_in_the_order_they_are_written(verb):
    @dataclasses.dataclass(frozen=True)
    class Double(Verb):
        def qkv(self, site, q, k, v, p):
            return (q, k, 2 * v) if self.verb == "qkv" else (q, k, v)

        def maps(self, site, probs, p):
            return 2 * probs

        def features(self, site, h, p):
            return 2 * h if self.verb == "features" else h

    p, h = nets.one_pass(B, F), torch.ones(B, F, 2, 5, 4)
    add, double = Verb(verb), Double(verb)

    def value(control):
        if verb == "qkv":
            return control.qkv(nets.PLACE, h, h, h, p)[2].unique().item()
        return getattr(control, verb)(nets.PLACE, h, p).unique().item()

    assert value(add >> double) == 3
    assert value(double >> add) == 2.5
    assert value(add >> double >> add) == value(add >> (double >> add)) == 3.5
    assert value(add.on("a") >> double) == 2


def test_only_links_that_want_maps_get_them():
    p, probs = nets.one_pass(), torch.zeros(1, F, 2, 5, 5)
    chain = Verb("maps") >> Verb("maps", 10.0, kinds=("cross",))
    assert chain.wants_maps(nets.PLACE, p)
    assert chain.maps(nets.PLACE, probs, p).unique().item() == 0.5
    assert not (Verb("qkv") >> Control()).wants_maps(nets.PLACE, p)


@pytest.mark.parametrize("verb", VERBS)
def test_a_bound_control_acts_on_its_rows_and_no_others(verb):
    unet = network()
    plain, everywhere = ask(unet)[0], ask(unet, Verb(verb))[0]
    bound, _ = ask(unet, Verb(verb).on("b"))
    torch.testing.assert_close(bound[0], plain[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bound[1], everywhere[1], rtol=1e-12, atol=1e-12)
    assert (bound[1] - plain[1]).abs().max() > 1e-3


def test_at_the_layer_the_other_rows_are_left_to_the_bit():
    p = nets.one_pass(3, F, rows=(frozenset("a"), frozenset("ab"), frozenset("b")))
    h = torch.randn(3, F, 2, 5, 4)
    out = Verb("features").on("b").features(nets.PLACE, h, p)
    assert torch.equal(out[0], h[0])
    assert torch.equal(out[1:], h[1:] + 0.5)
    assert torch.equal(Verb("features").on("a", "b").features(nets.PLACE, h, p)[[0, 2]], h[[0, 2]])
    assert not Verb("maps").on("c").wants_maps(nets.PLACE, p)


@pytest.mark.parametrize("verb", VERBS)
def test_gradients_of_a_bound_control_are_those_of_each_row_alone(verb):
    unet, weight = network(), nets.clip(B, F, (8, 6), seed=11, dtype=DOUBLE)
    grads = []
    for control in (None, Verb(verb), Verb(verb).on("b")):
        x = nets.clip(B, F, (8, 6), dtype=DOUBLE).requires_grad_()
        grads.append(torch.autograd.grad((ask(unet, control, x)[0] * weight).sum(), x)[0])
    plain, everywhere, bound = grads
    torch.testing.assert_close(bound, torch.stack([plain[0], everywhere[1]]))


def test_a_bound_control_sees_a_pass_of_its_rows():
    seen: dict[str, Pass] = {}

    class Look(Control):
        def features(self, site, h, p):
            assert h.shape[:2] == (p.b, p.f)
            seen[site.place] = p
            return h

    mask = torch.rand(8, 8)
    ask(
        network(),
        Look().on("b"),
        dials={"motion": (Dial(0.5), Dial(0.25, mask=mask))},
        groups=torch.tensor([[0, 0, 0], [0, 1, 1]]),
    )
    p = seen["conv_in"]
    assert (p.b, p.f, len(p.rows), p.emb.shape[0]) == (1, F, 1, 1)
    assert p.rows == (frozenset("b"),)
    assert torch.equal(p.tokens["text"], nets.condition(dtype=DOUBLE, seed=5).tokens["text"])
    assert p.groups.tolist() == [[0, 1, 1]]
    assert p.strengths["motion"].weight.tolist() == [[0.25] * F]
    assert torch.equal(p.strengths["motion"].mask, mask.expand(1, F, 8, 8))


def test_what_is_kept_comes_back_with_its_gradient_and_changes_nothing():
    unet = network()
    x = nets.clip(B, F, (8, 6), dtype=DOUBLE).requires_grad_()
    out, kept = ask(unet, Keep(lambda site: site.kind == "cross" and site.part == "down"), x)
    torch.testing.assert_close(out, ask(unet)[0], rtol=1e-12, atol=1e-12)
    assert list(kept) == [
        f"down_blocks.{level}.attentions.{i}.transformer_blocks.0.attn2" for level in (0, 1) for i in (0, 1)
    ]
    for name, probs in kept.items():
        places = 8 * 6 // 4 ** int(name.split(".")[1])
        assert probs.shape == (B, F, 2, places, 5)
        torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs[..., 0]))
    energy = sum(probs[..., 0].square().sum() for probs in kept.values())
    assert torch.autograd.grad(energy, x)[0].abs().min() > 0
    reduced = ask(
        unet, Keep(lambda site: site.kind == "cross" and site.part == "down", lambda probs: probs.mean((2, 3))).on("a")
    )[1]
    assert {value.shape for value in reduced.values()} == {(1, F, 5)}
    for name, value in reduced.items():
        torch.testing.assert_close(value, kept[name][:1].mean((2, 3)))


def test_features_at_the_input_of_an_attention_reach_all_that_is_made_of_it():
    """Queries, keys and values of self- and temporal attention; of text attention the queries."""
    silent: dict[str, set] = {}

    class Silence(Control):
        def features(self, site, h, p):
            return 0 * h if ".attn" in site.place else h

        def qkv(self, site, q, k, v, p):
            silent.setdefault(site.kind, set()).add(tuple(bool((x == 0).all()) for x in (q, k, v)))
            return q, k, v

    ask(network(), Silence())
    assert silent == {"self": {(True,) * 3}, "temporal": {(True,) * 3}, "cross": {(True, False, False)}}


class Sites(Control):
    """Writes down every call: the site, and the shapes of the views."""

    def __init__(self):
        self.calls: list[tuple[str, Site, tuple]] = []

    def qkv(self, site, q, k, v, p):
        self.calls.append(("qkv", site, (tuple(q.shape), tuple(k.shape), p.grid(site))))
        return q, k, v

    def features(self, site, h, p):
        self.calls.append(("features", site, tuple(h.shape)))
        return h


def test_views_have_the_promised_shapes_at_every_size():
    sites = Sites()
    nets.predict(nets.tiny_video_unet(mid=True), nets.clip(B, F, (9, 6)), nets.condition(b=B), sites)
    sizes = {0: (9, 6), 1: (5, 3), 2: (3, 2)}
    kinds = set()
    for verb, site, shapes in sites.calls:
        kinds.add((verb, site.kind))
        n = sizes[site.level][0] * sizes[site.level][1]
        width = (8, 16, 16)[site.level]
        if verb == "qkv":
            q, k, grid = shapes
            assert grid == sizes[site.level]
            views = {
                "self": ((B, F, 2, n, width // 2), (B, F, 2, n, width // 2)),
                "cross": ((B, F, 2, n, width // 2), (B, 1, 2, 5, width // 2)),
                "temporal": ((B, n, 2, F, width // 2), (B, n, 2, F, width // 2)),
            }
            assert (q, k) == views[site.kind]
        elif len(shapes) == 4:
            assert shapes == (B, F, n, width)
        else:
            assert shapes[:2] == (B, F)
            width = 8 if site.place.endswith("0.downsamplers.0") else width
            assert site.kind in ("up", "skip") or shapes[2:] == (width, *sizes[site.level])
    assert kinds >= {
        ("features", kind)
        for kind in ("entry", "residual", "transformer", "temporal", "down", "mid", "up", "skip", "self", "cross")
    }


def test_every_address_is_called_once():
    """Attention has two for `features`, its input and its output, and one for `qkv`."""
    sites = Sites()
    nets.predict(nets.tiny_video_unet(mid=True), nets.clip(), nets.condition(), sites)
    for verb in ("qkv", "features"):
        called = [site for name, site, _ in sites.calls if name == verb]
        assert len(set(called)) == len(called)
        ends = [site.end for site in called if ".attn" in site.place]
        assert ends == (["in", "out"] * (len(ends) // 2) if verb == "features" else [""] * len(ends))
        assert len(ends) > 0
        assert {site.end for site in called if ".attn" not in site.place} <= {""}
    encoder = [site.place for name, site, _ in sites.calls if site.kind in ("entry", "down")]
    assert len(encoder) == 1 + 2 * 3 + 2  # conv_in, the layers, the downsamplers: as many as skips
    assert len([site for _, site, _ in sites.calls if site.kind == "skip"]) == len(encoder)


def test_a_control_with_a_schedule_resolves_it_before_the_network_is_entered():
    @dataclasses.dataclass(frozen=True)
    class Fading(Control):
        seen: list

        def at(self, t, frames, times):
            self.seen.append((t, frames, times))
            return Verb("features", t / 1000)

    unet, seen = network(), []
    cond = nets.condition(dtype=DOUBLE).named("a")
    x = nets.clip(1, F, dtype=DOUBLE)
    for control in (Fading(seen), Fading(seen).on("a"), Control() >> Fading(seen)):
        out = nets.given(unet, cond, control, [900.0, 500.0])(x, 500, frames=(4, 5, 6)).out
        torch.testing.assert_close(out, nets.given(unet, cond, Verb("features"))(x, 500).out)
    assert seen == [(500.0, (4, 5, 6), (900.0, 500.0))] * 3


class Counter(Control):
    """Adds to activations, and counts how often it is asked."""

    def __init__(self):
        self.asked = Counts()

    def features(self, site, h, p):
        self.asked[site] += 1
        return h + 0.1


def test_features_is_asked_once_where_activations_are_recomputed():
    """Gradient checkpointing recomputes what lies between: gradients stay the same to the bit, and less is held."""
    unet, results = nets.tiny_video_unet(mid=True), []
    for checkpointing in (False, True):
        unet.set_checkpointing(checkpointing)
        unet.zero_grad()
        control, held = Counter(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, held=held: held.append(x.nbytes) or x, lambda x: x):
            out, _ = nets.predict(unet, nets.clip(2), nets.condition(b=2), control)
        out.square().mean().backward()
        assert set(control.asked.values()) == {1}
        results.append((set(control.asked), sum(held), {name: value.grad for name, value in unet.named_parameters()}))
    (asked, held, grads), (asked2, held2, grads2) = results
    assert asked == asked2
    assert held2 < held
    assert all(torch.equal(grads[name], grads2[name]) for name in grads)


# Dials and controls


def test_a_control_turns_a_dial_of_its_own_when_it_is_resolved():
    """What a method needs of a schedule (a window of steps, weights by frame, sites): `at` reads a `Dial`, the verbs read numbers."""

    @dataclasses.dataclass(frozen=True)
    class FromSource(Control):
        """The target's maps move towards the source's, as far as the dial says."""

        dial: Dial
        weight: torch.Tensor = None

        def at(self, t, frames, times):
            return dataclasses.replace(self, weight=torch.tensor(self.dial.weight(t, frames, times)))

        def wants_maps(self, site, p):
            return (
                site.kind == "cross" and bool(self.weight.any()) and (self.dial.sites is None or self.dial.sites(site))
            )

        def maps(self, site, probs, p):
            source, target = probs
            return torch.stack([source, torch.lerp(target, source, self.weight.to(probs)[:, None, None, None])])

    unet, x, grid = nets.tiny_unet(dtype=DOUBLE), nets.clip(1, F, dtype=DOUBLE), [900.0, 600.0, 300.0]
    cond = stack(source=nets.condition(dtype=DOUBLE), target=nets.condition(dtype=DOUBLE, seed=5))

    def target(dial, t, frames=range(F)):
        return nets.given(unet, cond, FromSource(dial), grid)(x, t, frames)["target"].out

    def plain():
        return nets.given(unet, cond)(x, 300)["target"].out

    window = Dial(steps=(0.0, 0.5))
    torch.testing.assert_close(target(window, 300), plain())
    torch.testing.assert_close(target(window, 600), target(Dial(), 600))
    assert (target(window, 600) - target(Dial(0.0), 600)).abs().max() > 1e-3
    by_frame = target(Dial(frames=[9.0, 0.0, 1.0, 0.5]), 300, (1, 2, 3))
    for i, weight in enumerate((0.0, 1.0, 0.5)):
        torch.testing.assert_close(by_frame[:, i], target(Dial(weight), 300)[:, i])
    torch.testing.assert_close(target(Dial(sites=lambda site: False), 300), plain())


def test_a_part_is_off_at_the_sites_where_its_dial_says_so():
    up = dataclasses.replace(nets.PLACE, part="up")
    dials = {"part": (Dial(sites=lambda site: site.part == "up"), Dial(0.0)), "gone": Dial(0.0)}
    p = nets.one_pass(2, F, strengths=Conditioning(dials=dials).at(0.0, range(F)).strengths)
    assert [p.on("part", up), p.on("part", nets.PLACE), p.on("part")] == [True, False, True]
    assert [p.on("gone", up), p.on("gone"), p.on("other", up)] == [False, False, True]


def test_a_part_that_averages_reads_its_weight_in_the_form_of_what_it_weighs():
    mask = torch.rand(4, 6)
    dials = {"part": (Dial(frames=[0.0, 0.5, 1.0]), None), "masked": (Dial(0.5, mask=mask), None)}
    strengths = Conditioning(dials=dials).at(0.0, range(F)).strengths
    p = nets.one_pass(2, F, strengths=strengths, sizes={0: (2, 3)})
    picture, tokens = torch.randn(2 * F, 5, 2, 3), torch.randn(2 * F, 6, 5)
    small = torch.nn.functional.avg_pool2d(mask[None], 2)[0]
    for h in (picture, tokens):
        ones = [1] * (h.ndim - 1)
        assert (
            p.weight("part", nets.PLACE, h).tolist() == torch.tensor([0, 0.5, 1, 1, 1, 1]).reshape(-1, *ones).tolist()
        )
        torch.testing.assert_close(p.weight("other", nets.PLACE, h) * h, h)
        for name in ("part", "masked"):
            moved = h + p.weight(name, nets.PLACE, h) * (h.cos() - h)
            torch.testing.assert_close(p.add(h, h.cos() - h, name, nets.PLACE), moved)
    torch.testing.assert_close(p.weight("masked", nets.PLACE, picture)[0, 0], 0.5 * small)
    torch.testing.assert_close(p.weight("masked", nets.PLACE, tokens)[0, :, 0], 0.5 * small.flatten())


def test_a_frame_is_alone_where_no_other_has_its_group():
    assert nets.one_pass(2, F).lone() is None
    assert nets.one_pass(2, 1).lone().tolist() == [[True], [True]]
    groups = torch.tensor([[0, 0, 1], [2, 1, 0]])
    assert nets.one_pass(2, F, groups=groups).lone().tolist() == [[False, False, True], [True, True, True]]


class Held(Control):
    """Holds the very tensors it is shown, and what they were."""

    def __init__(self) -> None:
        self.seen: list[tuple[Site, torch.Tensor, torch.Tensor]] = []

    def features(self, site, h, p):
        self.seen.append((site, h, h.clone()))
        return h


def test_without_gradients_no_activation_that_a_control_was_shown_is_written_over():
    """Layers work in place where no gradient is asked for, but only in what nobody else can hold."""
    unet, held = nets.tiny_video_unet(), Held()
    nets.awaken(unet)
    with torch.no_grad():
        ask(unet, held, x=nets.clip(b=1, f=3).float())
    assert len(held.seen) > 20
    for site, shown, was in held.seen:
        assert torch.equal(shown, was), site
