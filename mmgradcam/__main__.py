"""`python -m mmgradcam` is the command line."""

from mmgradcam.cli import main

main()
