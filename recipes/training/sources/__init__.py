"""Sources that are trained on the task before the model that attends to them."""
