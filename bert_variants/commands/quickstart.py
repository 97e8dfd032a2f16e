"""Train a tiny BERT on the text that Python itself brings, judge it, and write its report.

Everything that the project does, once, in minutes: a vocabulary is trained, text prepared, a model
pretrained (masked tokens and next sentences), judged on held-out documents beside the unigram
baseline, asked to fill masks, and drawn. Running it again resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bert_variants import config, loaded
from bert_variants.commands import evaluate, train
from bert_variants.report import page
from bert_variants.train import record

SENTENCES = (
    "The [MASK] of the function is returned.",
    "If the file does not [MASK], an error is raised.",
    "This method returns a [MASK] of strings.",
    "The default [MASK] is None.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """How long and where.

    Attributes:
        minutes: training time on two laptop cores; decides the number of steps.
        dir: the run's directory; prepared text goes beside it.
        seed: of everything random.
    """

    minutes: float = 5.0
    dir: str = "runs/quickstart"
    seed: int = 0


def main(options: Options) -> int:
    """Train, judge, fill masks, write the page; its path is the last line."""
    if options.minutes <= 0:
        raise config.ConfigError(f"--minutes is {options.minutes}, expected more than 0.")
    experiment = config.get_config("quickstart", minutes=options.minutes)
    experiment = dataclasses.replace(
        experiment,
        run=dataclasses.replace(experiment.run, dir=options.dir, seed=options.seed),
        data=dataclasses.replace(experiment.data, dir=str(Path(options.dir).parent / "data")),
    )
    config.check(experiment)
    code = train.main(experiment, train.Options())
    if code:
        return code
    evaluate.main(evaluate.Options(run=options.dir))
    model = loaded.load(options.dir)
    found = [
        {
            "text": text,
            "guesses": [[dataclasses.asdict(g) for g in one] for one in model.fill_mask(text)],
        }
        for text in SENTENCES
    ]
    for one in found:
        best = "   ".join(f"{g['token']} {g['probability']:.0%}" for g in one["guesses"][0])
        print(f"{one['text']:55} {best}")
    record.write_json(Path(options.dir) / "fill_mask.json", found)
    print(page.write(Path(options.dir)))
    return 0
