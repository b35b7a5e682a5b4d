"""A trained model whose text encoder learns more phrasings: `train.py --listen`.

The invariant: the given folder is not touched, and all but the text encoder is taken as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from giffusion.engine.errors import InputError
from giffusion.models.training.listening import ListeningOptions, Teacher, teach
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import load_text_encoder
from giffusion.models.training.prepared import load_prepared
from giffusion.models.training.publish import publish_part, replaced
from giffusion.models.training.schedule import Budget

_VOCABULARY = Path("tokenizer") / "tokenizer.json"


def listen(
    model: Path, data: Path, out: Path, machine: Machine, budget: Budget, options: ListeningOptions
) -> None:
    """Teaches the text encoder of a pipeline; the folder with it is `out/model`.

    Args:
        model: a folder that `train.py` wrote.
        data: folder of the corpus that it was trained on.
        out: where the result is written.
        machine: where it runs.
        budget: how long.
        options: how.

    Raises:
        InputError: there is no corpus, the model is none of it, or is where the result would be.
    """
    target = out / "model"
    if target.resolve() == model.resolve():
        raise InputError(f"{model}: the result would replace it: name another --out")
    prepared = load_prepared(data)
    ours, theirs = prepared.tokenizer / _VOCABULARY.name, model / _VOCABULARY
    if not theirs.is_file() or ours.read_bytes() != theirs.read_bytes():
        raise InputError(
            f"{model}: its tokenizer is not that of {data}: name a model and the corpus that it "
            "was trained on"
        )
    encoder = load_text_encoder(model / "text_encoder").to(machine.device)
    teacher = Teacher.of(prepared, options)
    budget.start()
    teach(encoder, teacher, machine, budget, options)
    with replaced(target) as part:
        # Graphs and their manifest are those of the text encoder before.
        others = shutil.ignore_patterns("*.onnx", "giffusion.json", "text_encoder")
        shutil.copytree(model, part, ignore=others)
        publish_part(part / "text_encoder", encoder)
    machine.log("done")
