"""All results of this repository on one page: which settings are good, and what made them so."""
