"""What OpenThinkIMG's users already have: its training flags, its evaluation command, its service files."""
