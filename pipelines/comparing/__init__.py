"""A comparison in steps: trainings as jobs, side by side or in turn, and what their folds give."""
