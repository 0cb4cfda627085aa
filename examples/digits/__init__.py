"""The demo: scikit-learn's handwritten digits behind the gate. ``make demo`` runs it, ``make serve DEMO=1`` keeps it up."""
