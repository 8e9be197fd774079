"""What an optimizer step leaves to see: scalars, norms, tags, and how TensorBoard is written."""
