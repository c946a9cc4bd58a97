"""Serve a model: an HTTP API with a web page, a chat in the terminal, or files for other programs.

python serve.py model=runs/demo-dpo                       OpenAI's API and a page, at http://127.0.0.1:8000
python serve.py model=[runs/demo-sft,runs/demo-dpo]       two models, side by side in the page
python serve.py mode=chat model=runs/demo-dpo             talk in the terminal
python serve.py mode=export model=runs/demo-dpo format=hf   a Hugging Face folder; format=gguf for llama.cpp
"""

import hydra
from omegaconf import DictConfig

from lumi import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="serve")
@cli.job
def main(cfg: DictConfig) -> None:
    """Compose, then serve."""
    with cli.importing():
        from lumi.serving import serve

    serve(cfg)


if __name__ == "__main__":
    cli.run(main, spins=10_000)
