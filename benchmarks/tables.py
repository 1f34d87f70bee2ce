"""Write the measured figures into README and docs, from benchmarks/results/*.json.

python benchmarks/tables.py          # rewrites every `<!-- table NAME -->` … `<!-- end -->` region
python benchmarks/tables.py --check  # exit 1 where a region is not what the results say
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REGION = re.compile(r"(<!-- table ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def nuclei(result: dict[str, Any]) -> str:
    """Return the scores of `nuclei.py`."""
    scores, constant = result["evaluation"], result["evaluation"]["constant_predictor"]
    rows = [
        ("mean IU", scores["mean_iu"], constant["mean_iu"]),
        ("IU of nuclei", scores["class_iu"][1], constant["class_iu"][1]),
        ("pixel accuracy", scores["pixel_accuracy"], constant["pixel_accuracy"]),
        *((f"IU of nuclei, {name} ({part['images']} images)", part["class_iu"][1], 0.0)
          for name, part in result["kinds"].items()),
    ]  # fmt: skip
    lines = ["| validation split, dataset-level | this run | constant predictor |", "|---|---|---|"]
    lines += [f"| {name} | {ours:.3f} | {other:.3f} |" for name, ours, other in rows]
    lines += [
        "",
        f"`{result['command']}`: {result['seconds'] / 60:.0f} minutes, {result['steps']} steps, "
        f"{result['parameters'] / 1e6:.1f} million parameters. {_measured_on(result['machine'])}",
    ]
    return "\n".join(lines)


def accuracy(result: dict[str, Any]) -> str:
    """Return what the recipes of `accuracy.py` reach, beside what was published."""
    lines = ["| recipe | | images | this run (95 %) | mirror images too (95 %) |", "|---|---|---|---|---|"]
    notes = []
    for name, run in sorted(result.items()):
        averaged = run["rows"][run["flips"]]
        for one, many in zip(run["rows"]["none"], averaged, strict=True):
            cells = [_with_interval(one), _with_interval(many) if run["flips"] != "none" else ""]
            lines.append(f"| {name} | {one['what']} | {one['images']} | {' | '.join(cells)} |")
        lines += [
            f"| {name} | *{what}*: {who} | published | {value:.4g}, {where} | |"
            for who, what, value, where in run["published"]
        ]
        notes.append(
            f"- {name}: `{run['command']}`: {run['seconds'] / 60:.0f} minutes, {run['steps']} steps, "
            f"{run['parameters'] / 1e6:.1f} million parameters; mirror images: {run['flips']}. "
            f"{_measured_on(run['machine'])}"
        )
    return "\n".join([*lines, "", *notes])


def packaged(result: dict[str, Any]) -> str:
    """Return the scores of a packaged model, from `packaged.py`."""
    lines = ["| | images | score (95 %) |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['images']} | {_with_interval(row)} |" for row in result["rows"]]
    lines += [
        "",
        f"{result['parameters'] / 1e6:.2f} million parameters, {result['bytes'] / 1e6:.1f} MB, "
        f"{result['steps']} steps; the constant predictor has mean IU {result['constant_mean_iu']:.3f}. "
        f"{_measured_on(result['machine'])}",
    ]
    return "\n".join(lines)


def _with_interval(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['value']:.3f} ({low:.3f} to {high:.3f})"


def camvid(result: dict[str, Any]) -> str:
    """Return the rows of `camvid.py`, and what each finer skip adds."""
    names = {"fcn32s": "FCN-32s", "fcn16s": "FCN-16s", "fcn8s": "FCN-8s", "unet": "U-Net"}
    lines = [
        "| network | trunk | start | mean IU (95 %) | pixel accuracy | seconds | steps | parameters "
        "| multiply-adds | megapixels/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["mean_iu_interval"]
        scores = row["scores"]
        lines.append(
            f"| {names[row['network']]} | {row['backbone'] or 'its own'} "
            f"| {'ImageNet' if row['weights'] else 'random'} "
            f"| {scores['mean_iu']:.3f} ({low:.3f} to {high:.3f}) | {scores['pixel_accuracy']:.3f} "
            f"| {row['seconds']:.0f} | {row['steps']} | {row['parameters'] / 1e6:.2f} M "
            f"| {row['multiply_adds'] / 1e9:.2f} G | {row['megapixels_per_second']:.1f} |"
        )
    lines += ["", "| finer skip | trunk | start | gain in mean IU (95 %, paired) |", "|---|---|---|---|"]
    for gain in result["gains"]:
        low, high = gain["interval"]
        lines.append(
            f"| {names[gain['from']]} → {names[gain['to']]} | {gain['backbone']} "
            f"| {'ImageNet' if gain['weights'] else 'random'} "
            f"| {gain['gain']:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    constant = result["rows"][0]["constant_predictor"]["mean_iu"]
    return "\n".join(
        [
            *lines,
            "",
            f"{result['epochs']} epochs a row, {result['precision']}, seconds with validation; "
            f"{result['images']} validation images; the constant predictor has mean "
            f"IU {constant:.3f}. {_measured_on(result['machine'])}",
        ]
    )


def em_membranes(result: dict[str, Any]) -> str:
    """Return the scores of `em_membranes.py`."""
    scores = result["evaluation"]
    constant = scores["constant_predictor"]
    rows = [
        ("mean IU", scores["mean_iu"], constant["mean_iu"]),
        ("IU of membranes", scores["class_iu"][0], constant["class_iu"][0]),
        ("pixel accuracy", scores["pixel_accuracy"], constant["pixel_accuracy"]),
    ]
    lines = ["| validation sections | U-Net as published | constant predictor |", "|---|---|---|"]
    lines += [f"| {name} | {ours:.3f} | {other:.3f} |" for name, ours, other in rows]
    widths = "/".join(map(str, result["widths"]))
    return "\n".join(
        [
            *lines,
            "",
            f"Widths {widths}, {result['seconds'] / 60:.0f} minutes. {_measured_on(result['machine'])}",
        ]
    )


def vgg16(result: dict[str, Any]) -> str:
    """Return the figures of `vgg16.py`."""
    rows, columns, classes = result["cells"]
    trunk = result["dense_trunk_seconds"] / result["dense_seconds"]
    head = result["windows_head_seconds"] / result["windows_seconds"]
    lines = [
        ("scores of the 384×384 image", f"{rows}×{columns}×{classes}"),
        ("against the head on feature windows", f"{result['head_difference']:.0e} of the largest score"),
        (
            f"against the classifier on crops ({result['padded_layers']} layers pad with zeros)",
            f"{result['crop_difference']:.2f} of the largest score",
        ),
        ("one dense pass", f"{result['dense_seconds']:.2f} s, {trunk:.0%} of it in the trunk"),
        (
            f"{result['windows']} windows in one batch",
            f"{result['windows_seconds']:.2f} s, {head:.0%} of it in the head",
        ),
        ("ratio", f"**{result['speed_up']:.1f}×**; pixels alone give {result['area_ratio']:.2f}×"),
    ]
    table = [
        "| VGG16, 224×224 → 384×384 | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in lines),
    ]
    note = f"Medians of {result['pairs']} pairs, eager float32 torch. {_measured_on(result['machine'])}"
    return "\n".join([*table, "", note])


def metrics(result: dict[str, Any]) -> str:
    """Return the figures of `metrics.py`."""
    lines = [
        f"| {result['size']}² labels, {result['classes']} classes | milliseconds | megapixels/s |",
        "|---|---|---|",
    ]
    for name, seconds in (
        ("`ConfusionMatrix`", result["seconds"]),
        (f"torchmetrics {result['torchmetrics']}", result["torchmetrics_seconds"]),
    ):
        lines.append(f"| {name} | {seconds * 1000:.0f} | {result['size'] ** 2 / seconds / 1e6:.0f} |")
    note = (
        f"Medians of {result['pairs']} pairs, of whose ratios the median is **{result['speed_up']:.1f}×**; "
        f"both count the same. {_measured_on(result['machine'])}"
    )
    return "\n".join([*lines, "", note])


def prediction(result: dict[str, Any]) -> str:
    """Return the rows of `prediction.py`, and the ratios that count."""
    lines = ["| network | image | way | seconds | megapixels/s | of raw |", "|---|---|---|---|---|---|"]
    ratios = []
    for found in result["found"]:
        ways = {way["way"]: way for way in found["ways"]}
        for name, way in ways.items():
            seconds = median(way["seconds"])
            size = "ideal tile" if name.startswith("raw") else f"{found['size']}²"
            share = "–"
            if "overlap_cost" in way:
                raw = ways[f"raw OpenVINO, {way['precision']}"]
                after_halo = median(
                    (theirs / raw["pixels"]) / (ours / way["pixels"] / way["overlap_cost"])
                    for theirs, ours in zip(raw["seconds"], way["seconds"], strict=True)
                )
                share = f"{after_halo:.2f} (halo {way['overlap_cost']:.2f})"
            lines.append(
                f"| {found['network']} | {size} | {name} | {seconds:.2f} "
                f"| {way['pixels'] / seconds / 1e6:.2f} | {share} |"
            )
        monai = ways.get("MONAI sliding window, defaults")
        if monai is not None:
            ratios.append(
                f"{found['network']} on {found['size']}²: "
                + " and ".join(
                    f"**{_times(monai, ways[f'fullyconv, {precision}']):.1f}×** ({precision})"
                    for precision in ("f32", "bf16")
                )
            )
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    loads = ", ".join(f"{found['load']:.0f}" for found in result["found"])
    return "\n".join(
        [
            *lines,
            "",
            f"Faster than MONAI's defaults: {'; '.join(ratios)}. Processes that wanted to run when each part "
            f"began: {loads}. {versions}. {_measured_on(result['machine'])}",
        ]
    )


def _times(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    return median(theirs / ours for theirs, ours in zip(slow["seconds"], fast["seconds"], strict=True))


def files(result: dict[str, Any]) -> str:
    """Return the rows of `files.py`."""
    lines = [
        "| precision | raw megapixels/s | TIFF to TIFF | of raw | computed per pixel | of raw, after halo "
        "| many small images |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rates = {name: 1e-6 / median(values) for name, values in row["seconds_per_pixel"].items()}
        lines.append(
            f"| {row['precision']} | {rates['raw']:.2f} | {row['side']}²: {rates['large']:.2f} megapixels/s "
            f"| {row['ratio']:.2f} | {row['overlap_cost']:.2f} "
            f"| **{row['ratio'] * row['overlap_cost']:.2f}** "
            f"| {row['images']} of {row['images']} sizes: {rates['many']:.2f} megapixels/s |"
        )
    loads = ", ".join(f"{row['load']:.0f}" for row in result["rows"])
    return "\n".join(
        [*lines, "", f"Processes that wanted to run meanwhile: {loads}. {_measured_on(result['machine'])}"]
    )


def gigapixels(result: dict[str, Any]) -> str:
    """Return the rows of `gigapixels.py`."""
    lines = ["| image | gigapixels | peak memory | minutes | megapixels/s |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        pixels = row["side"] ** 2
        lines.append(
            f"| {row['side']:,} × {row['side']:,} | {pixels / 1e9:.1f} | {row['peak_bytes'] / 1e9:.2f} GB "
            f"| {row['seconds'] / 60:.1f} | {pixels / row['seconds'] / 1e6:.0f} |"
        )
    rows = sorted(result["rows"], key=lambda row: row["side"])
    peaks = [row["peak_bytes"] for row in rows]
    more = (rows[-1]["side"] ** 2 - rows[0]["side"] ** 2) / 1e9
    slope = (peaks[-1] - peaks[0]) / 1e6 / more
    widths = " and ".join(map(str, result["widths"]))
    return "\n".join(
        [
            *lines,
            "",
            f"A U-Net of widths {widths}, {result['precision']}, `--max-memory {result['max_memory']}`. The "
            f"highest peak is {max(peaks) / min(peaks) - 1:.1%} above the lowest; from the first row to the "
            f"last {slope:+.1f} MB for each gigapixel. {_measured_on(result['machine'])}",
        ]
    )


def engines(result: dict[str, Any]) -> str:
    """Return the rows of `engines.py`: networks and tiles across, contenders down."""
    columns = list(result["rates"])
    lines = [f"| megapixels/s | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for contender in result["rates"][columns[0]]:
        rates = " | ".join(f"{result['rates'][column][contender]:.2f}" for column in columns)
        lines.append(f"| {contender} | {rates} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['rounds']} rounds; {result['load']:.0f} processes wanted to run when it "
            f"began. {_measured_on(result['machine'])}",
        ]
    )


def cold_start(result: dict[str, Any]) -> str:
    """Return what `cold_start.py` measured, step by step."""
    lines = ["| step | seconds | processor seconds |", "|---|---|---|"]
    for name, taken in result["steps"].items():
        lines.append(f"| {name} | {taken['seconds']:.2f} | {taken['processor_seconds']:.2f} |")
    titles = {
        "again": "`fullyconv predict`",
        "nuclei": "`fullyconv predict --model nuclei`",
        "first": "the first time, with conversion",
    }
    for name, title in titles.items():
        taken = result[name]
        lines.append(f"| **{title}** | {taken['seconds']:.2f} | {taken['processor_seconds']:.2f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['runs']}; {result['load']:.0f} processes wanted to run at the end. "
            f"{_measured_on(result['machine'])}",
        ]
    )


def batching(result: dict[str, Any]) -> str:
    """Return what `batching.py` measured: images per second by their number in a batch."""
    sizes = list(result["rows"][0]["images_per_second"])
    lines = [
        "| network | image | " + " | ".join(f"batches of {size}" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for row in result["rows"]:
        rates = row["images_per_second"]
        shown = [f"{rates[size]:.1f} ({rates[size] / rates[sizes[0]]:.2f}×)" for size in sizes]
        lines.append(f"| {row['network']} | {row['side']}² | {' | '.join(shown)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Images per second, bf16, medians of {result['rounds']}. {_measured_on(result['machine'])}",
        ]
    )


def bounds(result: dict[str, Any]) -> str:
    """Return what `bounds.py` measured of what is promised within a second."""
    lines = ["| what | seconds | processor seconds |", "|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['seconds']:.2f} | {row['processor_seconds']:.2f} |" for row in result["rows"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['runs']} first times in processes of their own; {result['load']:.0f} "
            f"processes wanted to run at the end. {_measured_on(result['machine'])}",
        ]
    )


def cluster_model(result: dict[str, Any]) -> str:
    """Return what `cluster_model.py` computed, and from what."""
    tile = result["tile"]
    lines = [
        f"| a terapixel, {result['workers']:,} workers | measured on one machine | hours |",
        "|---|---|---|",
        f"| workers | {tile['seconds']:.2f} s for a tile of which {tile['kept_pixels'] / 1e6:.2f} megapixels "
        f"are kept | {result['hours']['workers']:.2f} |",
        f"| scheduler | {1e3 * result['scheduler_seconds_per_task']:.1f} ms for a task of "
        f"{result['tiles_per_task']} tiles | {result['hours']['scheduler']:.2f} |",
        f"| client | {1e3 * tile['seconds_marking']:.2f} ms to mark a tile "
        f"| {result['hours']['client']:.2f} |",
        f"| file system | {(tile['bytes_read'] + tile['bytes_written']) / 1e6:.1f} MB a tile, at "
        f"{result['assumed_file_system_bytes_per_second'] / 1e9:.0f} GB/s (assumed) "
        f"| {result['hours']['file system']:.2f} |",
        "",
        f"The {result['bound_by']} bound it; up to about {result['workers_at_which_the_bound_changes']:,.0f} "
        f"such workers make it faster. {_measured_on(result['machine'])}",
    ]
    return "\n".join(lines)


def training_speed(result: dict[str, Any]) -> str:
    """Return the crops a second of `training_speed.py`'s two loops."""
    names = {"plain": "plain loop: float32, eager, one image at a time", "fullyconv": "`fullyconv train`"}
    validation = result["validation"]
    lines = [
        f"| loop | crops/s | of a step's time computing | mean IU after {validation['epochs']} epochs |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {names[name]} | {row['crops_per_second']:.2f} | {row['compute_share']:.1%} "
        f"| {validation['mean_iu'][name]:.3f} |"
        for name, row in result["loops"].items()
    ]
    widths = "/".join(map(str, result["widths"]))
    compiled = {"on": ", compiled", "off": ", eager"}[result["compile"]]
    return "\n".join(
        [
            *lines,
            "",
            f"**{result['faster']:.2f}×**, medians of {len(result['loops']['plain']['turns'])} turns. U-Net "
            f"of widths {widths}, {result['batch']} crops of {result['crop']}² a step; chosen by measuring: "
            f"{result['precision']}{compiled}. {_measured_on(result['machine'])}",
        ]
    )


def training_scaling(result: dict[str, Any]) -> str:
    """Return what `training_scaling.py` computed, and from what."""
    measured, assumed = result["measured"], result["assumed"]
    lines = [
        "| GPUs | batch | step, ms | computing | gradients, of which waited for | agreeing | crops/s "
        "| cores a GPU for crops |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["gpus"]:
        lines.append(
            f"| {row['gpus']:,} | {row['batch']:,} | {1e3 * row['step']:.1f} | {row['efficiency']:.0%} "
            f"| {1e3 * row['reduction']:.2f} ms, {1e3 * row['exposed']:.2f} ms "
            f"| {1e3 * row['agreement']:.2f} ms | {row['crops_a_second']:,.0f} | {row['cores_a_gpu']:.1f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Measured, one process: a step of {measured['batch_of_a_process']} crops "
            f"{measured['step_seconds']:.2f} s, {measured['gradient_bytes'] / 1e6:.1f} MB of gradients "
            f"({measured['parameters'] / 1e6:.1f} million parameters), a crop "
            f"{1e3 * measured['crop_seconds']:.1f} ms, a checkpoint of "
            f"{measured['checkpoint_bytes'] / 1e6:.0f} MB {1e3 * measured['checkpoint_seconds']:.0f} ms, a "
            f"validation {measured['validation_seconds']:.1f} s; two processes: the gradients "
            f"{1e3 * measured['gradient_reduction_seconds_of_two']:.0f} ms (gloo), agreeing "
            f"{1e3 * measured['agreement_seconds_of_two']:.2f} ms. {_measured_on(result['machine'])}",
            "",
            f"Assumed: a GPU computes a step {assumed['gpu_over_this_processor']:.0f} times faster, its "
            f"network moves {assumed['bytes_a_second_of_a_gpu'] / 1e9:.0f} GB/s each way, "
            f"{1e6 * assumed['seconds_of_a_hop']:.0f} µs a hop. Such a GPU could be another "
            f"{result['gpus_may_be_faster']:.1f} times faster before it waited for gradients.",
        ]
    )


def _measured_on(machine: dict[str, Any]) -> str:
    features = ", ".join(machine["features"])
    return f"{machine['threads']} thread(s) of {machine['processor']} ({features}), torch {machine['torch']}."


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "accuracy": accuracy,
    "batching": batching,
    "camvid": camvid,
    "cluster-model": cluster_model,
    "cold-start": cold_start,
    "bounds": bounds,
    "em-membranes": em_membranes,
    "engines": engines,
    "files": files,
    "gigapixels": gigapixels,
    "metrics": metrics,
    "nuclei": nuclei,
    "packaged-nuclei": packaged,
    "prediction": prediction,
    "training-scaling": training_scaling,
    "training-speed": training_speed,
    "vgg16": vgg16,
}


def filled(text: str) -> str:
    """Return a page with every region written anew; regions without results stay as they are."""

    def fill(region: re.Match[str]) -> str:
        results = ROOT / "benchmarks" / "results" / f"{region[2]}.json"
        if not results.exists():
            return region[0]
        return f"{region[1]}{TABLES[region[2]](json.loads(results.read_text(encoding='utf-8')))}\n{region[3]}"

    return REGION.sub(fill, text)


def main() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    stale = [
        page for page in pages if filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")
    ]
    for page in stale:
        print(page.relative_to(ROOT))
        if "--check" not in sys.argv:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
