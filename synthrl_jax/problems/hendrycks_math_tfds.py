"""MATH as a TFDS data set `hendrycks_math` in ArrayRecord files, built from a copy that the user has; needs no TensorFlow."""

from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from synthrl_jax.problems import hendrycks_math


class HendrycksMath(tfds.core.GeneratorBasedBuilder):
    """Splits train and test; rows of id, problem, solution, answer, level (0: not given) and type, in their first order."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "From the original JSON files or JSONL."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = hendrycks_math.HELP

    def _info(self):
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description="Competition problems with worked solutions (Hendrycks et al. 2021).",
            features=tfds.features.FeaturesDict(
                {"id": text, "problem": text, "solution": text, "answer": text, "level": np.int32, "type": text}
            ),
            homepage="https://github.com/hendrycks/math",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(str(dl_manager.manual_dir), split) for split in hendrycks_math.PUBLISHED}

    def _generate_examples(self, source: str, split: str):
        problems, single = hendrycks_math.read_split(source, split)
        if single:
            raise ValueError(f"{source} is one file: the data set needs a train and a test part")
        for number, problem in enumerate(problems):
            yield (
                number,
                {
                    "id": problem.id,
                    "problem": problem.question,
                    "solution": problem.solution,
                    "answer": problem.answer,
                    "level": problem.meta["level"] or 0,
                    "type": problem.meta["type"],
                },
            )


def prepare(source: str, data_dir: str) -> dict[str, int]:
    """Write the data set under `data_dir` from a copy at `source`; rows by split. No network is used.

    FileNotFoundError: no such copy; ValueError: a bad row, by file and line.
    """
    for split in hendrycks_math.PUBLISHED:  # bad rows are told before anything is written
        hendrycks_math.read_split(source, split)
    builder = HendrycksMath(data_dir=data_dir, file_format="array_record")
    settings = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    builder.download_and_prepare(download_config=settings)
    return {split: info.num_examples for split, info in builder.info.splits.items()}
