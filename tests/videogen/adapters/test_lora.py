"""Merging: the table of dialects and targets, parity with peft and diffusers, and the laws of the way back."""

import copy
import json
import re

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from motion_modules.animatediff import MotionConfig, add_motion
from videogen.adapters.lora import Loras
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files, motion_keys

RANK = 3
ALPHA = 6.0

# one layer of each kind, by part and parameter
TARGETS = {
    "attention": ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
    "attention out": ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"),
    "projection": ("unet", "up_blocks.1.attentions.2.proj_in"),
    "convolution": ("unet", "down_blocks.0.resnets.1.conv1"),
    "text": ("text_encoder", "text_model.encoder.layers.1.self_attn.q_proj"),
    "text feed-forward": ("text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
    "motion": ("unet", "up_blocks.0.motion_modules.1.transformer_blocks.0.attn2.to_q"),
    "motion out": ("unet", "down_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_out.0"),
    "second text": ("text_encoder_2", "text_model.encoder.layers.0.self_attn.v_proj"),
    "second text feed-forward": ("text_encoder_2", "text_model.encoder.layers.0.mlp.fc2"),
}


@pytest.fixture(scope="module")
def parts() -> dict[str, nn.Module]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = UNet(UNetConfig(channels=(16, 32), depths=(1, 0), heads=(2, 2), context=8, groups=4))
    add_motion(unet, MotionConfig(channels=(16, 32), heads=2, groups=4, mid=True))
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=100, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    )
    second = CLIPTextModelWithProjection(  # of SDXL's widths, by which a peft file is known to be of it
        CLIPTextConfig(
            vocab_size=4, hidden_size=1280, intermediate_size=5120, num_hidden_layers=1, num_attention_heads=20
        )
    )
    return {"unet": unet, "text_encoder": text, "text_encoder_2": second}


@pytest.fixture
def fresh(parts):
    return {name: copy.deepcopy(module) for name, module in parts.items()}


def load_lora(parts, source, weight=1.0, name=None):
    loras = Loras(parts)
    loras.add(source, weight, name)
    return loras


def weight_of(parts, part, module):
    state = parts[part].state_dict()
    name = f"{module}.weight"
    return state[name if name in state else name.removeprefix("text_model.")]


def factors(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ones = (1,) * (len(shape) - 2)
    down = torch.randn(RANK, *shape[1:], generator=generator)
    return down, torch.randn(shape[0], RANK, *ones, generator=generator)


def kohya(part, module, down, up):
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}[part]
    if motion_keys.is_motion(module):
        module = motion_keys.to_authors(module)[0]
    layer = prefix + module.replace(".", "_")
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": torch.tensor(ALPHA)}


def kohya_te1(part, module, down, up):
    return {key.replace("lora_te_", "lora_te1_"): value for key, value in kohya(part, module, down, up).items()}


def diffusers(part, module, down, up):
    return {f"{part}.{module}.lora_A.weight": down, f"{part}.{module}.lora_B.weight": up}


def diffusers_down_up(part, module, down, up):
    return {f"{part}.{module}.lora.down.weight": down, f"{part}.{module}.lora.up.weight": up}


def diffusers_alpha(part, module, down, up):
    return diffusers(part, module, down, up) | {f"{part}.{module}.alpha": torch.tensor(ALPHA)}


def diffusers_old(part, module, down, up):
    if part.startswith("text_encoder"):
        layer = f"{part}.{module}.lora_linear_layer"
    else:
        head, _, last = module.removesuffix(".0").rpartition(".")
        layer = f"{part}.{head}.processor.{last}_lora"
    return {f"{layer}.down.weight": down, f"{layer}.up.weight": up}


def diffusers_oldest(part, module, down, up):
    return {key.removeprefix("unet."): value for key, value in diffusers_old(part, module, down, up).items()}


def peft(part, module, down, up):
    return {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}


def peft_unprefixed(part, module, down, up):
    """As transformers 5 names the text encoder's layers."""
    return peft(part, module.removeprefix("text_model."), down, up)


def animatediff(part, module, down, up):
    if not motion_keys.is_motion(module):
        return diffusers_oldest(part, module, down, up)  # the domain adapter
    layer = motion_keys.to_authors(f"{module}.weight")[0].removesuffix(".weight").removesuffix(".0")
    head, _, last = layer.rpartition(".")
    return {f"{head}.processor.{last}_lora.down.weight": down, f"{head}.processor.{last}_lora.up.weight": up}


EVERY = tuple(TARGETS)
TEXT = ("text", "text feed-forward", "second text", "second text feed-forward")
ATTENTION = ("attention", "attention out", "motion", "motion out")
# dialect -> (targets, scale). By key list: kohya, diffusers, old processors and peft on UNet and text encoder; AnimateDiff on motion
# and image attention. By rule, no file seen: the others on motion modules, the names without a part before them, alpha beside lora_A.
DIALECTS = {
    kohya: (EVERY, ALPHA / RANK),
    kohya_te1: (TEXT[:2], ALPHA / RANK),
    diffusers: (EVERY, 1.0),
    diffusers_down_up: (EVERY, 1.0),
    diffusers_alpha: (EVERY, ALPHA / RANK),
    diffusers_old: ((*ATTENTION, *TEXT), 1.0),
    diffusers_oldest: (ATTENTION, 1.0),
    peft: (EVERY, 1.0),
    peft_unprefixed: (TEXT, 1.0),
    animatediff: (("motion", "motion out", "attention", "attention out"), 1.0),
}
TABLE = [(dialect, target) for dialect, (targets, _) in DIALECTS.items() for target in targets]


@pytest.mark.parametrize(("dialect", "target"), TABLE, ids=[f"{d.__name__}-{t}" for d, t in TABLE])
def test_dialect_times_target(parts, fresh, dialect, target):
    weight = -0.7
    part, module = TARGETS[target]
    before = weight_of(parts, part, module)
    down, up = factors(before.shape)
    load_lora(fresh, dialect(part, module, down, up), weight)
    scale = DIALECTS[dialect][1]
    wanted = before + weight * scale * (up.flatten(1) @ down.flatten(1)).reshape(before.shape)
    assert torch.allclose(weight_of(fresh, part, module), wanted, rtol=0, atol=1e-5)
    changed = [
        (name, key)
        for name in parts
        for (key, old), new in zip(parts[name].state_dict().items(), fresh[name].state_dict().values(), strict=True)
        if not torch.equal(old, new)
    ]
    assert [(name, key.removeprefix("text_model.")) for name, key in changed] == [
        (part, f"{module}.weight".removeprefix("text_model."))
    ]


# -- parity with the libraries that write such files ----------------------------------------------------------------


def toy() -> nn.Module:
    """Layers under names that a UNet has, so that files of peft are read as those of one."""
    torch.manual_seed(1)
    block = nn.Module()
    block.proj_in = nn.Linear(12, 8)
    block.conv1 = nn.Conv2d(8, 16, 3)
    block.conv_shortcut = nn.Conv2d(8, 16, 1)
    toy = nn.Module()
    toy.mid_block = block
    toy.forward = lambda x: None
    return toy


CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=6, init_lora_weights=False),
    "rslora": LoraConfig(r=4, lora_alpha=6, use_rslora=True, init_lora_weights=False),
    "patterns": LoraConfig(
        r=4, lora_alpha=6, init_lora_weights=False, rank_pattern={"proj_in": 2}, alpha_pattern={"conv1": 3}
    ),
    "overlapping patterns": LoraConfig(
        r=4,
        lora_alpha=6,
        init_lora_weights=False,
        rank_pattern={"proj_in": 2, ".*_in": 3},
        alpha_pattern={"conv1": 3, "mid_block.conv.*": 12},
    ),
    "loha": LoHaConfig(r=4, alpha=6, init_weights=False),
    "loha, tucker": LoHaConfig(r=4, alpha=6, init_weights=False, use_effective_conv2d=True),
    "lokr": LoKrConfig(r=4, alpha=6, init_weights=False, decompose_factor=4),
    "lokr, overlapping patterns": LoKrConfig(
        r=4, alpha=6, init_weights=False, decompose_factor=4, rank_pattern={"conv1": 2, ".*1": 8}
    ),
    "lokr, decomposed": LoKrConfig(r=2, alpha=6, init_weights=False, decompose_factor=2, decompose_both=True),
    "lokr, tucker": LoKrConfig(r=2, alpha=6, init_weights=False, decompose_factor=2, use_effective_conv2d=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_what_peft_merges_from_its_own_files(name, tmp_path):
    config = copy.deepcopy(CONFIGS[name])
    config.target_modules = ["proj_in", "conv1", "conv_shortcut"]
    torch.manual_seed(2)
    model = get_peft_model(toy(), config)
    state = get_peft_model_state_dict(model)
    files.write(tmp_path / "adapter_model.safetensors", state)
    settings = {key: value for key, value in config.to_dict().items() if isinstance(value, (int, float, str, dict))}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    ours = toy()
    load_lora({"unet": ours}, tmp_path)
    theirs = model.merge_and_unload()
    for key, tensor in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], tensor, rtol=1e-5, atol=1e-5), key
    assert not torch.allclose(ours.mid_block.conv1.weight, toy().mid_block.conv1.weight)


def small_unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(3)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=2, cross_attention_dim=16, attention_head_dim=4, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("dialect", [kohya, diffusers], ids=lambda d: d.__name__)
def test_output_equals_that_of_diffusers_with_the_file_loaded(dialect):
    from diffusers import StableDiffusionPipeline

    theirs, ours = small_unet(), small_unet()
    layers = [
        name.removesuffix(".weight")
        for name, _ in ours.named_parameters()
        if re.match(r"(down_blocks\.0|mid_block).*(attn\d\.to_|proj_in|conv1).*weight", name)
    ]
    state = {}
    for i, layer in enumerate(layers):
        down, up = factors(ours.get_parameter(f"{layer}.weight").shape, seed=i)
        state |= dialect("unet", layer, down * 0.05, up * 0.05)
    converted, alphas = StableDiffusionPipeline.lora_state_dict(dict(state))
    StableDiffusionPipeline.load_lora_into_unet(converted, network_alphas=alphas, unet=theirs)
    load_lora({"unet": ours}, state)
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        expected, found = theirs(x, 3, text).sample, ours(x, 3, text).sample
        plain = small_unet()(x, 3, text).sample
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - plain).abs().max() > 1e-2


# -- laws --------------------------------------------------------------------------------------------------------------


def whole_file(parts, seed=0, dialect=diffusers):
    state = {}
    for i, (part, module) in enumerate(TARGETS.values()):
        down, up = factors(weight_of(parts, part, module).shape, seed * 100 + i)
        state |= dialect(part, module, down, up)
    return state


def snapshot(parts):
    return {
        name: {key: tensor.clone() for key, tensor in module.state_dict().items()} for name, module in parts.items()
    }


def equal(one, other):
    return all(torch.equal(one[name][key], other[name][key]) for name in one for key in one[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_taken_out_again_restores_the_weights_bit_for_bit(fresh, dtype):
    for module in fresh.values():
        module.to(dtype)
    before = snapshot(fresh)
    loras = load_lora(fresh, whole_file(fresh, 1), 0.8, "a")
    loras.add(whole_file(fresh, 2), -1.3, "b")
    assert not equal(snapshot(fresh), before)
    loras.remove("a")
    loras.remove("b")
    assert equal(snapshot(fresh), before)
    assert loras.weights == {}


def test_strength_zero_is_the_base_and_strengths_can_be_changed(fresh, parts):
    before = snapshot(fresh)
    loras = load_lora(fresh, whole_file(fresh, 1), 0.0, "a")
    assert equal(snapshot(fresh), before)
    loras.set_weight("a", 0.5)
    half = snapshot(fresh)
    loras.set_weight("a", 2.0)
    loras.set_weight("a", 0.5)
    assert equal(snapshot(fresh), half)
    again = {name: copy.deepcopy(module) for name, module in parts.items()}
    load_lora(again, whole_file(again, 1), 0.5)
    assert equal(snapshot(again), half)
    loras.set_weight("a", 0.0)
    assert equal(snapshot(fresh), before)


def test_order_does_not_matter(parts):
    results = []
    for order in ("abc", "cab"):
        own = {name: copy.deepcopy(module) for name, module in parts.items()}
        loras = Loras(own)
        for name in order:
            loras.add(whole_file(own, ord(name)), ord(name) % 5 - 1.5, name)
        results.append(snapshot(own))
    assert equal(*results)


def test_one_taken_out_of_several_is_as_if_it_never_came(fresh, parts):
    loras = load_lora(fresh, whole_file(fresh, 1), 0.8, "a")
    loras.add(whole_file(fresh, 2), 0.4, "b")
    loras.remove("a")
    only = {name: copy.deepcopy(module) for name, module in parts.items()}
    load_lora(only, whole_file(only, 2), 0.4, "b")
    assert equal(snapshot(fresh), snapshot(only))


def test_strength_a_then_minus_a_restores_the_weights_to_rounding(fresh):
    before = snapshot(fresh)
    loras = load_lora(fresh, whole_file(fresh, 1), 0.9, "a")
    loras.add(whole_file(fresh, 1), -0.9, "b")
    after = snapshot(fresh)
    for name in before:
        for key in before[name]:
            assert torch.allclose(after[name][key], before[name][key], rtol=0, atol=2e-6)


def test_fused_weights_stay(fresh):
    loras = load_lora(fresh, whole_file(fresh, 1))
    merged = snapshot(fresh)
    loras.fuse()
    assert equal(snapshot(fresh), merged)
    assert loras.weights == {}


def test_files_from_disk_take_their_names_and_say_what_they_are(fresh, tmp_path):
    files.write(tmp_path / "watercolour.safetensors", whole_file(fresh, 1, kohya))
    loras = load_lora(fresh, tmp_path / "watercolour.safetensors", 0.5)
    assert loras.weights == {"watercolour": 0.5}
    assert loras.lines == (
        f"watercolour: LoRA, kohya layout, rank {RANK}, changes text_encoder 2, text_encoder_2 2, unet 6 layers",
    )


PEFT = peft("unet", "mid_block.proj_in", torch.ones(2, 12), torch.ones(8, 2))
ASSUMED = "; alpha is not in the file and was taken as the rank"


@pytest.mark.parametrize("targets", [None, ["proj_in", "conv1"], r"mid_block\..*", "all-linear"])
def test_alpha_beside_a_peft_file_is_read_whatever_the_file_is_called(tmp_path, targets):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 16, "target_modules": targets}))
    merged = []
    for name in ("adapter_model", "my_style"):
        files.write(tmp_path / f"{name}.safetensors", PEFT)
        own = toy()
        loras = load_lora({"unet": own}, tmp_path / f"{name}.safetensors")
        assert ASSUMED not in loras.lines[0]
        merged.append(own.mid_block.proj_in.weight)
    assert torch.equal(*merged)
    assert torch.allclose(merged[0], toy().mid_block.proj_in.weight + 16 / 2 * 2)


@pytest.mark.parametrize("targets", ["absent", ["conv1"], r"conv.*", "("])
def test_a_peft_file_without_its_alpha_says_so(tmp_path, targets):
    if targets != "absent":  # the settings of another file, which lies in the same folder
        settings = {"r": 2, "lora_alpha": 16, "target_modules": targets}
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    files.write(tmp_path / "my_style.safetensors", PEFT)
    own = toy()
    loras = load_lora({"unet": own}, tmp_path / "my_style.safetensors")
    assert loras.lines == (f"my_style: LoRA, peft layout, rank 2, changes unet 1 layers{ASSUMED}",)
    assert torch.allclose(own.mid_block.proj_in.weight, toy().mid_block.proj_in.weight + 2)
    told = PEFT | {"base_model.model.mid_block.proj_in.alpha": torch.tensor(4.0)}
    assert ASSUMED not in load_lora({"unet": toy()}, told).lines[0]
    by_rule = diffusers("unet", "mid_block.proj_in", torch.ones(2, 12), torch.ones(8, 2))
    assert ASSUMED not in load_lora({"unet": toy()}, by_rule).lines[0]


def test_the_rank_of_hadamard_and_kronecker_files_is_said():
    def ones(layer, **factors):
        return {f"lora_unet_mid_block_{layer}.{name}": torch.ones(shape) for name, shape in factors.items()}

    loha = ones("proj_in", hada_w1_a=(8, 3), hada_w1_b=(3, 12), hada_w2_a=(8, 3), hada_w2_b=(3, 12))
    full = ones("proj_in", lokr_w1=(2, 2), lokr_w2=(4, 6))
    lokr = ones("conv_shortcut", lokr_w1=(2, 2), lokr_w2_a=(8, 4), lokr_w2_b=(4, 4))
    lora = ones("conv_shortcut", **{"lora_down.weight": (5, 8), "lora_up.weight": (16, 5)})
    for state, said in ((loha, "3"), (full, "full"), (lokr, "4"), (full | lokr, "4 and full"), (loha | lora, "3 to 5")):
        assert f", rank {said}, changes unet" in load_lora({"unet": toy()}, state).lines[0]


def test_a_motion_lora_goes_onto_modules_without_a_middle(fresh):
    unet = UNet(UNetConfig(channels=(16, 32), depths=(1, 0), heads=(2, 2), context=8, groups=4))
    add_motion(unet, MotionConfig(channels=(16, 32), heads=2, groups=4, mid=False))
    state = {}
    for place in ("mid_block.motion_modules.0", "down_blocks.1.motion_modules.0"):
        state |= animatediff("unet", f"{place}.transformer_blocks.0.attn1.to_q", torch.ones(2, 32), torch.ones(32, 2))
    loras = load_lora({"unet": unet}, state)
    assert loras.lines[0].endswith("changes unet 1 layers; 1 changes of a middle module that this model has not")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_names_the_first_and_changes_nothing(fresh, manifests):
    before = snapshot(fresh)
    part, module = TARGETS["attention"]
    good = kohya(part, module, *factors(weight_of(fresh, part, module).shape))
    away = module.replace("down_blocks.0", "down_blocks.7")
    motionless = UNet(UNetConfig(channels=(16, 32), depths=(1, 0), heads=(2, 2), context=8, groups=4))
    motion = {"unet": motionless}
    nan = {key: torch.full_like(tensor, torch.nan) if "lora_up" in key else tensor for key, tensor in good.items()}
    sdxl = {key: torch.ones(()).expand(shape) for key, shape in manifests["sdxl_lora_kohya_r8"].items()}
    cases = [
        (
            fresh,
            good | kohya(part, away, *factors((16, 8))),
            r"changes down_blocks\.7\.attentions.*, which the unet does not have",
        ),
        (
            fresh,
            good | kohya(part, TARGETS["projection"][1], *factors((9, 9))),
            r"does not fit up_blocks\.1\.attentions\.2\.proj_in",
        ),
        ({"unet": fresh["unet"]}, whole_file(fresh, 1), "changes text_encoder, which this model does not have"),
        (
            motion,
            animatediff("unet", TARGETS["motion"][1], *factors((32, 32))),
            "changes motion modules, and this model has none",
        ),
        (fresh, nan, r"lora_up\.weight holds NaN"),
        (fresh, sdxl, "this looks like: LoRA, kohya layout, for SDXL"),
    ]
    for own, state, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            load_lora(own, state)
        assert "\n" not in str(caught.value)
    assert equal(snapshot(fresh), before)


def test_names_are_unique_and_known(fresh):
    loras = load_lora(fresh, whole_file(fresh, 1), 1.0, "a")
    with pytest.raises(InputError, match="a LoRA of the name 'a' is already in"):
        loras.add(whole_file(fresh, 2), 1.0, "a")
    with pytest.raises(InputError, match="no LoRA of the name 'b'; those that are in: a"):
        loras.remove("b")
