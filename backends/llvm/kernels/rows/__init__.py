"""What is computed row by row along the last axis: norms and softmax."""
