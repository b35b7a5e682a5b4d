"""`prepare`: from the npm packages to the folder that the training reads.

`models/train.py` calls it, with --prepare or --download, on a machine with a network; minutes on
two cores. The invariant: the same vocabulary, seed and count give the same corpus.
"""

from __future__ import annotations

from pathlib import Path

from giffusion.models.training.corpus import draw_corpus
from giffusion.models.training.prepared import save_others, save_prepared
from giffusion.models.training.questions import ask
from giffusion.models.training.sources import FLUENT, NOTO, find_package, read_pictures
from giffusion.models.training.tokens import train_tokenizer
from giffusion.models.training.vocabulary import VOCABULARY, read_vocabulary

NUM_SCENES = 300_000
SEED = 20_261_126


def prepare(
    folder: Path,
    downloads: Path,
    *,
    num_scenes: int = NUM_SCENES,
    seed: int = SEED,
    vocabulary: Path = VOCABULARY,
) -> None:
    """Makes a corpus.

    Args:
        folder: where it is written.
        downloads: where the npm packages are kept.
        num_scenes: number of scenes of the training.
        seed: of everything random.
        vocabulary: file of the words.

    Raises:
        InputError: a package cannot be fetched, or the vocabulary has a mistake.
    """
    words = read_vocabulary(vocabulary)
    pictures = read_pictures(find_package(FLUENT, downloads), words)
    scenes, captions = draw_corpus(words, num_scenes, seed)
    tokenizer = train_tokenizer(captions)
    questions = ask(words, seed)
    names = [word.name for word in words]
    save_others(folder, read_pictures(find_package(NOTO, downloads), words))
    save_prepared(folder, pictures, names, scenes, captions, questions, tokenizer)
