"""SpanBERT's second objective on and off: predicting a span from the two tokens beside it.

Run: bert-variants ablate configs/ablations/span_boundary.py --steps 3000
"""

import dataclasses

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base


def get_grid(steps: int = 3000) -> Grid:
    """Span masking alone as the baseline."""
    experiment = dataclasses.replace(base("span-boundary", steps), corruption="spans(rate=0.15)")
    return Grid(
        name="span-boundary",
        base=experiment,
        arms={"spans": {}, "spans-sbo": {"objectives": "mlm + span_boundary"}},
        baseline="spans",
        claim=(
            "SpanBERT (Joshi et al. 2019, arXiv 1907.10529, section 6.2): the span-boundary "
            "objective adds to span masking, most of all for coreference."
        ),
        number="SQuAD 2.0 F1 86.7 to 86.8, coreference F1 76.3 to 79.0, GLUE 83.8 to 84.0",
        compares=(
            "pseudo-log-likelihood and fixed masks on held-out text after equal tokens. The arm "
            "with the second objective does more work a step; its FLOPs stand beside it. The "
            "paper's gain is in tasks about spans, which these probes do not measure."
        ),
    )
