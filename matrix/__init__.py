"""distill-matrix: measures distilled models on every target and says which of the numbers may be believed.

A **target** says what should be measured where; a **bundle** says what was measured. Left of the bundle, code may touch
the world; right of it, everything is a pure function of bundles, definitions and the date.
"""
