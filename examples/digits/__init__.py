"""The demo: scikit-learn's digits behind the gate. ``make demo`` runs it, ``make serve DEMO=1`` keeps it up."""
