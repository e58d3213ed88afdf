"""python -m fer_bench.hub"""

import sys

from fer_bench.hub import main

sys.exit(main())
