"""`python -m crash` is what long.py says; processes that it starts cannot import this file."""

from crash.long import main

main()
