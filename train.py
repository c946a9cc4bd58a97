"""Train a model.

    python train.py                                   the demo corpus, arch=nano
    python train.py arch=tiny budget.tokens=50e6      another size, another length
    python train.py data=demo_mix optim=muon          a weighted mixture, another optimizer
    python train.py source=files source.path='texts/*.txt'
    python train.py -m arch=nano,micro seed=0,1       every combination
    python train.py --help                            all options

The same command continues a run that was stopped.
"""

import hydra
from omegaconf import DictConfig

from lumi import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@cli.job
def main(cfg: DictConfig) -> None:
    """Compose, then train."""
    with cli.importing():
        from lumi.run import train

    train(cfg)


if __name__ == "__main__":
    cli.run(main)
