"""The keys of what this package writes beside pixels: JSON, CSV, headers of images. One table.

The convention:

- A key is in lower case, words joined by underscores. Names of things (metrics, methods, scenes,
  buffers, settings) keep their own spelling where they are keys.
- One idea has one key everywhere, and a key has one meaning. JSON and CSV have the same keys.
- A time is in seconds and its key says so, ``render_seconds``. ``seconds`` alone is a budget.
- ``spp`` is samples per pixel. Numbers of things count from 0, as in names of files.
- The standard error of a metric is in ``standard_errors`` under its name; as a column of CSV it
  is ``NAME.standard_error``.
- ``null``, or an empty cell, is what is not known or does not exist.

docs/reference/keys.md is made of this table, and tests hold what is written against it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Kinds of files: what they are called in the table, and what is meant.
FILES = {
    "image": "header of an EXR file, each key after `mitsuba_gdpt.`",
    "job": "record of `batch`: `NAME.json` beside `NAME.exr`",
    "sequence": "`sequence.json` of `render --fly-through`",
    "results": "`results.json`, `results.csv`, `summary.csv` of `evaluate` and `dataset evaluate`, "
    "and what they keep beside: `cells`, `timing`, `costs`, `views`",
    "set": "attributes of a crop set (`zarr.json`), `frames.json` of a frame set",
    "run": "`run.json`, `losses.jsonl`, `validation/*.json` of a training",
    "weights": "metadata of `*.safetensors`",
}


@dataclass(frozen=True)
class Key:
    """A row of the table.

    Attributes:
        name: The key.
        files: Kinds of files that have it.
        meaning: Of its value, in one line.
        names: How many levels of the tables in its value have names of things as keys; -1: all.
    """

    name: str
    files: tuple[str, ...]
    meaning: str
    names: int = 0


def _table() -> tuple[Key, ...]:
    rows: tuple[tuple[str, str, str] | tuple[str, str, str, int], ...] = (
        # Where something comes from.
        ("provenance", "results set run", "what made it: the keys from `version` to `date`"),
        (
            "version",
            "image results run sequence set",
            "of this package; beside `format`, of that",
        ),
        ("sources", "image job results run sequence set", "hash of the code that pixels depend on"),
        ("commit", "results set run weights", "of the checkout, where there was one"),
        ("libraries", "results set run weights", "names and versions"),
        ("machine", "results set run", "processor and number of threads"),
        ("date", "results run", "UTC"),
        ("command", "results", "line that was run"),
        ("variant", "image job results set sequence", "of Mitsuba"),
        ("fingerprint", "job results", "hash of all that the result depends on"),
        ("render_key", "image job sequence", "hash of all that the render depends on"),
        ("files", "job results", "size and checksum of the files that belong to it, by path", 1),
        ("format", "set", "name of the format"),
        ("format_version", "weights", "of the metadata"),
        # What is looked at.
        ("scene", "image job results sequence", "name of the scene or sequence"),
        ("scene_hash", "image sequence set", "of the scene's own file"),
        ("scene_files", "image sequence set", "hashes of what it includes and names, by name", 1),
        ("scene_contents", "set", "the keys `scene_hash` and `scene_files`, by scene", 1),
        ("source", "image job", "file of the scene, or `builtin:NAME`"),
        ("split", "image", "`train` or `test`"),
        ("sensor", "image job", "number of the camera in the scene"),
        ("frame", "image", "number in its sequence"),
        ("cameras", "sequence", "of the frames: the fields of `scenes.Camera`", -1),
        ("camera_to_world", "image", "4 x 4 matrix, JSON, row by row"),
        ("camera_to_pixel", "image", "3 x 3 matrix, JSON, row by row"),
        ("camera_near", "image", "distance along the axis at which rays start"),
        ("parameters", "image job sequence", "of the scene, or of the integrator", -1),
        ("width", "job results", "of the image in pixels"),
        ("height", "job results", "of the image in pixels"),
        ("size", "sequence", "width and height in pixels"),
        ("pixels", "results", "of the image"),
        ("crop", "results", "number of the crop in its scene"),
        ("level", "results", "number of the noisy render, fewest samples first; `all` for all"),
        ("exposure_stops", "image sequence", "brightness that suits the scene, in stops"),
        ("exposure", "job", "stops on top of that"),
        ("converted_from", "image", "channels that had other names in the file that was read"),
        # How it is rendered.
        ("integrator", "image job", "with its parameters; in a record, its label"),
        ("domain", "results", "`gradient` or `primal`; at equal total time, the integrator"),
        ("spp", "image job results sequence", "samples per pixel; in `records`, the budget"),
        ("rendered_spp", "results", "samples per pixel of the method's own input"),
        ("primal_spp", "results", "samples per pixel of path tracing in the same time"),
        ("seed", "image job results sequence", "of the samples; in `records`, its number"),
        ("passes", "image", "`seed:spp:shifts` of each pass, separated by blanks"),
        ("adaptive", "image", "JSON: what an unfinished adaptive render needs to go on"),
        ("shifts", "sequence", "offset paths per sample"),
        ("budget", "sequence", "the keys `seconds` and `spp`"),
        ("settings", "job results", "as they were given, by their names", -1),
        ("variances", "image", "whether variances were recorded"),
        # How it is reconstructed.
        ("method", "image job results sequence", "call of the reconstruction, with its options"),
        ("pair", "results", "integrator and method, as `method` of a record at equal total time"),
        ("denoiser", "job", "label of the method in the batch"),
        ("quality", "sequence", "level that chooses the method"),
        # Times.
        ("seconds", "job results sequence", "budget of render and reconstruction"),
        ("render_seconds", "image job results", "median of renders; of a sequence, per frame"),
        ("denoise_seconds", "image job results sequence", "of a sequence, the mean per frame"),
        ("first_seconds", "job", "of what is compiled and loaded once"),
        ("primal_render_seconds", "results", "of `primal_spp` samples"),
        ("fixed_seconds", "results", "of a render, besides its samples"),
        ("seconds_per_spp", "results sequence", "of one sample per pixel; of a sequence, by frame"),
        ("spent_seconds", "sequence", "of the budget so far"),
        ("repeats", "results", "measurements that a median is taken from"),
        ("costs", "results", "seconds of each pair in each scene", 2),
        # Errors.
        ("records", "results", "one entry per method, scene, budget and seed, or stored render"),
        ("metrics", "job results", "value of each metric", 1),
        ("standard_errors", "job results", "of the metrics that are estimates", 1),
        ("error", "results", "what went wrong, in one line"),
        ("references", "results", "what each scene was compared with", 1),
        ("file", "results", "path of the reference"),
        ("sha256", "results", "first 12 digits of the hash of a file"),
        ("noise", "results", "relMSE that the reference has by itself"),
        ("max_depth", "results", "longest path"),
        ("skipped", "results", "why a pair does not go together", 1),
        ("summary", "results", "means of stored renders"),
        ("crops", "results", "that a mean is over"),
        ("renders", "results", "that a mean is over"),
        ("failed", "results", "how many of these"),
        # Batches.
        ("job", "job", "what was to be made: the keys from `scene` to `png` of this kind"),
        ("fly_through", "job", "frames of a sequence; `null` for an image"),
        ("span", "job", "part of the fly-through that they cover, of 0 to 1"),
        ("output", "job", "EXR file, or folder of a sequence"),
        ("reference", "job", "files that errors are against"),
        ("png", "job", "whether a PNG is written"),
        # Sequences.
        ("described", "sequence", "what is rendered: another call has to describe the same"),
        ("share", "sequence", "spp of each frame after its first passes"),
        ("rounds", "sequence", "spp of each frame at the end of each round"),
        # Data and training.
        ("plan", "set", "all that pixels depend on, see below", -1),
        ("channels", "set", "names, as in EXR files"),
        ("crops_per_shard", "set", "that are written together"),
        ("config", "run weights", "settings of the training; of weights, of the model", -1),
        ("model", "run", "configuration of the model", -1),
        ("loss", "run", "terms of the loss and their weights; in `losses.jsonl`, its value", 1),
        ("examples", "run weights", "how many to train on (and to validate on)", 1),
        ("step", "run", "number of minibatches so far"),
        ("learning_rate", "run", "of that step"),
        ("name", "weights", "method that they are for"),
        ("tag", "weights", "their version"),
        ("arch", "weights", "architecture"),
        ("recipe", "weights", "JSON of the training settings, and the steps done"),
        ("licence", "weights", "SPDX identifier"),
        ("trained_on", "weights", "names of the data sets"),
        ("trained_with", "weights", "images that the network was shown in training"),
        ("validation", "weights", "JSON: errors on held-out examples, by image and metric"),
    )
    return tuple(Key(row[0], tuple(row[1].split()), *row[2:]) for row in rows)


#: All keys.
TABLE = _table()
