"""Evaluate trained models.

python evaluate.py model=runs/demo                        held-out text, baselines, samples, a report
python evaluate.py model=runs/demo prompt="Once upon a"   answer one prompt
python evaluate.py model=runs/demo text=[wiki.valid.txt]  perplexity on a text file
python evaluate.py model=[runs/a,runs/b]                  several, and a comparison
python evaluate.py model=runs/demo skip=[baselines,smoke] leave parts out
"""

import hydra
from omegaconf import DictConfig

from lumi import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@cli.job
def main(cfg: DictConfig) -> None:
    """Compose, then evaluate."""
    with cli.importing():
        from lumi.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    cli.run(main)
