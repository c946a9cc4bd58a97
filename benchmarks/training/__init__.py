"""How fast Lumi trains beside other ways to train the same weights on the same tokens: ``make bench``."""
