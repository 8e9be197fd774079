"""What tests run in processes of their own."""
