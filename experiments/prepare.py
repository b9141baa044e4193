"""Write a data set into ArrayRecord files by TFDS, once; the loaders read them without TensorFlow and without a network.

    python -m experiments.prepare hendrycks_math --source=COPY --data_dir=DIR   # from a copy of MATH that you have
    python -m experiments.prepare gsm8k --data_dir=DIR                          # downloads from github.com: needs a network

Then give DIR as `problems.path`. GSM8K's and MATH's own files can be read as they are, too.
"""

import argparse
import json
import socket
import sys
from pathlib import Path

from experiments.settings import UsageError


def prepare(name: str, source: str | None, data_dir: str) -> dict[str, int]:
    """Rows by split. UsageError: what is needed is not there; ValueError: a bad row."""
    if name == "hendrycks_math":
        from synthrl_jax.problems import hendrycks_math, hendrycks_math_tfds

        if not source:
            raise UsageError(f"--source is needed; {hendrycks_math.HELP}")
        return hendrycks_math_tfds.prepare(source, data_dir)
    try:  # TFDS itself would try for minutes
        socket.create_connection(("raw.githubusercontent.com", 443), timeout=5).close()
    except OSError as error:
        from synthrl_jax.problems import gsm8k

        raise UsageError(
            f"raw.githubusercontent.com cannot be reached ({error}); without a network {gsm8k.HELP}"
        ) from None
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text.gsm8k

    builder = tfds.builder("gsm8k", data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return {split: info.num_examples for split, info in builder.info.splits.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", choices=("hendrycks_math", "gsm8k"))
    parser.add_argument(
        "--source", help="for MATH: a folder of the original JSON files, or of train.jsonl and test.jsonl"
    )
    parser.add_argument("--data_dir", required=True, help="where the prepared data set goes")
    parser.add_argument("--json", help="write the rows by split to this file")
    args = parser.parse_args(argv)
    try:
        sizes = prepare(args.data_set, args.source, args.data_dir)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [{"data_set": args.data_set, "split": s, "rows": n, "data_dir": args.data_dir} for s, n in sizes.items()]
    for row in rows:
        print("{data_set} {split}: {rows:,} rows under {data_dir}".format(**row))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
