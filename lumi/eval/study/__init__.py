"""One report of many runs: what varied, what it did to a metric, and how sure that is.

`reading` finds the runs of a study with their `figures`, `factors` what differs between them; `statistics` has the formulas,
`analysis` applies them. `sections` says it in words (`remarks`), `tables` and pictures (`drawing`, `curves`, `effects`), which
`document` writes as Markdown and `page` as one HTML file. `report` does all of it; importing this package imports none of them.
"""
