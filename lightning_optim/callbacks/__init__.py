"""Lightning callbacks: thin hooks over the parts that do the work."""
