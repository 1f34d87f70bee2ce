"""Which classifiers of torchvision and timm become dense, with what difference to the original.

Every classifier gets random weights and random statistics, so that nothing is equal by chance. Writes
``benchmarks/results/coverage.json`` row by row (an interrupted run goes on where it stopped) and, from it,
``docs/reference/coverage.md``. Run with::

    python benchmarks/coverage.py                  # all of them, about an hour on one core
    python benchmarks/coverage.py resnet18 vgg11   # these again
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn

from fullyconv.errors import SurgeryError
from fullyconv.surgery import compare_with_windows, convolutionalize

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
TABLE = ROOT / "docs" / "reference" / "coverage.md"

# The smallest architecture of each of timm's convolutional families: its module, then the name.
TIMM_CONVOLUTIONAL = """
byobnet: bat_resnext26ts test_byobnet eca_resnext26ts gcresnet33ts gcresnext26ts gernet_s mobileone_s1
byobnet: regnetz_b16 repvgg_a0 resnet32ts resnext26ts seresnet33ts seresnext26ts
convmixer: convmixer_768_32
convnext: convnext_atto convnext_atto_rms convnextv2_atto
cspnet: cs3darknet_focus_s cspdarknet53 cspresnet50 cspresnext50 darknet17 darknetaa53 sedarknet21
cspnext: cspnext_tiny
densenet: densenet121 densenetblur121d
dla: dla46x_c
dpn: dpn48b
efficientnet: efficientnet_b0 tf_efficientnetv2_b0 fbnetc_100 gc_efficientnetv2_rw_t mixnet_s mnasnet_small
efficientnet: mobilenet_edgetpu_100 mobilenetv2_035 mobilenetv1_100 semnasnet_050 spnasnet_100 tinynet_e
fasternet: fasternet_t0
fastvit: fastvit_t8
focalnet: focalnet_tiny_srf
ghostnet: ghostnet_050 ghostnetv2_100 ghostnetv3_050
hardcorenas: hardcorenas_b
hgnet: hgnet_tiny hgnetv2_b0
hrnet: hrnet_w18_small
inception_next: inception_next_atto
inception_resnet_v2: inception_resnet_v2
inception_v3: inception_v3
inception_v4: inception_v4
lcnetv2: lcnetv2_small
mambaout: mambaout_femto
metaformer: convformer_s18 poolformer_s12 poolformerv2_s12
mobilenetv3: fbnetv3_b lcnet_035 mobilenetv3_small_050 mobilenetv4_conv_small_035
nasnet: nasnetalarge
nfnet: eca_nfnet_l0 nf_regnet_b0 nf_resnet26 nfnet_f0
pnasnet: pnasnet5large
rdnet: rdnet_tiny
regnet: regnetv_040 regnetx_002 regnety_002 regnetz_005
repghost: repghostnet_050
repvit: repvit_m1
res2net: res2net50_48w_2s res2next50
resnest: resnest14d
resnet: ecaresnet26t ecaresnetlight ecaresnext26t_32x4d resnet10t resnetaa34d resnetblur18 resnetrs50
resnet: resnext50_32x4d senet154 seresnet18 seresnetaa50d seresnext26t_32x4d seresnextaa101d_32x8d
resnet: wide_resnet50_2
resnetv2: resnetv2_18 resnetv2_50x1_bit
rexnet: rexnet_100 rexnetr_100
selecsls: selecsls42
senet: legacy_senet154 legacy_seresnet18 legacy_seresnext26_32x4d
sknet: skresnet18 skresnext50_32x4d
starnet: starnet_s050
tresnet: tresnet_m
vgg: vgg11 vgg11_bn
vovnet: eca_vovnet39b ese_vovnet19b_slim_dw vovnet39a
xception: legacy_xception
xception_aligned: xception41 xception41p
"""

# Families with attention, tokens or recurrence in the trunk: tried so that the error they give is on record.
TIMM_OTHER = """
beit: beit_base_patch16_224
byoanet: halonet_h1
cait: cait_xxs24_224
coat: coat_tiny
convit: convit_tiny
cpubone: cpubone_nano
crossvit: crossvit_tiny_240
csatv2: csatv2
davit: davit_tiny
deepseek_vit: deepseek_vit_412m
deit: deit_tiny_patch16_224
edgenext: edgenext_x_small
efficientformer: efficientformer_l1
efficientformer_v2: efficientformerv2_s0
efficientvim: efficientvim_m1
efficientvit_mit: efficientvit_b0
efficientvit_msra: efficientvit_m0
eva: eva02_tiny_patch14_224
gcvit: gcvit_xxtiny
gemma4_vit: gemma4_vit_167m
hiera: hiera_tiny_224
hieradet_sam2: sam2_hiera_tiny
iformer: iformer_t
levit: levit_128s
lowformer: lowformer_b0
maxxvit: test_coatnet
metaformer: caformer_s18
mlp_mixer: gmlp_ti16_224
mobilenetv5: mobilenetv5_base
mobilevit: mobilevit_xs
mvitv2: mvitv2_tiny
naflexvit: naflexvit_base_patch16_parfac_gap
nest: jx_nest_tiny
nextvit: nextvit_small
pit: pit_ti_224
pvt_v2: pvt_v2_b0
qwen3_vit: qwen3_vit_88m
sequencer: sequencer2d_s
shvit: shvit_s1
swiftformer: swiftformer_xs
swin_transformer: swin_tiny_patch4_window7_224
swin_transformer_v2: swinv2_tiny_window16_256
swin_transformer_v2_cr: swinv2_cr_tiny_224
tiny_vit: tiny_vit_5m_224
tnt: tnt_s_legacy_patch16_224
twins: twins_svt_small
visformer: visformer_tiny
vision_transformer: test_vit
vision_transformer_hybrid: vit_tiny_r_s16_p8_224
vision_transformer_relpos: test_vit_relpos
vision_transformer_sam: samvit_base_patch16_224
vitamin: vitamin_small_224
volo: volo_d1_224
xcit: xcit_nano_12_p8_224
"""
TORCHVISION_OTHER = ("maxvit", "swin_transformer", "vision_transformer")


@dataclass(frozen=True)
class Row:
    """One classifier; differences are relative to its largest score."""

    library: str
    family: str
    architecture: str
    convolutional: bool
    input_size: tuple[int, int]
    dtype: str
    at_training_size: float | None
    head_on_windows: float | None
    crops: float | None
    padded_layers: int
    global_context: tuple[str, ...]
    refusal: str

    @property
    def tolerance(self) -> float:
        """What float error may amount to."""
        return 1e-9 if self.dtype == "float64" else 1e-4

    @property
    def verdict(self) -> str:
        """What the row shows."""
        if self.refusal:
            return "refused"
        exact, windows, crops = self.at_training_size, self.head_on_windows, self.crops
        assert exact is not None
        assert windows is not None
        assert crops is not None
        if max(exact, windows) > self.tolerance:
            return "DIFFERS"
        if crops <= self.tolerance:
            return "equal on crops"
        return "equal, but for global context" if self.global_context else "equal"


def architectures() -> Iterator[tuple[str, str, str, bool]]:
    """Yield (library, family, architecture, convolutional)."""
    for name in torchvision.models.list_models(module=torchvision.models):
        family = torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
        yield "torchvision", family, name, family not in TORCHVISION_OTHER
    for convolutional, listed in ((True, TIMM_CONVOLUTIONAL), (False, TIMM_OTHER)):
        for line in listed.strip().splitlines():
            family, names = line.split(": ")
            for name in names.split():
                yield "timm", family, name, convolutional


def classifier_of(library: str, name: str) -> tuple[nn.Module, tuple[int, int]]:
    """Build a classifier with its own initial weights, and return its training size."""
    if library == "timm":
        model = timm.create_model(name)
        return model, tuple(model.pretrained_cfg["input_size"][1:])
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 299 if name == "inception_v3" else 224
    return torchvision.models.get_model(name, weights=None, **options), (size, size)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Give norms statistics and weights as after training, and switch on branches that start near zero."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            if part.weight is not None:
                part.weight.normal_(1, 0.2)
    for name, value in model.named_parameters():
        if not name.endswith("bias") and float(value.abs().max()) < 1e-3:
            value.normal_(0, 0.2)


def measure(library: str, family: str, name: str, convolutional: bool) -> Row:
    """Make one classifier dense and compare."""
    torch.manual_seed(0)
    with torch.device("cpu" if convolutional else "meta"):
        model, size = classifier_of(library, name)
    start = (library, family, name, convolutional, size)
    # In double precision float error is far from everything else; the largest models do not fit in it.
    count = sum(parameter.numel() for parameter in model.parameters())
    dtype = torch.float64 if count < 1e8 else torch.float32
    model = model.to(dtype).eval()
    try:
        dense = convolutionalize(model, size)
    except SurgeryError as error:
        return Row(*start, str(dtype).removeprefix("torch."), None, None, None, 0, (), error.given)
    if not convolutional:
        return Row(*start, str(dtype).removeprefix("torch."), None, None, None, 0, (), "NOT REFUSED")
    randomise(model)
    image = torch.randn(1, 3, size[0] + 64, size[1], dtype=dtype)
    with torch.no_grad():
        expected = model(image[..., : size[0], :])
        difference = float((dense(image[..., : size[0], :])[..., 0, 0] - expected).abs().max())
    report = compare_with_windows(dense, model, image, repeats=0)
    return Row(
        *start,
        str(dtype).removeprefix("torch."),
        difference / float(expected.abs().max()),
        float(np.nanmax(report.head_difference)) / report.score_scale,
        float(np.nanmax(report.crop_difference)) / report.score_scale,
        len(report.padded_layers),
        report.global_context,
        "",
    )


def table(rows: list[Row]) -> str:
    """Write the rows as a page."""
    tried = [row for row in rows if row.convolutional]
    good = [row for row in tried if row.verdict.startswith("equal")]
    lines = [
        "# Which classifiers become dense",
        "",
        "Written by `benchmarks/coverage.py`; do not edit. Random weights and statistics of norms,",
        f"torch {torch.__version__.partition('+')[0]}, torchvision "
        f"{torchvision.__version__.partition('+')[0]}, timm {timm.__version__}.",
        "",
        "Differences are the largest over all scores, divided by the largest score:",
        "",
        "- *training size*: the dense network against the classifier on one image of its training size;",
        "- *windows*: each cell against the classifier's head on that window of the feature map;",
        "- *crops*: each cell against the classifier on that crop of the image. It differs where layers read",
        "  zeros beyond the crop's border (*padded* counts them) or look at the whole image (*global*:",
        "  squeeze-and-excite and other gates, group norms).",
        "",
        "*Equal, but for global context*: the head is exact, while those layers see the larger image.",
        "",
    ]
    for library in ("torchvision", "timm"):
        own = [row for row in tried if row.library == library]
        families = {row.family for row in own}
        covered = {row.family for row in good if row.library == library}
        lines += [
            f"## {library}",
            "",
            f"{len([row for row in good if row in own])} of {len(own)} convolutional architectures, "
            f"{len(covered)} of {len(families)} families.",
            "",
            "| family | architecture | training size | windows | crops | padded | global | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_line(row) for row in own),
            "",
        ]
    lines += [
        "## Refused, by the name of the layer",
        "",
        "Families whose trunk mixes positions (attention, tokens, recurrence), one architecture each.",
        "",
        "| family | architecture | what the error says |",
        "| --- | --- | --- |",
        *(f"| {row.family} | {row.architecture} | {row.refusal} |" for row in rows if not row.convolutional),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    numbers = (row.at_training_size, row.head_on_windows, row.crops)
    shown = ["–" if number is None else f"{number:.0e}" for number in numbers]
    verdict = f"refused: {row.refusal}" if row.refusal else row.verdict
    counts = [str(row.padded_layers), str(len(row.global_context))]
    return f"| {' | '.join([row.family, row.architecture, *shown, *counts, verdict])} |"


def read() -> dict[tuple[str, str], Row]:
    """Return the rows measured so far."""
    if not RESULTS.exists():
        return {}
    rows = [
        Row(**{**row, "input_size": tuple(row["input_size"]), "global_context": tuple(row["global_context"])})
        for row in json.loads(RESULTS.read_text())
    ]
    return {(row.library, row.architecture): row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="measure these again; without names, all that are missing")
    names = set(parser.parse_args().names)
    warnings.simplefilter("ignore")
    rows = read()
    for library, family, name, convolutional in architectures():
        if name in names or (not names and (library, name) not in rows):
            row = measure(library, family, name, convolutional)
            rows[library, name] = row
            print(library, name, row.verdict, row.refusal, flush=True)
            ordered = [rows[key] for lib, _, arch, _ in architectures() if (key := (lib, arch)) in rows]
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps([asdict(r) for r in ordered], indent=1) + "\n")
    ordered = [rows[key] for lib, _, arch, _ in architectures() if (key := (lib, arch)) in rows]
    TABLE.write_text(table(ordered))


if __name__ == "__main__":
    main()
