"""A comparison in steps: trainings as jobs, side by side or in turn; results of their folds."""
