"""Prepare data: source -> corpus -> tokenizer -> packed tokens.

    python prepare.py                                 the demo world, all steps
    python prepare.py data=demo_mix                   both demo sources
    python prepare.py source=files source.path='texts/*.txt' source.name=texts
    python prepare.py step=tokenizer force=true       one step, made again
    python prepare.py step=chat inspect=5             conversations, and what of them is supervised
    python prepare.py step=preference                 preference pairs

What is there and up to date is left alone.
"""

import hydra
from omegaconf import DictConfig

from lumi import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="prepare")
@cli.job
def main(cfg: DictConfig) -> None:
    """Compose, then prepare."""
    with cli.importing():
        from lumi.prepare import prepare

    prepare(cfg)


if __name__ == "__main__":
    cli.run(main)
