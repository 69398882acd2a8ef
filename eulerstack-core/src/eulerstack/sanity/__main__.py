"""`python -m eulerstack.sanity`."""

from eulerstack.sanity.command import main

raise SystemExit(main())
