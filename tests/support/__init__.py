"""What tests share: models, runs, processes, checks. No file here is a test."""
