"""Search better settings: trials that are DVC experiments, proposed by Optuna."""
