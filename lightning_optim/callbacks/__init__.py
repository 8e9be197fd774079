"""Lightning callbacks: thin hooks that call the rooms below."""
