"""What each command does; `cli` reads the flags and calls one of them."""
