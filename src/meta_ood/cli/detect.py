"""Commands for the images and score maps of users, and for benchmark servers."""

from functools import partial
from pathlib import Path

import click

from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FILE, EXISTING_FOLDER, FILE, FOLDER, PATH

_folder = partial(click.option, required=True, type=EXISTING_FOLDER)


@click.command()
@click.argument("images", nargs=-1, type=PATH)
@click.option("--detector", type=FOLDER, help="Folder of a detector: data/detectors/NETWORK/VARIANT, say.")
@click.option("--demo", is_flag=True, help="Three drawn photos and a small detector, which the package carries.")
@options.out_option("outputs/detect", "Folder to write into.")
@options.device
@options.as_json
def detect(images: tuple[Path, ...], detector: Path | None, demo: bool, out: Path, device: str, as_json: bool) -> None:
    """Find OoD segments in IMAGES (files and folders) and decide for each: real or false alarm.

    Writes for each image the masks before and after meta classification, an overlay, the classes and a JSON list of
    segments with the reasons. Run it again to go on where it stopped. To try it: meta-ood detect --demo

    Exit code 3: some images could not be read; the others are done.
    """
    if demo == bool(images or detector):
        raise click.UsageError("give IMAGES and --detector FOLDER, or --demo alone")
    if demo:
        from meta_ood.detector import demo as carried

        images, detector = (carried.PHOTOS,), carried.DETECTOR
    if not images or detector is None:
        raise click.UsageError(f"{'--detector FOLDER' if images else 'IMAGES'} is missing; to try it: --demo")
    from meta_ood.detector.detector import UNLIKE, Detector
    from meta_ood.detector.images import COUNTED, detect_images, find_images

    find_images(images)  # reports a wrong path before the network is loaded
    loaded = Detector.load(detector, device)
    counts, doubts = detect_images(images, loaded, out)
    lines: list[str] = []
    if demo:
        from meta_ood.data.files import write_bytes
        from meta_ood.data.overlays import encode_png

        lines += carried.report(out)
        write_bytes(out / carried.PICTURE, encode_png(carried.picture(out)))
        lines.append(f"photos and overlays, kept segments orange, removed ones blue: {out / carried.PICTURE}")
    found = "{images} images, {segments} segments, {removed} of them removed as false alarms".format_map(counts)
    lines.append(f"{found}: {out}")
    if promise := loaded.settings.promise:
        lines.append(f"{counts['alarm']} images raise an alarm; promised on ordinary frames: {promise.text}")
    lines += [f"check the promise: {doubt}" for doubt in doubts]
    if counts["unlike"]:
        lines.append(
            f"{counts['unlike']} segments are unlike those that the meta classifier was fitted on "
            f"(a feature beyond {UNLIKE:g} standard deviations): its decisions on them are unsure"
        )
    if counts["unreadable"]:
        lines.append(f"{counts['unreadable']} images could not be read, see the messages above")
    told = {"out": str(out), "promise": promise.text if promise else None, "doubts": doubts}
    options.answer(as_json, {key: counts[key] for key in COUNTED} | told, "\n".join(lines))
    if counts["unreadable"]:
        raise SystemExit(3)


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=5001, help="Port to listen on.")
def serve(model: str, host: str, port: int) -> None:
    """Answer images with OoD segments over HTTP; the protocol is that of `mlflow models serve`.

    MODEL is a detector's folder, or what MLflow calls a model URI, such as models:/deeplabv3plus_mini@champion. Limits
    of a request are environment variables, see docs/serve.md.
    """
    import uvicorn

    from meta_ood.tracking import served

    uvicorn.run(served.application(model), host=host, port=port)


@click.command()
@_folder("--scores", help="Folder of score maps (npy, npz, HDF5, tif or png); higher = more OoD.")
@_folder("--targets", help="Folder of targets (png, npy or tif), paired with the score maps by name.")
@click.option(
    *("--protocol", "protocols"),
    multiple=True,
    default=("exact",),
    help="exact, published, fishyscapes, smiyc, per_image_mean, or all; repeatable.",
)
@click.option(
    "--encoding", default="binary", help="Of the targets. binary: 0 known, 1 OoD, 255 void. meta-ood: docs/formats.md."
)
@click.option("--score-end", default="", help="End of the score maps' names, to be ignored.")
@click.option("--target-end", default="", help="The same of the targets: _labels_semantic, say.")
@click.option("--track", default=None, help="Component metrics too: anomaly, obstacle or all.")
@click.option("--threshold", type=float, help="Of the score, for component metrics; default: best F1, an oracle.")
@click.option("--threshold-from", type=EXISTING_FILE, help="The same: --out of a call with --track on another set.")
@options.workers
@options.out_option(None, "JSON file.", FILE)
@options.as_json
def evaluate_maps(
    scores: Path,
    targets: Path,
    protocols: tuple[str, ...],
    encoding: str,
    score_end: str,
    target_end: str,
    track: str | None,
    threshold: float | None,
    threshold_from: Path | None,
    workers: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Evaluate score maps of any method, with our definitions or those of a benchmark.

    meta-ood evaluate-maps --scores maps --targets labels --protocol smiyc --track anomaly
    """
    from meta_ood.data.files import write_json
    from meta_ood.evaluation import maps
    from meta_ood.evaluation.summary import plain
    from meta_ood.metrics.component import TRACKS

    if threshold_from:
        if threshold is not None:
            raise click.UsageError("--threshold and --threshold-from exclude each other")
        threshold = maps.chosen_threshold(threshold_from)
    if threshold is not None and not track:
        raise click.UsageError("a threshold is for component metrics: give --track too")
    protocols = tuple(maps.OF_MAPS) if "all" in protocols else protocols
    options.check_names("protocol", maps.OF_MAPS, *protocols)
    options.check_names("encoding", maps.ENCODINGS, encoding)
    options.check_names("track", TRACKS, *([track] if track else []))
    # score maps and targets belong together by their names
    pairs = maps.pair_files(scores, targets, score_end, target_end)
    found = maps.evaluate_maps(pairs, protocols, encoding=encoding, track=track, threshold=threshold, workers=workers)
    result = plain(found)
    # written before it is printed: a terminal that lacks a character must not lose the result.
    if out:
        write_json(out, result)
    options.answer(as_json, result, maps.maps_text(result))


@click.command()
@click.argument("benchmark")
@options.network
@options.variant
@options.dataset
@click.option("--score", help="Default: segments.score of the params file.")
@options.params_file
@click.option("--to", type=FOLDER, help="Default: outputs/submissions/BENCHMARK/NETWORK/VARIANT/DATASET.")
def submit(
    benchmark: str, network: str, variant: str, dataset: str, score: str | None, params_file: Path, to: Path | None
) -> None:
    """Write score maps of stored predictions in the format of a benchmark.

    BENCHMARK is fishyscapes or segment_me_if_you_can.
    """
    from meta_ood import config
    from meta_ood.data import prediction_files
    from meta_ood.data.context import progress
    from meta_ood.evaluation import submissions
    from meta_ood.pipeline.paths import stage_paths
    from meta_ood.scores import find_score

    params = config.load(params_file)
    paths = stage_paths("segments", params, network=network, variant=variant, dataset=dataset)
    name = score or params.segments.score
    options.check_names("benchmark", submissions.FORMATS, benchmark)
    find_score(name)
    predictions = prediction_files.open_predictions(paths.inputs["predictions"])
    folder = to or Path("outputs/submissions", benchmark, network, variant, dataset)
    numbers = submissions.frame_numbers([path.stem for path in predictions.paths])
    frames = zip(numbers, predictions, strict=True)
    for number, prediction in progress(frames, "submit", len(predictions)):
        submissions.submit(prediction, number, name, benchmark, folder)
    click.echo(f"{len(predictions)} frames in {folder}")
