"""The entry point of the demo: `python app.py [--port N]`, and what a Space runs."""

import sys

from fer_bench.ui.app import main

if __name__ == "__main__":
    sys.exit(main())
