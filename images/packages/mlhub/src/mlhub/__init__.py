"""What runs in the services of an mlhub stack."""
