"""What a model is worth: its score on held-out text beside simpler models' scores, and checks of what it writes.

`perplexity` scores packed data and plain text, `baselines` gives xz and n-gram figures to put beside them, `smoke`
generates samples and checks them, `report` writes results.json, report.md and pictures. Importing this package imports
none of them: a plot needs no model, and a perplexity no plot.
"""
