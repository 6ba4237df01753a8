"""How fast it is, where the time goes, and how near that is to what the machine can do."""
